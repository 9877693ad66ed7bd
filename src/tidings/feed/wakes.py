"""Datagrams by which the workers of one server wake each other; a worker where nobody waits for news is left alone.

To be woken, and to read at once what a commit brought, cost two workers on one core 13 us a send (measured).
"""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from tidings.board import Board

LOOK_AROUND_S = 0.25  # a process that joined is woken from then on; until it is, it looks by itself


class Wakes:
    """A socket of our own in a directory that all workers know; the board has who asked to be woken."""

    def __init__(self, directory: str, board: Board, seat: int) -> None:
        self._directory = Path(directory)
        self._board = board
        self._seat = seat
        self._socket: socket.socket | None = None
        self._others: dict[int, list[str]] = {}
        self._look_around_at = 0.0

    def open(self, on_wake: Callable[[], None]) -> None:
        """Have `on_wake` called when another worker committed after we asked."""
        own = self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        own.bind(str(self._directory / f"{self._seat}-{os.getpid()}-{secrets.token_hex(4)}"))
        asyncio.get_running_loop().add_reader(own.fileno(), self._take, own, on_wake)

    def ask(self) -> None:
        """The next commit of another worker is to wake us: one that comes after a look that follows this call."""
        self._board.ask(self._seat)

    def wake(self) -> None:
        """Wake the others that asked. A full or dead socket is passed over: its owner looks by itself."""
        asking = self._board.take_asking(self._seat)
        if asking and self._socket is not None:
            for address in self._addresses(asking):
                with contextlib.suppress(OSError):
                    self._socket.sendto(b"!", address)

    def close(self) -> None:
        """Be woken no more."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            with contextlib.suppress(OSError):
                os.unlink(self._socket.getsockname())
            self._socket.close()

    def _take(self, own: socket.socket, on_wake: Callable[[], None]) -> None:
        with contextlib.suppress(BlockingIOError):
            while own.recv(16):
                pass
        on_wake()

    def _addresses(self, seats: Iterable[int]) -> Iterable[str]:
        now = asyncio.get_running_loop().time()
        if now >= self._look_around_at:
            self._look_around_at = now + LOOK_AROUND_S
            self._others = {}
            with contextlib.suppress(OSError):  # it goes when its supervisor was killed, and we go soon after
                for name in os.listdir(self._directory):
                    self._others.setdefault(int(name.partition("-")[0]), []).append(f"{self._directory}/{name}")
        return [address for seat in seats for address in self._others.get(seat, ())]
