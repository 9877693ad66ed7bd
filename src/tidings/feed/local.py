"""The feed of one machine: the store's own change rows, told at once within a process, to others by a datagram."""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tidings.errors import Forgotten, TidingsError
from tidings.feed import Listener
from tidings.model import Batch

log = logging.getLogger("tidings.feed")

LOOK_AROUND_S = 0.25  # a process that joined is woken from then on; until it is, it looks by itself
PAGE = 1_000  # changes read from the store at a time: about 5 ms


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

    With `wake_dir` None this process is the only one that writes, and all there is to do is to pass its commits on.
    Otherwise each process has a datagram socket in that directory, and who committed wakes the others. Each looks
    every `look_s` seconds besides, since a datagram can be lost with its sender, and a commit with its caller.
    """

    _listener: Listener  # from `start` on

    def __init__(
        self, log: Log, wake_dir: str | None, look_s: float, on_check: Callable[[], None] = lambda: None
    ) -> None:
        self._log = log
        self._wake_dir = Path(wake_dir) if wake_dir is not None else None
        self._look_s = look_s
        self._on_check = on_check  # counts the looks at the file that other processes write, too
        self._position = 0
        self._announced = 0
        self._catching_up: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looked: asyncio.Task[None] | None = None  # follows what a look has seen
        self._is_put_off = False  # woken while own writes were under way
        self._others: list[str] = []
        self._look_around_at = 0.0

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
        if self._wake_dir is not None:
            self._open_socket(self._wake_dir)
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
            self._wake_others()
        if self._is_put_off:
            self._is_put_off = False
            if not self.is_fresh():
                self._look()
        return True

    def is_fresh(self) -> bool:
        if self._wake_dir is not None:
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

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._looked is not None:
            self._looked.cancel()
            await asyncio.gather(self._looked, return_exceptions=True)
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            with contextlib.suppress(OSError):
                os.unlink(self._socket.getsockname())
            self._socket.close()

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

    def _open_socket(self, wake_dir: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(wake_dir / f"{os.getpid()}-{secrets.token_hex(4)}"))
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._take_wakes, self._socket)

    def _take_wakes(self, own: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while own.recv(16):
                pass
        if self._log.waiting:  # our next commit brings the news of others before it: a reading of its own can wait
            self._is_put_off = True
        else:
            self._look()

    def _wake_others(self) -> None:
        """A full or dead socket is passed over: its owner looks by itself."""
        if self._socket is None or self._wake_dir is None:
            return
        now = asyncio.get_running_loop().time()
        if now >= self._look_around_at:
            self._look_around_at = now + LOOK_AROUND_S
            own = self._socket.getsockname()
            with contextlib.suppress(OSError):  # it goes when its supervisor was killed, and we go soon after
                self._others = [
                    path for name in os.listdir(self._wake_dir) if (path := f"{self._wake_dir}/{name}") != own
                ]
        for other in self._others:
            with contextlib.suppress(OSError):
                self._socket.sendto(b"!", other)

    def _look_on(self) -> None:
        """Look, now and every `look_s`: a callback, since a task that wakes so often is half of what idling costs."""
        self._timer = asyncio.get_running_loop().call_later(self._look_s, self._look_on)
        self._look()

    def _look(self) -> None:
        """Follow if the file is ahead of us."""
        if self._looked is not None and not self._looked.done():
            return  # there is another look behind it
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
