"""The feed of one machine: the store's own change rows, told at once within a process, to others by a datagram."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable
from typing import Protocol

from tidings.errors import Forgotten, TidingsError
from tidings.feed import Listener
from tidings.feed.wakes import Wakes
from tidings.model import Batch

log = logging.getLogger("tidings.feed")

PAGE = 1_000  # changes read from the store at a time: about 5 ms
PUT_OFF_S = 0.02  # news is waited for that our own next commit should bring: longer, and it was none


class Log(Protocol):
    """The part of an embedded store that is its own news; `tidings.store` has the words."""

    @property
    def run(self) -> int:
        """The feed's identity."""

    async def changes(self, after: int, limit: int) -> Batch:
        """The news after a position, whole commits. Raises Forgotten, StoreUnavailable."""

    @property
    def waiting(self) -> int:
        """How many of our own writes wait."""

    def follow(self, tell: Callable[[Batch], None]) -> None:
        """Have `tell` called with what others committed, when a write of ours has read it."""

    async def position(self) -> int:
        """The position of the last commit."""

    def latest(self) -> int:
        """The same, in microseconds; a commit counts once a writer was answered for it."""

    def look(self) -> int:
        """The same, by the file itself. Raises StoreUnavailable."""


class LocalFeed:
    """See `tidings.feed` for what every method promises.

    With `wakes` None this process is the only one that writes, and all there is to do is to pass its commits on.
    Otherwise who committed wakes those that wait. Each looks every `look_s` seconds besides, since a wake can be lost
    with its sender, and a commit with its caller.
    """

    _listener: Listener  # from `start` on

    def __init__(
        self, log: Log, wakes: Wakes | None, look_s: float, on_check: Callable[[], None] = lambda: None
    ) -> None:
        self._log = log
        self._wakes = wakes
        self._look_s = look_s
        self._on_check = on_check  # counts the looks at the file that other processes write, too
        self._position = 0
        self._announced = 0
        self._catching_up: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looked: asyncio.Task[None] | None = None  # follows what a look has seen
        self._is_put_off = False  # woken while own writes were under way
        self._put_off: asyncio.TimerHandle | None = None

    @property
    def identity(self) -> int:
        return self._log.run

    @property
    def position(self) -> int:
        return self._position

    async def start(self, after: int, listener: Listener) -> None:
        self._listener = listener
        self._begin_at(after)
        await self._follow()
        self._log.follow(self._take)
        if self._wakes is not None:
            self._wakes.open(self._take_wake)
        self._look_on()

    async def publish(self, batch: Batch) -> None:
        if not self.tell(batch):  # another process committed in between: its commits come first
            await self.catch_up()
            self.tell(batch)

    def tell(self, batch: Batch) -> bool:
        if batch.last > self._position:
            if batch.after > self._position:
                return False
            self._apply(batch)
        if batch.last > self._announced:  # once a commit, whoever applied it here
            self._announced = batch.last
            if self._wakes is not None:
                self._wakes.wake()
        if self._is_put_off:
            self._is_put_off = False
            self._look()
        return True

    def expect_news(self) -> None:
        if self._wakes is not None:
            self._wakes.ask()

    def is_fresh(self) -> bool:
        if self._wakes is not None:
            self._on_check()
        return self._log.latest() <= self._position

    async def catch_up(self) -> None:
        """Several callers share one reading, but each needs one that began after its call."""
        running = self._catching_up
        if running is not None:
            await asyncio.wait([running])
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.create_task(self._follow())
        await asyncio.shield(self._catching_up)

    @property
    def is_alone(self) -> bool:
        return False  # the news is in the store

    @property
    def settled(self) -> int:
        return sys.maxsize  # a commit has one timestamp, later than all before it

    async def settle(self, timestamp: int, within_s: float) -> int:
        return self.settled

    async def close(self) -> None:
        for timer in (self._timer, self._put_off):
            if timer is not None:
                timer.cancel()
        if self._looked is not None:
            self._looked.cancel()
            await asyncio.gather(self._looked, return_exceptions=True)
        if self._wakes is not None:
            self._wakes.close()

    def _begin_at(self, position: int) -> None:
        self._position = position
        self._listener.reset(position)

    async def _follow(self) -> None:
        """Read the store's news up to its end. Raises StoreUnavailable."""
        while True:
            try:
                batch = await self._log.changes(self._position, PAGE)
            except Forgotten:
                self._begin_at(await self._log.position())
                continue
            self._apply(batch)
            if len(batch.changes) < PAGE:
                return

    def _apply(self, batch: Batch) -> None:
        """Give the listener what it does not have yet; own commits may have come in while the store was read."""
        if batch.last <= self._position:
            return
        if batch.after != self._position:
            changes = tuple(change for change in batch.changes if change.position > self._position)
            batch = Batch(self._position, batch.last, changes)
        self._position = batch.last
        try:
            self._listener.apply(batch)
        except Exception:  # a fault of ours: rather forget everything than go on with a part
            log.exception("the news could not be taken; beginning anew")
            self._listener.reset(batch.last)

    def _take(self, batch: Batch) -> None:
        """What a write of ours has read of others' commits; if something before it is missing, `catch_up` has all."""
        if batch.after <= self._position:
            self._apply(batch)

    def _take_wake(self) -> None:
        if not self._log.waiting:
            self._look()
            return
        self._is_put_off = True  # our next commit brings the news of others before it: a reading of its own can wait
        if self._put_off is None:
            self._put_off = asyncio.get_running_loop().call_later(PUT_OFF_S, self._end_put_off)

    def _end_put_off(self) -> None:
        """Look after all, if what was under way was refused, or takes long."""
        self._put_off = None
        if self._is_put_off:
            self._is_put_off = False
            self._look()

    def _look_on(self) -> None:
        """Look, now and every `look_s`: a callback, since a task that wakes so often is half of what idling costs."""
        self._timer = asyncio.get_running_loop().call_later(self._look_s, self._look_on)
        self._look()

    def _look(self) -> None:
        """Follow if the file is ahead of us."""
        if self._looked is not None and not self._looked.done():
            return  # there is another look behind it
        if self._wakes is not None and self._listener.is_awaited:
            self._wakes.ask()  # before the look: what is committed after it wakes us
        with contextlib.suppress(TidingsError):  # the store is away: the next look tries again
            if self._log.look() > self._position:
                self._looked = asyncio.create_task(self.catch_up(), name="tidings-feed")
                self._looked.add_done_callback(self._look_again)

    def _look_again(self, looked: "asyncio.Task[None]") -> None:
        if looked.cancelled():
            return
        error = looked.exception()
        if error is None:
            self._look()
        elif not isinstance(error, TidingsError):
            log.error("the news could not be read", exc_info=error)
