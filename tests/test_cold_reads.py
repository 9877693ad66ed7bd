"""Reads of the store: so many at a time and so many that wait for their turn; a read that hangs is waited for so long.

A gate in one of the queries stands for a disk that does not answer.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import apsw
import pytest

from tests.backends import LoggedPlace, gather_group, private, sign_up
from tests.nodes import NEVER_S, memory_of
from tests.server import DEADLINE_S
from tests.wires import LocalWires
from tidings.config import Settings
from tidings.errors import StoreUnavailable, TidingsError
from tidings.service import Groups, Messages, Node, Question, Users
from tidings.store import Store
from tidings.store.sqlite import mailboxes, reads

pytest_plugins = "tests.opened"
pytestmark = [pytest.mark.anyio, pytest.mark.logged]  # the gate is in a query of SQLite

AT_A_TIME, WAITING = 2, 3
LATE_S = 0.4


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


async def test_what_nobody_waits_for_is_not_read(place: LoggedPlace, gate: Gate) -> None:
    """Whoever leaves before it is their turn keeps their place until then, so that places stay bounded; no longer."""
    store = await place.serve(cold_reads_max=1, cold_reads_waiting_max=1)
    ann = await sign_up(store, "ann")
    (hanging,) = held(store, ann, 1)
    await gate.reached(1)
    (waiting,) = held(store, ann, 1)
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert await refusal(store, ann) == ("overloaded", True)
    gate.open()
    assert await hanging == []
    assert await store.find_profile(ann) is not None
    assert gate.arrived == 1


async def test_a_call_has_one_deadline_for_all_that_it_reads(
    place: LoggedPlace, wires: LocalWires, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at the file is late, and in time: a call that takes two is refused, and gives all once they are not."""
    store = await place.serve()
    ann = await sign_up(store, "ann")
    group = await gather_group(store, ann)
    sent = (await store.send(private(ann, ann))).value

    async def node(read_wait_s: float) -> tuple[Messages, Users, Groups]:
        """A process that remembers nothing yet."""
        joined = await place.join(store)
        memory = memory_of(joined)
        feed = await wires.start(joined, memory, NEVER_S, after=await joined.position())
        made = Node(Settings(read_wait_s=read_wait_s), joined, feed, memory._tail, memory._directory)
        return Messages(made, lambda _: None, lambda _: None), Users(made), Groups(made)

    calls: list[Callable[[Messages, Users, Groups], Awaitable[Any]]] = [
        lambda messages, users, groups: messages.poll(Question(ann)),
        lambda messages, users, groups: messages.poll(Question(ann, timestamp=1)),
        lambda messages, users, groups: messages.poll(Question(ann, wait_s=0.1)),
        lambda messages, users, groups: messages.poll(Question(ann, cursor="now")),
        lambda messages, users, groups: anext(messages.pages(Question(ann))),
        lambda messages, users, groups: users.show(ann),
        lambda messages, users, groups: groups.members(group, ann, "", 10),
        lambda messages, users, groups: groups.history(group, ann, None, None, 10),
    ]
    nodes = [await node(LATE_S * 1.5) for _ in calls]
    with monkeypatch.context() as patched:
        for module, name in ((reads, "profile"), (mailboxes, "heads"), (mailboxes, "read"), (reads, "blocks")):
            patched.setattr(module, name, late(getattr(module, name)))
        patched.setattr(reads, "members", late(reads.members))
        told = await asyncio.gather(
            *(call(*parts) for call, parts in zip(calls, nodes, strict=True)), return_exceptions=True
        )
    assert [type(error) for error in told] == [StoreUnavailable] * len(calls)
    for call, parts in zip(calls, nodes, strict=True):
        await answered(lambda call=call, parts=parts: call(*parts))  # type: ignore[misc]
    given = await answered(lambda: nodes[0][0].poll(Question(ann)))
    assert [message.message_id for message in given.messages] == [sent.message_id]


async def answered(call: Callable[[], Awaitable[Any]]) -> Any:
    """What a call gives, asked again while the machine has other things to do than to answer in time."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await call()
            except StoreUnavailable:
                continue


def late(read: Callable[..., Any]) -> Callable[..., Any]:
    """A query behind a disk that takes its time."""

    def wait(*given: Any) -> Any:
        threading.Event().wait(LATE_S)
        return read(*given)

    return wait
