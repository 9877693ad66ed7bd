"""A message that is told late, when readers by timestamp are past it: they are given it all the same, on every node."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.backends import gather_group, key, mailbox, private, sign_up
from tests.redis_nodes import eventually
from tests.standin.between import Between
from tests.test_nodes_by_time import Held, OneNode, join
from tests.wires import CountedFeed, RedisWires
from tidings.feed.redis.bounds import WIDE
from tidings.model import Posted, own, sent
from tidings.store.dynamodb import DynamoStore

pytest_plugins = ("tests.opened", "tests.standin.opened")
pytestmark = pytest.mark.anyio


@pytest.fixture
async def wires(tmp_path: Path) -> AsyncIterator[RedisWires]:
    made = RedisWires(tmp_path)
    yield made
    await made.close()


def expire(wires: RedisWires) -> None:
    """Let time go by in which the feed was there, until every stamp that is open now expires at the next turn."""
    (feed,) = wires.server.keys("feed")
    wires.server.call("HINCRBY", feed, "age", WIDE.expire_ms)


async def told_behind(quick: OneNode, ann: str, group: str, bob: str) -> int:
    """Bob goes past what is late: a second word is sent in the group, settled, and given to him; its timestamp."""
    second = await quick.messages.send(ann, group, "second", True, None)
    await eventually(lambda: quick.feed.settled >= int(second.timestamp))
    assert await quick.texts(bob, timestamp=int(second.timestamp) - 1) == ["second"]
    return int(second.timestamp)


async def given(node: OneNode, user: str, timestamp: int, is_cold: bool, **question: bool) -> list[str]:
    """What a reader by timestamp is given by a node that remembers everything, or nothing."""
    await node.feed.catch_up()
    if is_cold:
        node.tail.reset(node.feed.position)
    return await node.texts(user, timestamp=timestamp, **question)


@pytest.mark.parametrize("is_cold", [False, True], ids=["remembered", "read from the store"])
async def test_a_message_that_comes_late_is_given_to_who_is_past_it(
    wires: RedisWires, here: DynamoStore, there: DynamoStore, door: Between, is_cold: bool
) -> None:
    """Ann's word to Bob is put when its stamp has expired: it comes after what he was given, for her as for him."""
    slow, quick = await join(wires, here), await join(wires, there)
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    group = await gather_group(here, ann, bob)
    held = Held(door)
    sending = asyncio.create_task(slow.messages.send(ann, bob, "first", False, None))
    await held.has_come.wait()
    expire(wires)
    passed = await told_behind(quick, ann, group, bob)
    held.may_go.set()
    first = await sending
    assert int(first.timestamp) > passed
    assert await given(quick, bob, passed, is_cold) == ["first"]
    assert await given(quick, ann, passed, is_cold, with_sent=True) == ["first"]
    (stored,), (copy,) = await mailbox(there, own(bob)), await mailbox(there, sent(ann))
    assert stored.timestamp == copy.timestamp == first.timestamp


@pytest.mark.parametrize("is_copy", [False, True], ids=["to the same reader", "by the same writer"])
@pytest.mark.parametrize("is_cold", [False, True], ids=["remembered", "read from the store"])
async def test_what_a_dead_node_left_is_given_late(
    wires: RedisWires, here: DynamoStore, there: DynamoStore, is_cold: bool, is_copy: bool
) -> None:
    """A node stores Ann's word to Bob and dies before telling it; who next appends to one of its mailboxes does."""
    dead, quick = await join(wires, here), await join(wires, there)
    ann, bob, carol = [await sign_up(here, name) for name in ("ann", "bob", "carol")]
    group = await gather_group(here, ann, bob)
    await dead.store.send(private(ann, bob, "first"))
    expire(wires)
    passed = await told_behind(quick, ann, group, bob)
    if is_copy:
        await quick.messages.send(ann, carol, "third", False, None)
        await eventually(lambda: quick.tail.has_told(own(bob), 1, passed + 1_000))
        assert await given(quick, ann, passed, is_cold, with_sent=True) == ["first", "third"]
        assert await given(quick, bob, passed, is_cold) == ["first"]
    else:
        await quick.messages.send(carol, bob, "third", False, None)
        assert await given(quick, bob, passed, is_cold) == ["first", "third"]


async def test_two_tell_a_late_message_at_once(wires: RedisWires, here: DynamoStore, there: DynamoStore) -> None:
    """Its node wakes up while another tells it: every node has it under one timestamp, which the store has, too."""
    slow, quick = await join(wires, here), await join(wires, there)
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    group = await gather_group(here, ann, bob)
    written = await slow.store.send(private(ann, bob, "first"))
    expire(wires)
    passed = await told_behind(quick, ann, group, bob)
    told, again = await asyncio.gather(slow.feed.publish(written.batch), quick.feed.publish(written.batch))
    changes = [change for batch in (told, again) for change in batch.changes]
    stamps = [change.message.timestamp for change in changes if isinstance(change, Posted)]
    (stored,) = await mailbox(there, own(bob))
    assert stamps == [stored.timestamp] * 2
    for node in (slow, quick):
        assert await given(node, bob, passed, is_cold=False) == ["first"]
        assert await given(node, bob, int(stored.timestamp), is_cold=False) == []


async def test_what_was_told_before_the_feed_began_anew_is_not_given_again(
    wires: RedisWires, here: DynamoStore, there: DynamoStore
) -> None:
    """The server comes back empty, and an old send is repeated: it is answered, and comes to nobody as news."""
    first, second = await join(wires, here), await join(wires, there)
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    once = await first.messages.send(ann, bob, "once", False, key("once"))
    last = await first.messages.send(ann, bob, "last", False, None)
    wires.server.kill()
    wires.server.start()
    await eventually(lambda: len(counted(first).resets) == len(counted(second).resets) == 2)
    await eventually(lambda: first.feed.is_fresh() and second.feed.is_fresh())
    expire(wires)
    await second.feed.settle(int(last.timestamp), 20)
    assert await second.messages.send(ann, bob, "once", False, key("once")) == once
    assert await given(first, bob, int(last.timestamp), is_cold=False) == []
    assert counted(first).anew == counted(second).anew == 0


async def test_timestamps_move_only_forward(there: DynamoStore) -> None:
    """A message and its copy are given a later timestamp, twice, and then an earlier one, which changes nothing."""
    ann, bob = await sign_up(there, "ann"), await sign_up(there, "bob")
    batch = (await there.send(private(ann, bob))).batch
    (posted,) = batch.changes
    assert isinstance(posted, Posted)
    at = int(posted.message.timestamp)
    for timestamp in (at + 5, at + 5, at + 3):
        await there.postdate([replace(posted, message=replace(posted.message, timestamp=str(timestamp)))])
        (stored,), (copy,) = await mailbox(there, own(bob)), await mailbox(there, sent(ann))
        assert stored.timestamp == copy.timestamp == str(at + 5)


def counted(node: OneNode) -> CountedFeed:
    """What its feed has counted."""
    counts = node.feed._counts
    assert isinstance(counts, CountedFeed)
    return counts
