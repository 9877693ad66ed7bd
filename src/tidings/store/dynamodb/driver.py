"""Calls to DynamoDB: tried again with jitter until a deadline, counted, their errors translated. Only here is botocore.

A call that did not answer may have been done. So it is repeated as it was; whoever wrote under a condition then looks
whether what is in the way is their own (`Unmet`).
"""

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from tidings.errors import Internal, StoreUnavailable, TidingsError
from tidings.store import RemoteMeter
from tidings.store.dynamodb.address import Address

log = logging.getLogger("tidings.store")

Item = dict[str, Any]  # as DynamoDB writes it: each attribute's value under its type's letter

_CONNECTIONS = 64  # each idle one is 20 KB; more calls at a time wait for one
_CONNECT_S, _ANSWER_S = 1.0, 3.0  # a call takes 5 to 20 ms: who takes longer is asked again
_PAUSE_S, _PAUSE_MAX_S = 0.02, 1.0  # before a repeat: a random part of it, twice as long each time

_BUSY = frozenset(
    (
        "InternalServerError",
        "LimitExceededException",
        "ProvisionedThroughputExceeded",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "ThrottlingError",
        "ThrottlingException",
        "TransactionConflict",
        "TransactionConflictException",
        "TransactionInProgressException",
    )
)
_UNMET = "ConditionalCheckFailed"  # of a part of a transaction
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # it counts the time that the machine was suspended
_LOST = (HTTPClientError, BotoConnectionError, ResponseParserError, aiohttp.ClientError, OSError)  # may have been done
_NO_ACCESS = (NoCredentialsError, PartialCredentialsError, TokenRetrievalError)


class Check(NamedTuple):
    """Whether a write's condition was met, and what was there if it was not."""

    is_met: bool
    found: Item | None


class Unmet(Exception):
    """A conditional write, or a transaction of several, changed nothing: a `Check` for each, in order."""

    def __init__(self, checks: Sequence[Check]) -> None:
        super().__init__("a condition was not met")
        self.checks = checks


class Busy(StoreUnavailable):
    """A write was surely not done: each try of it was refused."""


class Driver:
    """The one client of a store."""

    def __init__(self, client: Any, meter: RemoteMeter) -> None:
        self._client = client
        self._meter = meter
        self._loop = asyncio.get_running_loop()
        self._date = ""  # of the server's last answer
        self._clock = (time.time(), _now())  # the server's, in Unix seconds, and when it was seen

    def now_ms(self) -> int:
        """What the server's clock says, as far as it told: by that clock it deletes what has expired.

        Its answers tell it to the second; before the first one, it is this machine's.
        """
        told, seen = self._clock
        return int((told + _now() - seen) * 1000)

    async def read(self, operation: str, due: float, **request: Any) -> dict[str, Any]:
        """Call a reading operation until it answers, or `due` (time of the loop). Raises StoreUnavailable."""
        return await self._call(operation, "read", due, due, request)

    async def write(self, operation: str, due: float, *, patience: float = math.inf, **request: Any) -> dict[str, Any]:
        """The same for a writing one. Raises Unmet besides; after StoreUnavailable it may have been done.

        After `patience` (time of the loop) raises Busy instead of trying on, unless it may have been done.
        """
        return await self._call(operation, "write", due, patience, request)

    async def of_itself(self, operation: str, kind: str, due: float, **request: Any) -> dict[str, Any]:
        """The same of a `kind`, read or write, for what a node asks while no request is behind it: counted apart."""
        return await self._call(operation, kind, due, due, request, is_own=True)

    async def ask(self, operation: str, **request: Any) -> dict[str, Any]:
        """Call any operation once. Raises botocore's ClientError."""
        answer: dict[str, Any] = await getattr(self._client, operation)(**request)
        self._look_at_clock(answer)
        return answer

    async def _call(
        self, operation: str, kind: str, due: float, patience: float, request: dict[str, Any], *, is_own: bool = False
    ) -> dict[str, Any]:
        call, pause_s, is_sure = getattr(self._client, operation), _PAUSE_S, True
        while True:
            self._meter.operation(operation, is_own)
            try:
                async with asyncio.timeout_at(due):
                    answer: dict[str, Any] = await call(**request, ReturnConsumedCapacity="TOTAL")
            except ClientError as error:
                trouble, why = _judged(error), "busy"
                is_sure = is_sure and _status(error) < 500
            except _LOST as error:
                is_sure, why = False, "lost"
                trouble = StoreUnavailable("store_unavailable", "The store does not answer.", retry_s=2)
                trouble.__cause__ = error
            except BotoCoreError as error:
                raise translate(error) from error
            else:
                self._meter.capacity(kind, _units(answer))
                self._look_at_clock(answer)
                return answer
            wait_s = random.uniform(0, pause_s)  # noqa: S311  # no secret: so that those who failed come one by one
            soon = self._loop.time() + wait_s
            if is_sure and soon >= min(due, patience):
                raise Busy(trouble.code, trouble.detail, retry_s=trouble.retry_s) from trouble
            if soon >= due:
                raise trouble
            self._meter.retry(why)
            await asyncio.sleep(wait_s)
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)

    def _look_at_clock(self, answer: dict[str, Any]) -> None:
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
        if date and date != self._date:
            self._date = date
            with suppress(ValueError):  # no date: then it is told by the others
                self._clock = (parsedate_to_datetime(date).timestamp(), _now())


