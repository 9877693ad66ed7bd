"""The contract of a feed, held against every one: all the news, to every node, in one order.

The module's words in `tidings/feed/__init__.py` are the list. A node here is a store handle with a feed on it, as each
process of a server, or each node of a cluster, has them. Positions are the feed's own affair: what is told is compared
without them.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.backends import LoggedPlace, gather_group, private, sign_up, to_group
from tests.pairs import DEADLINE_S, Node, bare, pair, start
from tests.wires import WIRES, Wires
from tidings.model import Altered, Batch, Posted, User, mint

pytest_plugins = "tests.opened"
pytestmark = [pytest.mark.anyio, pytest.mark.logged]

NEVER_S = 3_600.0  # a feed that looks by itself this seldom must be told


@pytest.fixture(params=WIRES)
async def wires(request: pytest.FixtureRequest, place: LoggedPlace, tmp_path: Path) -> AsyncIterator[Wires]:
    """What connects feeds, of every kind; made after `place`, so that feeds end before their stores."""
    made = WIRES[request.param](tmp_path)
    yield made
    await made.close()


async def test_a_start_tells_everything_since(place: LoggedPlace, wires: Wires) -> None:
    """A feed started after a position resets its listener to it, and gives it all that followed, whole."""
    both = await pair(place, wires, NEVER_S)
    for _ in range(20):
        await both.first.send(both.ann, both.bob)
    whole = both.first.told.changes
    for after in (0, 2, 10, both.first.feed.position):
        node = await start(both.first.store, wires, NEVER_S, after)
        assert node.told.resets == [after]
        assert node.told.changes == [change for change in whole if change.position > after]
        assert node.feed.position == both.first.feed.position
        assert node.feed.is_fresh()


async def test_a_start_over_more_than_a_page_of_news_tells_it_all(place: LoggedPlace, wires: Wires) -> None:
    """Some 2,100 changes, more than are read at a time, are told at a start without a gap."""
    store = await place.serve()
    first = await start(store, wires, NEVER_S)
    ann = await sign_up(store, "ann")
    await first.feed.catch_up()

    async def join(n: int) -> None:
        await first.feed.publish((await store.create_user(User(mint("user"), f"eve {n}"))).batch)

    await asyncio.gather(*(join(n) for n in range(2_000)), *(first.send(ann, ann) for _ in range(100)))
    node = await start(store, wires, NEVER_S)
    assert node.told.changes == first.told.changes
    assert len(node.told.changes) >= 2_100
    assert node.told.resets == [0]


async def test_publish_returns_when_its_own_listener_has_applied_it(place: LoggedPlace, wires: Wires) -> None:
    """As soon as `publish` returned, the commit is the last thing that the node's listener was told."""
    store = await place.serve()
    node = await start(store, wires, NEVER_S)
    ann = await sign_up(store, "ann")
    await node.feed.catch_up()
    for _ in range(10):
        written = await node.send(ann, ann)
        assert bare(node.told.batches[-1].changes) == bare(written.batch.changes)
        assert node.feed.position == node.told.position
        assert node.feed.is_fresh()


async def test_a_batch_published_by_all_who_wrote_it_is_told_once(place: LoggedPlace, wires: Wires) -> None:
    """Thirty writes at once share commits, and each publishes its own: every change is told once."""
    store = await place.serve()
    node = await start(store, wires, NEVER_S)
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    group = await gather_group(store, ann, bob)

    async def write(n: int) -> str:
        written = await store.send((private(ann, bob), private(bob, ann), to_group(ann, group))[n % 3])
        await node.feed.publish(written.batch)
        assert written.value.message_id in node.told.message_ids
        return written.value.message_id

    assert sorted(await asyncio.gather(*(write(n) for n in range(30)))) == sorted(node.told.message_ids)
    assert node.told.resets == [0]


async def test_two_nodes_are_told_the_same_in_one_order(place: LoggedPlace, wires: Wires) -> None:
    """Two nodes write and publish at once, messages and joinings: both are told all of it, alike."""
    both = await pair(place, wires, NEVER_S)
    group = await gather_group(both.first.store, both.ann, both.bob)
    joining = [await sign_up(both.first.store, "eve") for _ in range(10)]

    async def send(node: Node, n: int) -> None:
        draft = to_group(both.bob, group) if n % 3 == 0 else private(both.ann, both.bob)
        await node.feed.publish((await node.store.send(draft)).batch)

    async def join(node: Node, user: str) -> None:
        await node.feed.publish((await node.store.add_member(group, user)).batch)

    nodes = (both.first, both.second)
    await asyncio.gather(
        *(send(node, n) for n in range(30) for node in nodes),
        *(join(nodes[n % 2], user) for n, user in enumerate(joining)),
    )
    for node in nodes:
        await node.feed.catch_up()
        assert len([change for change in node.told.changes if isinstance(change, Posted)]) == 60
        assert {change.user_id for change in node.told.changes if isinstance(change, Altered)} >= set(joining)
        assert node.told.resets == [0]
    assert both.first.told.changes == both.second.told.changes


