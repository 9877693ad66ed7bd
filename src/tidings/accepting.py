"""How workers share connections out: all accept from one socket, and who holds more than another lets it go first.

Left alone, whoever is woken first takes all that wait (measured: 40 of 64, and their work for as long as they live). A
socket for each worker (SO_REUSEPORT) would strand what the kernel has queued there when its worker is stopped or dies.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from tidings.board import Board

GIVE_WAY_S = 0.005  # an idle worker takes what waits in a tenth of it, a busy one mostly within it
AT_A_TIME = 64  # at the most, when nobody else comes: a worker may be stopped, and its count stale
FULL_S = 1.0  # as asyncio's own pause when there are no more descriptors

log = logging.getLogger("tidings.server")


class Acceptor:
    """Takes connections for one worker. `make` makes a protocol for each; `lost` must be called when one ends."""

    def __init__(self, listener: socket.socket, board: Board, seat: int, make: Callable[[], asyncio.Protocol]) -> None:
        self._listener = listener
        self._board = board
        self._seat = seat
        self._make = make
        self._is_open = True
        self._held = 0
        self._in_vain = 0  # how many to take when giving way was for nothing
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to take connections."""
        self._listener.setblocking(False)
        self._board.hold(self._seat, self._held)
        self._loop.add_reader(self._listener.fileno(), self._take)

    async def stop(self) -> None:
        """Take no more; what waits is for the others, and what was taken is a connection when this returns."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._board.leave(self._seat)
        self._is_open = False
        if self._opening:
            await asyncio.wait(self._opening)

    def lost(self) -> None:
        """A connection ended."""
        self._held -= 1
        if self._is_open:
            self._board.hold(self._seat, self._held)

    def _take(self, at_least: int = 0) -> None:
        """Take what waits, up to some more than the worker that holds least; then it is the others' turn."""
        try:
            while at_least > 0 or self._may_take():
                at_least -= 1
                self._open(self._listener.accept()[0])
        except (BlockingIOError, ConnectionAbortedError):
            self._in_vain = 0  # somebody else took it, or it is gone
        except OSError as error:
            log.error("can't take connections: %s", error.strerror)
            self._rest(FULL_S)
        else:
            self._rest(GIVE_WAY_S)

    def _may_take(self) -> bool:
        least = min(self._board.connections)
        return self._held <= least + 1 + least // 16  # a small lead, so that a crowd is let in quickly

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._pause = self._loop.call_later(seconds, self._go_on, min(self._board.connections))

    def _go_on(self, least_then: int) -> None:
        """Take what nobody else took: first one, since who holds less may be busy, then more: it may be stopped."""
        self._pause = None
        self._loop.add_reader(self._listener.fileno(), self._take)
        is_in_vain = min(self._board.connections) == least_then
        self._in_vain = min(AT_A_TIME, 2 * self._in_vain or 1) if is_in_vain else 0
        self._take(self._in_vain)

    def _open(self, connection: socket.socket) -> None:
        self._held += 1
        self._board.hold(self._seat, self._held)
        connection.setblocking(False)
        opening = self._loop.create_task(self._connect(connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, connection)
        except OSError:  # gone already
            connection.close()
            self.lost()


class Connections(set[Any]):
    """uvicorn's set of connections, which tells when one ends."""

    def __init__(self, on_lost: Callable[[], None]) -> None:
        super().__init__()
        self._on_lost = on_lost

    def discard(self, connection: Any) -> None:
        """Let go of one."""
        if connection in self:
            super().discard(connection)
            self._on_lost()
