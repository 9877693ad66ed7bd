"""The local feed, beyond the contract: its news is SQLite's own log, with what was committed and never published.

A node here is a store handle with a feed on it, as each process of a server has them.
"""

import asyncio

import pytest

from tests.backends import LoggedPlace, gather_group, private, sign_up, to_group
from tests.nodes import interpose
from tests.pairs import pair, start
from tests.wires import LocalWires

pytest_plugins = "tests.opened"
pytestmark = [pytest.mark.anyio, pytest.mark.logged]

NEVER_S = 3_600.0  # a feed that looks by itself this seldom must be told
OFTEN_S = 0.005


async def test_a_start_tells_everything_since(place: LoggedPlace, wires: LocalWires) -> None:
    """A feed started after a position resets its listener to it, and gives it all that followed, whole."""
    store = await place.serve()
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    await asyncio.gather(*(store.send(private(ann, bob)) for _ in range(20)))
    whole = list((await store.changes(0, 1_000)).changes)
    for after in (0, 2, 10, len(whole)):
        node = await start(store, wires, NEVER_S, after)
        assert node.told.resets == [after]
        assert node.told.changes == whole[after:]
        assert node.feed.position == await store.position()
        assert node.feed.is_fresh()


async def test_a_start_over_more_than_a_page_of_news_tells_it_all(place: LoggedPlace, wires: LocalWires) -> None:
    """Some 2,100 changes, more than are read at a time, are told at a start without a gap."""
    store = await place.serve()
    users = await asyncio.gather(*(sign_up(store, "ann") for _ in range(2_000)))
    await asyncio.gather(*(store.send(private(users[n], users[n + 1])) for n in range(100)))
    node = await start(store, wires, NEVER_S)
    assert [change.position for change in node.told.changes] == list(range(1, await store.position() + 1))
    assert len(node.told.changes) >= 2_100


async def test_a_batch_published_by_all_who_wrote_it_is_told_once(place: LoggedPlace, wires: LocalWires) -> None:
    """Thirty writes at once share commits, and each publishes its own: every change is told once, in order."""
    store = await place.serve()
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    group = await gather_group(store, ann, bob)
    node = await start(store, wires, NEVER_S)

    async def write(n: int) -> None:
        written = await store.send((private(ann, bob), private(bob, ann), to_group(ann, group))[n % 3])
        await node.feed.publish(written.batch)
        assert node.told.position >= written.batch.last

    await asyncio.gather(*(write(n) for n in range(30)))
    assert node.told.changes == list((await store.changes(0, 1_000)).changes)
    assert node.told.resets == [0]


async def test_commits_published_out_of_order_are_told_in_order(place: LoggedPlace, wires: LocalWires) -> None:
    """Three commits are published last first: the listener is told of them in the order of the store."""
    store = await place.serve()
    ann = await sign_up(store, "ann")
    node = await start(store, wires, NEVER_S)
    commits = [await node.commit(ann, ann) for _ in range(3)]
    for written in reversed(commits):
        await node.feed.publish(written.batch)
        assert node.told.position >= written.batch.last
    assert node.told.changes == list((await store.changes(0, 1_000)).changes)


