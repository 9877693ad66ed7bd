"""What the workers of one server show each other: a few numbers in memory, read in a tenth of a microsecond.

It is an anonymous file of the kernel (memfd_create(2)) that the supervisor makes and its workers inherit: nobody else
can find, cut or delete it, and it goes with them. Each number is eight aligned bytes, written and read as a whole.
"""

import mmap
import os
from collections.abc import Sequence
from multiprocessing.reduction import DupFd
from typing import Any

_NUMBER = 8
_NOBODY = 1 << 62  # more connections than anybody holds


class Board:
    """The position of the last commit; for each of so many workers the connections held, and if it is to be woken."""

    def __init__(self, workers: int, *, file: int | None = None) -> None:
        self._file = os.memfd_create("tidings-board", os.MFD_CLOEXEC) if file is None else file
        self._workers = workers
        size = _NUMBER * (1 + 2 * workers)
        os.ftruncate(self._file, size)
        self._numbers = memoryview(mmap.mmap(self._file, size)).cast("q")
        if file is None:
            for seat in range(workers):
                self.leave(seat)

    def __reduce__(self) -> tuple[Any, ...]:
        """How it goes to a worker that is being started: by its descriptor."""
        return _inherited, (self._workers, DupFd(self._file))

    @property
    def committed(self) -> int:
        """The position of the last commit; only who has the turn to commit sets it, before anybody is answered."""
        return self._numbers[0]

    @committed.setter
    def committed(self, position: int) -> None:
        self._numbers[0] = position

    @property
    def connections(self) -> Sequence[int]:
        """How many connections each worker holds, by its seat."""
        return self._numbers[1 : 1 + self._workers].tolist()

    def hold(self, seat: int, connections: int) -> None:
        """Show how many the worker of that seat holds."""
        self._numbers[1 + seat] = connections

    def leave(self, seat: int) -> None:
        """Show that nobody takes connections there."""
        self._numbers[1 + seat] = _NOBODY

    def ask(self, seat: int) -> None:
        """Show that the worker of that seat is to be woken by the next commit."""
        self._numbers[1 + self._workers + seat] = 1

    def take_asking(self, but: int) -> list[int]:
        """The seats of the others that are to be woken, which are shown so no more."""
        first = 1 + self._workers
        asking = [seat for seat, asks in enumerate(self._numbers[first:].tolist()) if asks and seat != but]
        for seat in asking:
            self._numbers[first + seat] = 0
        return asking


def _inherited(workers: int, file: Any) -> Board:
    return Board(workers, file=file.detach())
