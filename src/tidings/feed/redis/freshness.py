"""Proof that a node has applied the feed up to some moment: a beat of its own, read back."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from tidings.feed import no_feed
from tidings.feed.redis.wire import Place

# It counts the time that the machine was suspended; where there is none such, the monotonic one does.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boottime() -> float:
    """Seconds since the machine was started."""
    return time.clock_gettime(_CLOCK)


class Freshness:
    """When everything that had been told by then was known to be applied.

    A moment is proved if what was put into the feed after it (our beat, or our news) has been read back.
    """

    def __init__(self, fresh_s: float, on_lag: Callable[[float], None], clock: Callable[[], float] = boottime) -> None:
        self._fresh_s = fresh_s
        self._on_lag = on_lag
        self.clock = clock
        self._until = -1.0  # fresh up to this moment
        self._reached = Place(0, 0)
        self._put: deque[tuple[Place, float]] = deque()  # what is to be read back, and a moment before it was asked for
        self._waiting: dict[asyncio.Future[None], float] = {}  # since when
        self._asked_at = -1.0  # the last of these

    def is_fresh(self) -> bool:
        """Whether the proof is recent enough."""
        return self.clock() < self._until

    @property
    def age_s(self) -> float:
        """How old the proof is."""
        return self.clock() - (self._until - self._fresh_s)

    @property
    def is_asked(self) -> bool:
        """Whether somebody waits for a newer proof than any that is under way."""
        latest = self._put[-1][1] if self._put else self._until - self._fresh_s
        return bool(self._waiting) and self._asked_at > latest

    @property
    def is_overdue(self) -> bool:
        """Whether something has been in the feed for longer than proof lasts, and was not read back."""
        return bool(self._put) and self.clock() - self._put[0][1] > self._fresh_s

    def put(self, place: Place, at: float) -> None:
        """Something was put into the feed at this place, and asked for after that moment."""
        self._put.append((place, at))
        self._prove()

    def reached(self, place: Place) -> None:
        """Everything up to this place is applied."""
        self._reached = place
        self._prove()

    def begin_at(self, place: Place) -> None:
        """The feed is another one, or another link leads to it: what was put into it before may never be read back."""
        self._put.clear()
        self._reached = place

    def give_up(self) -> None:
        """There is no link: nothing can be proved."""
        self._put.clear()
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(no_feed())

    async def prove(self, on_asked: Callable[[], None]) -> None:
        """Wait until a moment after this call is proved; `on_asked` sees to it. Raises FeedUnavailable."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = self._asked_at = self.clock()
        on_asked()
        try:
            async with asyncio.timeout(self._fresh_s):
                await waiter
        except TimeoutError as error:
            raise no_feed() from error
        finally:
            del self._waiting[waiter]

    def _prove(self) -> None:
        at = None
        while self._put and self._put[0][0] <= self._reached:
            at = self._put.popleft()[1]
        if at is None:
            return
        self._on_lag(self.clock() - at)
        self._until = at + self._fresh_s
        for waiter, since in self._waiting.items():
            if since <= at and not waiter.done():
                waiter.set_result(None)