async def test_a_node_that_looks_seldom_is_told_by_the_other(place: LoggedPlace, wires: Wires) -> None:
    """A node that looks by itself once an hour is told of each commit that the other published."""
    both = await pair(place, wires, NEVER_S)
    for writer, reader in [(both.first, both.second), (both.second, both.first)] * 5:
        written = await writer.send(both.ann, both.bob)
        await reader.told.until_told(written.batch)
        assert reader.told.changes[-1] == writer.told.changes[-1]


async def test_a_node_where_nobody_waits_is_told_once_somebody_does(place: LoggedPlace, wires: Wires) -> None:
    """It need not be told at once of what nobody waits for; who begins to wait is told of the very next commit."""
    both = await pair(place, wires, NEVER_S)
    await both.second.feed.catch_up()
    both.second.told.is_awaited = False
    for _ in range(3):
        for _ in range(3):
            await both.first.send(both.ann, both.bob)
        both.second.told.is_awaited = True
        both.second.feed.expect_news()
        written = await both.first.send(both.ann, both.bob)
        await both.second.told.until_told(written.batch)
        both.second.told.is_awaited = False
    assert both.second.told.changes == both.first.told.changes


async def test_whoever_catches_up_has_what_was_acknowledged_before_they_asked(place: LoggedPlace, wires: Wires) -> None:
    """Twenty callers at once, each after a commit of its own elsewhere: each has its commit when its call returns."""
    both = await pair(place, wires, NEVER_S)

    async def ask() -> None:
        written = await both.first.send(both.ann, both.bob)
        await both.second.feed.catch_up()
        assert written.value.message_id in both.second.told.message_ids

    await asyncio.gather(*(ask() for _ in range(20)))
    assert both.second.told.changes == both.first.told.changes


async def test_what_is_told_is_settled_in_the_end(place: LoggedPlace, wires: Wires) -> None:
    """A message that both nodes were told of: each knows soon that none can come any more with its timestamp."""
    both = await pair(place, wires, NEVER_S)
    written = await both.first.send(both.ann, both.bob)
    for node in (both.first, both.second):
        await node.feed.catch_up()
        timestamp = int(written.value.timestamp)
        assert await node.feed.settle(timestamp, DEADLINE_S) >= timestamp
        assert node.feed.settled >= timestamp


async def test_nothing_is_told_of_nothing(place: LoggedPlace, wires: Wires) -> None:
    """A write that changed nothing has no news: it is told on the spot."""
    both = await pair(place, wires, NEVER_S)
    before = both.first.feed.position
    assert both.first.feed.tell(Batch(before, before, ()))
    await both.first.feed.publish(Batch(before, before, ()))
    assert both.first.feed.position == before


async def test_a_listener_that_fails_begins_anew(
    place: LoggedPlace, wires: Wires, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The news can't be taken, by a fault of ours: the listener is reset behind it, and told what follows."""
    both = await pair(place, wires, NEVER_S)

    def fail(batch: Batch) -> None:
        raise ArithmeticError("planted")

    with monkeypatch.context() as patched:
        patched.setattr(both.second.told, "apply", fail)
        await both.first.send(both.ann, both.bob)
        await both.second.feed.catch_up()
    assert both.second.told.resets == [0, both.first.told.position]
    written = await both.first.send(both.ann, both.bob)
    await both.second.told.until_told(written.batch)
    assert bare(both.second.told.changes) == bare(written.batch.changes)


async def test_nodes_of_one_feed_name_it_alike(place: LoggedPlace, wires: Wires) -> None:
    """All nodes on one store give the feed one identity, a 64-bit number, whose positions they compare."""
    both = await pair(place, wires, NEVER_S)
    assert both.first.feed.identity == both.second.feed.identity
    assert -(1 << 63) <= both.first.feed.identity < 1 << 63


async def test_a_closed_feed_tells_nothing_more(place: LoggedPlace, wires: Wires) -> None:
    """After a node's feed is closed its listener hears nothing, and the other node goes on."""
    both = await pair(place, wires, NEVER_S)
    await wires.leave(both.second.feed)
    told = both.second.told.position
    await both.first.send(both.ann, both.bob)
    assert both.first.told.position > told == both.second.told.position
