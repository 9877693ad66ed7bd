"""A process that is killed between its commit and its word of it: nobody was answered, and nobody is misled by it."""

import asyncio

import pytest

from tests.backends import LoggedPlace, gather_group, key, private, sign_up, to_group
from tests.nodes import Served, join
from tests.wires import Wires
from tidings.board import Board
from tidings.errors import Conflict
from tidings.store import LoggedStore

pytest_plugins = "tests.opened"
pytestmark = [pytest.mark.anyio, pytest.mark.logged]

DEADLINE_S = 5.0


@pytest.fixture
async def dying(place: LoggedPlace, store: LoggedStore) -> LoggedStore:
    """A process whose commits are in the file, and on no board that others read."""
    joined = await place.join(store)
    joined._writer.board = Board(0)  # type: ignore[attr-defined]  # its words go nowhere
    return joined


@pytest.fixture
async def other(place: LoggedPlace, store: LoggedStore, wires: Wires) -> Served:
    """A second process beside `worker`."""
    return await join(place, store, wires)


def is_hot(node: Served, user: str, cursor: str) -> bool:
    """Whether a poll is answered by the protocol, as without news."""
    return node.messages.find_none_after(user, cursor.encode(), False) is not None


async def test_who_read_it_elsewhere_goes_on_here(dying: LoggedStore, worker: Served, other: Served) -> None:
    """One process has found the message, another one not yet: Bob's cursor and timestamp lead him between both, once
    to each message."""
    ann, bob = await sign_up(worker.store, "ann"), await sign_up(worker.store, "bob")
    start = (await worker.poll(bob)).cursor
    await dying.send(private(ann, bob, "untold"))
    await other.feed.catch_up()
    found = await other.poll(bob, cursor=start)
    assert [message.message for message in found.messages] == ["untold"]
    here = await worker.poll(bob, cursor=found.cursor)
    assert (list(here.messages), here.more) == ([], False)
    assert await worker.texts(bob, timestamp=int(found.messages[0].timestamp)) == []
    await worker.feed.catch_up()
    assert await worker.texts(bob, cursor=here.cursor) == []
    assert await worker.texts(bob, cursor=start) == ["untold"]
    await other.messages.send(ann, bob, "next", False, None)
    for cursor in (here.cursor, found.cursor):
        assert not is_hot(worker, bob, cursor)
        assert await worker.texts(bob, cursor=cursor) == ["next"]
        assert await other.texts(bob, cursor=cursor) == ["next"]


async def test_a_repeat_that_is_told_it_is_so_already_binds_everywhere(
    dying: LoggedStore, worker: Served, other: Served
) -> None:
    """Carol was removed by the one that died; whoever repeats that is told she is no member: from then on no process
    gives her what was sent since."""
    ann, carol = await sign_up(worker.store, "ann"), await sign_up(worker.store, "carol")
    group = await gather_group(worker.store, ann, carol)
    cursor = (await other.poll(carol)).cursor
    await dying.remove_member(group, carol)
    await dying.send(to_group(ann, group, "without Carol"))
    assert is_hot(other, carol, cursor)
    with pytest.raises(Conflict):
        await worker.store.remove_member(group, carol)
    assert not is_hot(other, carol, cursor)
    assert await other.texts(carol, cursor=cursor) == await other.texts(carol) == []
    assert await worker.texts(carol, cursor=cursor) == await worker.texts(carol) == []


async def test_a_repeat_that_is_answered_is_read_everywhere(dying: LoggedStore, worker: Served, other: Served) -> None:
    """Ann repeats her send with its key and is answered by another process: a third one gives it to Bob at once."""
    ann, bob = await sign_up(worker.store, "ann"), await sign_up(worker.store, "bob")
    cursor = (await other.poll(bob)).cursor
    draft = private(ann, bob, "once")
    first = (await dying.send(draft, key("k"))).value
    written = await worker.store.send(draft, key("k"))
    await worker.feed.publish(written.batch)
    assert written.value == first
    assert not is_hot(other, bob, cursor)
    assert await other.texts(bob, cursor=cursor) == await worker.texts(bob, cursor=cursor) == ["once"]


async def test_it_is_found_by_looking(place: LoggedPlace, store: LoggedStore, wires: Wires, dying: LoggedStore) -> None:
    """Bob waits at a process that is told nothing: its next look at the file ends his wait."""
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    looking = await join(place, store, wires, look_s=0.01)
    cursor = (await looking.poll(bob)).cursor
    waiting = asyncio.create_task(looking.poll(bob, cursor=cursor, wait_s=50.0))
    while looking.messages.waits == 0:
        await looking.store.position()
    await dying.send(private(ann, bob, "untold"))
    answer = await asyncio.wait_for(waiting, DEADLINE_S)
    assert [message.message for message in answer.messages] == ["untold"]
