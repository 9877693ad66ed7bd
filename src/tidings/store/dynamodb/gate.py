"""Whether writes are taken: not of a store that is closed for an export, or is being filled by an import.

The mark stands in the store, and no put is made under it: that would double the price of each. Instead each node looks
every few seconds, and answers a write only if, since it last saw the store open, less time than `TRUST_S` has passed
until the write was done. So who closes the store and waits for `CLOSING_S` meets everything that was acknowledged;
what a node puts later, as one that was stopped may, it answers with 503.
"""

import asyncio
import contextlib
import logging
import time

from tidings.errors import StoreUnavailable, TidingsError, store_closed
from tidings.log import tell
from tidings.store.dynamodb import items
from tidings.store.dynamodb.driver import Driver, Item

log = logging.getLogger("tidings.store")

LOOK_S = 2.0
TRUST_S = 6.0
CLOSING_S = TRUST_S + 1.0

# Of the item that has the generation; TOLD: messages up to this time were told where they came from.
CLOSED, IMPORTING, IMPORTED, TOLD = "closed", "importing", "imported", "told"

# It counts the time that the machine was suspended; where there is none such, the monotonic one does.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def is_open(item: Item | None, generation: int) -> bool:
    """Whether a store of this generation takes writes, by its item."""
    is_ours = item is not None and items.plain(item, "value") == generation
    return is_ours and item is not None and CLOSED not in item and IMPORTING not in item


class Gate:
    """What one node knows of it; `item` was read after the moment `since`."""

    def __init__(self, driver: Driver, table: str, generation: int) -> None:
        self._driver = driver
        self._table = table
        self._generation = generation
        self._is_open = True
        self._until = 0.0
        self._looking: asyncio.Task[None] | None = None

    def begin(self, item: Item, since: float) -> None:
        """Believe this, and look on by itself."""
        self._see(item, since)
        self._looking = asyncio.get_running_loop().create_task(self._look_on(), name="tidings-gate")

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking

    def check(self) -> None:
        """Raises Closed if the store is; while that is not known, a write is tried, and judged by `doubt`."""
        if not self._is_open:
            raise store_closed()

    def doubt(self) -> StoreUnavailable | None:
        """Why a write that is done may not be answered; None if it may."""
        if self._is_open and now() < self._until:
            return None
        text = "It was stored, but maybe after the store was closed; the same Idempotency-Key finds out."
        return StoreUnavailable("store_unavailable", text, retry_s=2)

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            since = now()
            due = asyncio.get_running_loop().time() + LOOK_S
            request = {"TableName": self._table, "Key": items.own_key("generation"), "ConsistentRead": True}
            with contextlib.suppress(TidingsError):  # what is not seen is not believed for long
                self._see((await self._driver.of_itself("get_item", "read", due, **request)).get("Item"), since)

    def _see(self, item: Item | None, since: float) -> None:
        was_open, self._is_open = self._is_open, is_open(item, self._generation)
        self._until = since + TRUST_S
        if was_open and not self._is_open:
            tell(log, logging.ERROR, "store_closed_began", "writes are refused: %(code)s", code="store_closed")
        elif self._is_open and not was_open:
            tell(
                log,
                logging.WARNING,
                "store_closed_ended",
                "writes are taken again: %(code)s is over",
                code="store_closed",
            )


def now() -> float:
    """Seconds on a clock that nobody sets."""
    return time.clock_gettime(_CLOCK)
