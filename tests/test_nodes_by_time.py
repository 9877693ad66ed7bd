"""Readers by timestamp on two nodes: while a message with an earlier timestamp is on its way, nothing overtakes it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.backends import gather_group, private, sign_up
from tests.redis_nodes import eventually
from tests.standin.between import Between, Talk
from tests.wires import RedisWires
from tidings.app import Memory
from tidings.config import Settings
from tidings.directory import Directory
from tidings.feed.redis import RedisFeed
from tidings.feed.redis.bounds import WIDE
from tidings.service import Messages, Node, Question
from tidings.store.dynamodb import DynamoStore
from tidings.tail import Tail

pytest_plugins = ("tests.opened", "tests.standin.opened")
pytestmark = pytest.mark.anyio


class OneNode(NamedTuple):
    """A node's services over its store and feed."""

    store: DynamoStore
    feed: RedisFeed
    tail: Tail
    messages: Messages

    async def texts(self, user: str, **question: Any) -> list[str]:
        return [message.message for message in (await self.messages.poll(Question(user, **question))).messages]


@pytest.fixture
async def wires(tmp_path: Path) -> AsyncIterator[RedisWires]:
    made = RedisWires(tmp_path)
    yield made
    await made.close()


async def join(wires: RedisWires, store: DynamoStore) -> OneNode:
    """A node of its own on a store."""
    tail, directory = Tail(600, 1 << 20), Directory(store, 100, 100)
    feed = await wires.start(store, Memory(directory, tail, store.learn), 1.0)
    assert isinstance(feed, RedisFeed)
    store.stamp_with(feed)
    store.announce_with(feed.publish, tail.has_told)
    settings = Settings(store="dynamodb://eu-central-1/tidings", feed="redis://127.0.0.1:1/0")
    node = Node(settings, store, feed, tail, directory)
    return OneNode(store, feed, tail, Messages(node, lambda _: None, lambda _: None))


class Held:
    """What holds a message's put back, once it has its timestamp."""

    def __init__(self, door: Between) -> None:
        self.has_come = asyncio.Event()
        self.may_go = asyncio.Event()
        door.fault = self._hold

    def _hold(self, talk: Talk) -> None:
        if talk.operation in ("PutItem", "TransactWriteItems") and not self.has_come.is_set():
            self.has_come.set()
            talk.first = self.may_go.wait()


@pytest.mark.parametrize("is_cold", [False, True], ids=["remembered", "read from the store"])
async def test_nothing_overtakes_a_message_on_its_way(
    wires: RedisWires, here: DynamoStore, there: DynamoStore, door: Between, is_cold: bool
) -> None:
    """Ann's word to Bob has its timestamp, and is not stored yet; a later one in his group is. He waits for both."""
    slow, quick = await join(wires, here), await join(wires, there)
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    group = await gather_group(here, ann, bob)
    held = Held(door)
    first = asyncio.create_task(slow.messages.send(ann, bob, "first", False, None))
    await held.has_come.wait()
    second = await quick.messages.send(ann, group, "second", True, None)
    if is_cold:
        quick.tail.reset(quick.feed.position)
    reading = asyncio.create_task(quick.texts(bob, timestamp=1))
    await eventually(lambda: wires.waiting(quick.feed))
    held.may_go.set()
    assert await reading == ["first", "second"]
    assert int((await first).timestamp) < int(second.timestamp)


async def test_what_is_not_settled_is_for_the_next_question(
    wires: RedisWires, here: DynamoStore, there: DynamoStore, door: Between
) -> None:
    """The first word stays on its way: Bob is not shown the second without it, and after it both, once."""
    slow, quick = await join(wires, here), await join(wires, there)
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    group = await gather_group(here, ann, bob)
    before = await quick.messages.send(ann, group, "before", True, None)
    held = Held(door)
    first = asyncio.create_task(slow.messages.send(ann, bob, "first", False, None))
    await held.has_come.wait()
    await quick.messages.send(ann, group, "second", True, None)
    assert await quick.texts(bob, timestamp=1) == ["before"]
    assert await quick.texts(bob, timestamp=int(before.timestamp)) == []
    held.may_go.set()
    await first
    assert await quick.texts(bob, timestamp=int(before.timestamp)) == ["first", "second"]


async def test_a_reader_by_cursor_waits_for_nobody(
    wires: RedisWires, here: DynamoStore, there: DynamoStore, door: Between
) -> None:
    """By cursor Bob is given the second word at once, and the first when it is there: each once."""
    slow, quick = await join(wires, here), await join(wires, there)
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    group = await gather_group(here, ann, bob)
    now = (await quick.messages.poll(Question(bob, cursor="now"))).cursor
    held = Held(door)
    first = asyncio.create_task(slow.messages.send(ann, bob, "first", False, None))
    await held.has_come.wait()
    await quick.messages.send(ann, group, "second", True, None)
    answer = await quick.messages.poll(Question(bob, cursor=now))
    assert [m.message for m in answer.messages] == ["second"]
    held.may_go.set()
    await first
    await quick.feed.catch_up()
    assert await quick.texts(bob, cursor=answer.cursor) == ["first"]


async def test_what_is_told_late_is_given_to_who_is_past_it(
    wires: RedisWires, here: DynamoStore, there: DynamoStore
) -> None:
    """Ann's word is stored, and told when its stamp has expired and Bob is past it: it comes behind all that he has."""
    slow, quick = await join(wires, here), await join(wires, there)
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    group = await gather_group(here, ann, bob)
    first = await slow.store.send(private(ann, bob, "first"))
    (feed,) = wires.server.keys("feed")
    wires.server.call("HINCRBY", feed, "age", WIDE.expire_ms)
    second = await quick.messages.send(ann, group, "second", True, None)
    passed = int(second.timestamp)
    await eventually(lambda: quick.feed.settled >= passed)
    assert await quick.texts(bob, timestamp=passed - 1) == ["second"]
    await slow.feed.publish(first.batch)
    await quick.feed.catch_up()
    assert await quick.texts(bob, timestamp=passed) == ["first"]
