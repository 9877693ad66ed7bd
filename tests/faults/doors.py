"""Doors between nodes and their servers, as a test sees them; they are in a process of their own (`door.py`)."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from tests.faults.door import Leads, Order
from tests.server import DEADLINE_S


class Doors:
    """Opened in one process; `ports` are where each listens."""

    def __init__(self, leads: Sequence[Leads]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.door"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            self.ports = msgspec.json.decode(self._ask(list(leads)), type=list[int])
        except BaseException:
            self.close()
            raise

    def obey(self, order: Order) -> None:
        """Returns once it is so."""
        assert self._ask(order) == b'"done"\n'

    @contextmanager
    def faulty(self, *orders: Order) -> Iterator[None]:
        """So for a while; then well again."""
        for order in orders:
            self.obey(order)
        try:
            yield
        finally:
            for order in orders:
                self.obey(Order(order.door))

    def close(self) -> None:
        """End them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> "Doors":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, what: object) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(what) + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the doors have fallen"
        return answer