def _now() -> float:
    return time.clock_gettime(_CLOCK)


def _judged(error: ClientError) -> TidingsError:
    """What to raise if no time is left for another try. Raises at once what another try can't help: Unmet, too."""
    if code_of(error) == "ConditionalCheckFailedException":
        raise Unmet([Check(False, error.response.get("Item"))]) from error
    is_busy = _is_busy(error)
    reasons = _reasons(error)
    if _UNMET in _codes(reasons) and not is_busy:
        raise Unmet([Check(one.get("Code") != _UNMET, one.get("Item")) for one in reasons]) from error
    trouble = translate(error)
    if not is_busy:
        raise trouble from error
    return trouble


def _is_busy(error: ClientError) -> bool:
    """Whether another try may help.

    That goes for a transaction of which one part met a condition and another could not be judged, since a transaction
    is about it: what it is refused for is known once all are.
    """
    if code_of(error) == "TransactionCanceledException":
        codes = _codes(_reasons(error)) - {_UNMET}
        return bool(codes) and codes <= _BUSY
    return code_of(error) in _BUSY or _status(error) >= 500


def _reasons(error: ClientError) -> list[dict[str, Any]]:
    """Why a transaction was canceled: of each of its parts, in order."""
    reasons: list[dict[str, Any]] = error.response.get("CancellationReasons", [])
    return reasons


def _codes(reasons: list[dict[str, Any]]) -> set[str]:
    return {reason.get("Code", "None") for reason in reasons} - {"None"}


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def translate(error: Exception) -> TidingsError:
    """The one place where botocore's errors become ours."""
    if isinstance(error, TidingsError):
        return error
    if isinstance(error, TimeoutError):
        return StoreUnavailable("store_unavailable", "The store did not answer in time.", retry_s=2)
    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        if code in ("ValidationException", "SerializationException", "IdempotentParameterMismatchException"):
            log.error("a call to the store was malformed", exc_info=error)
            return Internal("internal", "The server failed.")
        if _is_busy(error):
            return StoreUnavailable("store_unavailable", "The store is overloaded.", retry_s=2)
        log.error("the store refuses: %s", code)
        return StoreUnavailable("store_unavailable", "The store does not serve this server.", retry_s=30)
    if isinstance(error, (*_LOST, BotoCoreError)):
        return StoreUnavailable("store_unavailable", "The store does not answer.", retry_s=2)
    log.error("a call to the store failed", exc_info=error)
    return Internal("internal", "The server failed.")


def code_of(error: Exception) -> str:
    """What DynamoDB calls an error; "" for any other."""
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else ""


def is_unknown(error: Exception) -> bool:
    """Whether the server has no such table, or knows no such operation."""
    return code_of(error) in ("ResourceNotFoundException", "UnknownOperationException", "InvalidAction")


def reason(error: Exception) -> str:
    """Why the tables can't be reached, in words for whoever starts a server."""
    if isinstance(error, _NO_ACCESS):
        return "no AWS credentials were found (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; a local server takes any)"
    if isinstance(error, ClientError):
        told = error.response["Error"]
        return f"{told['Code']}: {told.get('Message', '')}".rstrip(": ")
    return str(error) or type(error).__name__


def are_ours(checks: Sequence[Check], ids: Sequence[str]) -> bool:
    """Whether what is in every one of a put's places is what it put there: it was done, and its answer was lost."""
    return all(
        check.found is not None and check.found["id"]["S"] == message_id
        for check, message_id in zip(checks, ids, strict=True)
    )


@asynccontextmanager
async def connected(address: Address, meter: RemoteMeter, answer_s: float = _ANSWER_S) -> AsyncIterator[Driver]:
    """A driver for the tables at an address. botocore's own repeats are off: they know no deadline."""
    config = AioConfig(
        connect_timeout=_CONNECT_S,
        read_timeout=answer_s,
        max_pool_connections=_CONNECTIONS,
        retries={"total_max_attempts": 1},
        parameter_validation=False,  # a fifth of a call's CPU; what we send is ours
    )
    made = get_session().create_client(
        "dynamodb", region_name=address.region, endpoint_url=address.endpoint, config=config
    )
    async with made as client:
        yield Driver(client, meter)


def _units(answer: dict[str, Any]) -> float:
    consumed = answer.get("ConsumedCapacity") or ()
    parts: Sequence[dict[str, Any]] = (consumed,) if isinstance(consumed, dict) else consumed
    return sum(float(part.get("CapacityUnits", 0)) for part in parts)
