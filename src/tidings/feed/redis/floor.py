"""The floor under the feed's clock, kept in the store: read when a feed begins, raised before the clock gets there."""

import asyncio
import logging
import random
from collections.abc import Callable

from tidings.errors import TidingsError
from tidings.feed.redis.bounds import Bounds
from tidings.stamps import Floor

log = logging.getLogger("tidings.feed")

RETRY_S = 0.5  # after the store could not raise it


class FloorKeeper:
    """Keeps the floor ahead of the clock; a node alone could do it, all of them do, a little apart."""

    def __init__(self, floor: Floor, bounds: Bounds, on_raised: Callable[[], None]) -> None:
        self._floor = floor
        self._bounds = bounds
        self._on_raised = on_raised
        self._raising: asyncio.Task[None] | None = None
        self._low_ms = bounds.ahead_ms * random.uniform(0.4, 0.7)  # noqa: S311 - to be apart, not to be secret
        self.raised = 0

    async def read(self) -> int:
        """The floor in the store. Raises StoreUnavailable, TimeoutError."""
        async with asyncio.timeout(self._bounds.floor_s):
            return await self._floor.floor()

    def see(self, now: int, floor: int) -> None:
        """What the feed said: its clock wants to be at `now`, and may not pass `floor`."""
        if floor - now < self._low_ms and max(floor, self.raised) - now < self._low_ms and self._is_idle():
            self._raising = asyncio.create_task(self._raise(now + self._bounds.ahead_ms), name="tidings-floor")

    async def close(self) -> None:
        """Stop raising."""
        if self._raising is not None:
            self._raising.cancel()
            await asyncio.gather(self._raising, return_exceptions=True)

    def _is_idle(self) -> bool:
        return self._raising is None or self._raising.done()

    async def _raise(self, to: int) -> None:
        try:
            async with asyncio.timeout(self._bounds.floor_s):
                await self._floor.raise_floor(to)
        except (TidingsError, TimeoutError) as error:
            log.warning("the clock's floor could not be raised: %s", error)
            await asyncio.sleep(RETRY_S)
            return
        self.raised = max(self.raised, to)
        self._on_raised()