async def test_a_wake_during_a_reading_is_not_lost(
    place: LoggedPlace, wires: LocalWires, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Woken while it reads the news, when the commit came too late for that reading: it is told of it all the same."""
    both = await pair(place, wires, NEVER_S)
    later: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def send_once_more() -> None:
        later.set_result((await both.first.send(both.ann, both.bob)).batch.last)
        for _ in range(10):  # passes of the loop, in which the wake is taken
            await asyncio.sleep(0)

    interpose(monkeypatch, both.second.store, "changes", send_once_more)
    await both.first.send(both.ann, both.bob)
    await both.second.told.until_position(await later)
    assert both.second.told.changes == both.first.told.changes


async def test_a_commit_applied_before_it_is_published_wakes_the_others(place: LoggedPlace, wires: LocalWires) -> None:
    """A node's reader catches up with its writer's commit before it is published: the other is woken all the same."""
    both = await pair(place, wires, NEVER_S)
    for _ in range(3):
        written = await both.first.commit(both.ann, both.bob)
        await both.first.feed.catch_up()
        await both.first.feed.publish(written.batch)
        await both.second.told.until_position(written.batch.last)


async def test_a_lost_wake_is_made_up_by_looking(place: LoggedPlace, wires: LocalWires) -> None:
    """Nodes that can't wake each other, and one that stored without telling: the other finds out by itself."""
    both = await pair(place, wires, OFTEN_S)
    wires.cut()
    published = await both.first.send(both.ann, both.bob)
    await both.second.told.until_position(published.batch.last)
    untold = await both.first.commit(both.ann, both.bob)
    await both.second.told.until_position(untold.batch.last)
    await both.first.told.until_position(untold.batch.last)
    assert both.first.told.changes == both.second.told.changes


async def test_a_feed_is_fresh_only_with_all_that_was_acknowledged(place: LoggedPlace, wires: LocalWires) -> None:
    """Each commit of one node makes the other stale at once, until it has caught up."""
    both = await pair(place, wires, NEVER_S)
    wires.cut()
    for writer, reader in [(both.first, both.second), (both.second, both.first)] * 5:
        await reader.feed.catch_up()
        assert reader.feed.is_fresh()
        written = await writer.send(both.ann, both.bob)
        assert not reader.feed.is_fresh()
        assert writer.feed.is_fresh()
        await reader.feed.catch_up()
        assert reader.feed.is_fresh()
        assert reader.told.position >= written.batch.last


async def test_whoever_catches_up_has_what_was_acknowledged_before_they_asked(
    place: LoggedPlace, wires: LocalWires
) -> None:
    """Twenty callers at once, each after a commit of its own elsewhere: each has its commit when its call returns."""
    both = await pair(place, wires, NEVER_S)
    wires.cut()

    async def ask() -> None:
        written = await both.first.send(both.ann, both.bob)
        await both.second.feed.catch_up()
        assert both.second.told.position >= written.batch.last

    await asyncio.gather(*(ask() for _ in range(20)))
    assert both.second.told.changes == both.first.told.changes


async def test_own_commits_wait_for_the_foreign_ones_before_them(place: LoggedPlace, wires: LocalWires) -> None:
    """A node that missed the other's commits publishes its own: its listener is told of theirs first."""
    both = await pair(place, wires, NEVER_S)
    wires.cut()
    for _ in range(3):
        await both.first.send(both.ann, both.bob)
    own_commit = await both.second.send(both.bob, both.ann)
    assert both.second.told.changes == list((await both.first.store.changes(0, 1_000)).changes)
    assert both.second.told.position == own_commit.batch.last
    assert both.second.told.resets == [0]


async def test_own_commits_bring_the_foreign_ones_along(place: LoggedPlace, wires: LocalWires) -> None:
    """The same, whatever the messages say: what a write read of others on its way is told without another reading."""
    both = await pair(place, wires, NEVER_S)
    wires.cut()
    await both.second.send(both.bob, both.ann)
    await both.second.feed.catch_up()
    for said in ("a\0b", '"\\\n\x7f', "\u2028\U0001f600", "x" * 16_384):
        await both.first.feed.publish((await both.first.store.send(private(both.ann, both.bob, said))).batch)
        await both.first.feed.publish(
            (await both.first.store.block(await sign_up(both.first.store, said), both.ann)).batch
        )
    readings = place.meter.calls["changes"]
    await both.second.send(both.bob, both.ann)
    assert place.meter.calls["changes"] == readings
    assert both.second.told.changes == list((await both.first.store.changes(0, 1_000)).changes)
    assert both.second.told.resets == [0]


async def test_who_fell_behind_what_is_kept_begins_anew(place: LoggedPlace, wires: LocalWires) -> None:
    """News that a node had not been told of is trimmed: it is reset to a position, and told whole from there."""
    both = await pair(place, wires, NEVER_S)
    wires.cut()
    for _ in range(5):
        written = await both.first.send(both.ann, both.bob)
    place.drop_news(written.batch.last - 1)
    await both.second.feed.catch_up()
    assert both.second.told.resets == [0, written.batch.last]
    assert both.second.feed.is_fresh()
    later = await both.first.send(both.ann, both.bob)
    await both.second.feed.catch_up()
    assert both.second.told.changes == list(later.batch.changes)
    assert len(both.second.told.resets) == 2


async def test_a_start_before_what_is_kept_begins_anew(place: LoggedPlace, wires: LocalWires) -> None:
    """A feed started after a position whose news was trimmed is reset to one from where nothing is missing."""
    store = await place.serve()
    ann = await sign_up(store, "ann")
    for _ in range(3):
        await store.send(private(ann, ann))
    place.drop_news(2)
    node = await start(store, wires, NEVER_S)
    assert node.told.resets[-1] >= 2
    assert node.told.position == node.feed.position == await store.position()


async def test_a_feed_has_the_identity_of_its_server(place: LoggedPlace, wires: LocalWires) -> None:
    """All nodes of one server name the feed alike; after a restart it has another name, since positions may differ."""
    both = await pair(place, wires, NEVER_S)
    identity = both.first.feed.identity
    assert both.second.feed.identity == identity
    for node in (both.second, both.first):
        await wires.leave(node.feed)
        await place.leave(node.store)
    assert (await start(await place.serve(), wires, NEVER_S)).feed.identity != identity
