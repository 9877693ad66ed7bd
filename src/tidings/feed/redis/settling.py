"""Those who wait until a time is settled: none that is later told has it."""

import asyncio
from heapq import heapify, heappop, heappush
from itertools import count


class Settling:
    """The settled time, and who waits for it."""

    def __init__(self) -> None:
        self.now = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._tickets = count()
        self._gone = 0

    def set(self, settled: int) -> None:
        """It is this from now on; a feed that begins anew may have it earlier."""
        self.now = settled
        while self._waiting and self._waiting[0][0] <= settled:
            waiter = heappop(self._waiting)[2]
            if waiter.cancelled():
                self._gone -= 1
            else:
                waiter.set_result(None)

    async def reach(self, timestamp: int, within_s: float) -> int:
        """Wait until it is `timestamp` at least, but not longer than that; gives what it is then."""
        if self.now >= timestamp:
            return self.now
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (timestamp, next(self._tickets), waiter))
        try:
            await asyncio.wait([waiter], timeout=within_s)
        finally:
            if waiter.cancel():
                self._sweep()
        return self.now

    def _sweep(self) -> None:
        """Let go of those who left, once they are the most: while nothing settles, nothing else does."""
        self._gone += 1
        if self._gone * 2 > len(self._waiting):
            self._waiting = [entry for entry in self._waiting if not entry[2].cancelled()]
            heapify(self._waiting)
            self._gone = 0
