"""The tables as a command uses them that is no node: nobody counts, and what fails is one line."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tidings.errors import TidingsError, UpkeepError
from tidings.store import Uncounted
from tidings.store.dynamodb.address import Address
from tidings.store.dynamodb.driver import Driver, connected, is_unknown, reason

LONG_S = 180.0  # until a call that is tried again is given up
_ANSWER_S = 45.0  # nobody waits for a single call here, and a page of a scan may take long on a server that is not AWS


@asynccontextmanager
async def at(address: Address) -> AsyncIterator[Driver]:
    """A driver; what it can't do is an UpkeepError."""
    where = address.endpoint or f"DynamoDB in {address.region}"
    try:
        async with connected(address, Uncounted(), _ANSWER_S) as driver:
            yield driver
    except UpkeepError:
        raise
    except TidingsError as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        if is_unknown(cause):
            raise UpkeepError(
                f"{where} has no tables {address.prefix}-... yet; make them: tidings store init"
            ) from error
        raise UpkeepError(f"{where} can't be used: {reason(cause)}") from error
