"""A reading of the store takes its time, on many nodes: what happens meanwhile leaks nothing and hides nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.backends import gather_group, sign_up
from tests.nodes import interpose
from tests.redis_nodes import eventually
from tests.standin.between import Between, Talk
from tests.test_nodes_by_time import join
from tests.wires import RedisWires
from tidings.service import Question
from tidings.store.dynamodb import DynamoStore

pytest_plugins = ("tests.opened", "tests.standin.opened")
pytestmark = pytest.mark.anyio


@pytest.fixture
async def wires(tmp_path: Path) -> AsyncIterator[RedisWires]:
    made = RedisWires(tmp_path)
    yield made
    await made.close()


async def test_what_is_sent_after_a_removal_is_in_no_page_that_was_being_read(
    wires: RedisWires, here: DynamoStore, there: DynamoStore, door: Between
) -> None:
    """Bob's memberships were looked up, his messages are on their way from the store; he is removed, and Ann writes."""
    slow, quick = await join(wires, here), await join(wires, there)
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    group = await gather_group(here, ann, bob)
    cursor = (await slow.messages.poll(Question(bob, cursor="now"))).cursor
    await quick.messages.send(ann, bob, "for bob", False, None)
    await quick.messages.send(ann, group, "before", True, None)
    await slow.feed.catch_up()
    slow.tail.reset(slow.feed.position)
    is_asked, may_go = asyncio.Event(), asyncio.Event()

    def hold(talk: Talk) -> None:
        if talk.operation == "Query" and talk.request.get("ScanIndexForward") and "Limit" in talk.request:
            is_asked.set()
            talk.first = may_go.wait()

    door.fault = hold
    reading = asyncio.create_task(slow.texts(bob, cursor=cursor))
    await is_asked.wait()
    await quick.feed.publish((await there.remove_member(group, bob)).batch)
    await quick.messages.send(ann, group, "after", True, None)
    may_go.set()
    assert await reading == ["for bob"]


async def test_a_cursor_is_of_the_feed_in_which_its_reading_began(
    wires: RedisWires, here: DynamoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Bob's messages are read, the feed begins anew, and comes as far as the old one: what it told is news."""
    node = await join(wires, here)
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    cursor = (await node.messages.poll(Question(bob, cursor="now"))).cursor
    for n in range(3):
        await node.messages.send(ann, bob, f"{n}", False, None)
    node.tail.reset(node.feed.position)
    began_at, identity = node.feed.position, node.feed.identity

    async def begin_anew() -> None:
        wires.server.call("FLUSHALL")
        await eventually(lambda: node.feed.identity != identity and node.feed.is_fresh())
        await node.messages.send(ann, bob, "news", False, None)
        while node.feed.position <= began_at:
            await node.messages.send(ann, ann, "a note", False, None)

    interpose(monkeypatch, here, "read", begin_anew)
    answer = await node.messages.poll(Question(bob, cursor=cursor))
    assert answer.cursor
    assert [m.message for m in answer.messages] == ["0", "1", "2"]
    await node.texts(bob, cursor="now")  # so that who Bob is, is remembered
    assert node.messages.find_none_after(bob, answer.cursor.encode(), False) is None
    assert await node.texts(bob, cursor=answer.cursor) == ["news"]


async def test_a_stay_that_one_node_knows_to_have_ended_does_not_begin_again_at_another(
    wires: RedisWires, here: DynamoStore, there: DynamoStore
) -> None:
    """Eve's removal is stored and not told yet; who knows lets go of her place, who does not gives nothing twice."""
    knowing, ignorant = await join(wires, here), await join(wires, there)
    ann, eve = await sign_up(here, "ann"), await sign_up(here, "eve")
    group = await gather_group(here, ann, eve)
    await ignorant.messages.send(ann, group, "hello", True, None)
    first = await ignorant.messages.poll(Question(eve))
    assert [m.message for m in first.messages] == ["hello"]
    await here.remove_member(group, eve)
    second = await knowing.messages.poll(Question(eve, cursor=first.cursor))
    assert not second.messages
    assert await ignorant.texts(eve, cursor=first.cursor) == []  # still a member there, and given all
    assert await ignorant.texts(eve, cursor=second.cursor) == []
