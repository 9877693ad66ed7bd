"""Reads of the store: so many at a time and so many that wait for their turn; a read that hangs is waited for so long.

A gate in one of the queries stands for a disk that does not answer.
"""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import apsw
import pytest

from tests.backends import LoggedPlace, sign_up
from tests.server import DEADLINE_S
from tidings.errors import TidingsError
from tidings.store import Store
from tidings.store.sqlite import reads

pytest_plugins = "tests.opened"
pytestmark = [pytest.mark.anyio, pytest.mark.logged]  # the gate is in a query of SQLite

AT_A_TIME, WAITING = 2, 3


class Gate:
    """What readers of blocks stand before until it is opened; `arrived` is how many have come to it."""

    def __init__(self) -> None:
        self.arrived = 0
        self._open = threading.Event()
        self._news = threading.Condition()
        self._real = reads.blocks

    def open(self) -> None:
        """Let everybody through."""
        self._open.set()

    def blocks(self, db: apsw.Connection, user_id: str) -> list[str]:
        """The query, once it may go on."""
        with self._news:
            self.arrived += 1
            self._news.notify_all()
        assert self._open.wait(DEADLINE_S)
        return self._real(db, user_id)

    async def reached(self, number: int) -> None:
        """Return when so many have come to it."""

        def wait() -> None:
            with self._news:
                assert self._news.wait_for(lambda: self.arrived >= number, DEADLINE_S)

        await asyncio.to_thread(wait)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate()
    monkeypatch.setattr(reads, "blocks", made.blocks)
    yield made
    made.open()


def held(store: Store, user: str, number: int) -> list["asyncio.Task[Any]"]:
    """So many reads that stand before the gate, or wait behind those that do."""
    return [asyncio.create_task(store.blocks(user)) for _ in range(number)]


async def refusal(store: Store, user: str) -> tuple[str, bool]:
    """The code with which a read is refused, and whether another try can help."""
    with pytest.raises(TidingsError) as caught:
        await store.find_profile(user)
    return caught.value.code, caught.value.retry_s is not None


async def test_so_many_read_and_so_many_wait(place: LoggedPlace, gate: Gate) -> None:
    """Two read at a time, three wait, a sixth is refused at once; writes go on, and room is there when all are done."""
    store = await place.serve(cold_reads_max=AT_A_TIME, cold_reads_waiting_max=WAITING)
    ann = await sign_up(store, "ann")
    reading = held(store, ann, AT_A_TIME)
    await gate.reached(AT_A_TIME)
    reading += held(store, ann, WAITING - 1)
    last = held(store, ann, 1)  # at the limit: it is taken
    await asyncio.sleep(0)
    assert await refusal(store, ann) == ("overloaded", True)
    await sign_up(store, "bob")
    assert gate.arrived == AT_A_TIME, "more read than may at a time"
    gate.open()
    assert await asyncio.gather(*reading, *last) == [[]] * (AT_A_TIME + WAITING)
    assert await asyncio.gather(*held(store, ann, AT_A_TIME + WAITING)) == [[]] * (AT_A_TIME + WAITING)
    assert await store.find_profile(ann) is not None


async def test_a_read_that_hangs_is_given_up_and_keeps_its_place(place: LoggedPlace, gate: Gate) -> None:
    """After the wait both, who reads and who waits, are told so; whoever hangs keeps a thread until it is through."""
    store = await place.serve(cold_reads_max=1, cold_reads_waiting_max=1, read_wait_s=0.2)
    ann = await sign_up(store, "ann")
    given_up = await asyncio.gather(*held(store, ann, 2), return_exceptions=True)
    assert [getattr(error, "code", "") for error in given_up] == ["store_unavailable"] * 2
    assert gate.arrived == 1, "who waited and was given up reads nothing any more"
    assert await refusal(store, ann) == ("store_unavailable", True)  # there is room to wait, and one hangs
    waiting = held(store, ann, 1)
    await asyncio.sleep(0)
    assert await refusal(store, ann) == ("overloaded", True)
    gate.open()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await store.find_profile(ann) is not None
