"""Cursors that the tail does not reach back to: without news they are answered from memory on the spot, only then."""

from collections.abc import AsyncIterator
from typing import NamedTuple

import msgspec
import pytest

from tests.backends import LoggedPlace, gather_group, private, sign_up, to_group
from tidings.app import Memory
from tidings.config import Settings
from tidings.cursor import Hint, Vector, pack_vector, read, unpack_vector
from tidings.cursor import mint as mint_cursor
from tidings.directory import Directory
from tidings.feed.local import LocalFeed
from tidings.model import Batch
from tidings.service import Answer, Messages, Node, Question
from tidings.store import LoggedStore
from tidings.tail import Tail

pytest_plugins = "tests.opened"
pytestmark = [pytest.mark.anyio, pytest.mark.logged]


class Body(msgspec.Struct):
    """The body of an answer that was made on the spot."""

    messages: None
    cursor: str


class Reader(NamedTuple):
    """Ann in two groups, on a node whose tail holds nothing at all; Bob is in both groups, too."""

    ann: str
    bob: str
    groups: tuple[str, str]
    node: Node
    messages: Messages
    calls: dict[str, int]
    earlier: tuple[str, str]  # cursors of an earlier run, after everything, without and with sent

    async def poll(self, cursor: str | None, *, with_sent: bool = False) -> Answer:
        """By the route."""
        return await self.messages.poll(Question(self.ann, cursor=cursor, with_sent=with_sent))

    def find(self, cursor: str, *, with_sent: bool = False) -> Body | None:
        """On the spot, or None; the store is not asked."""
        before = sum(self.calls.values())
        body = self.messages.find_none_after(self.ann, cursor.encode(), with_sent)
        assert sum(self.calls.values()) == before
        return None if body is None else msgspec.json.decode(body, type=Body)

    async def tell(self, news: Batch) -> None:
        """Let the node know of a write."""
        await self.node.feed.publish(news)


async def node_of(store: LoggedStore) -> Node:
    tail, directory = Tail(0.0, 0), Directory(store, 100, 100)
    feed = LocalFeed(store, None, 1_000.0)
    await feed.start(await store.position(), Memory(directory, tail))
    return Node(Settings(), store, feed, tail, directory)


@pytest.fixture
async def reader(place: LoggedPlace) -> AsyncIterator[Reader]:
    """Ann has a message in each of her mailboxes; after that the server was started anew."""
    store = await place.serve()
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    groups = (await gather_group(store, ann, bob), await gather_group(store, ann, bob))
    for draft in (private(bob, ann), private(ann, bob), to_group(bob, groups[0]), to_group(bob, groups[1])):
        await store.send(draft)
    old = await node_of(store)
    before = Messages(old, lambda _: None, lambda _: None)
    first, second = [await before.poll(Question(ann, with_sent=with_sent)) for with_sent in (False, True)]
    assert (len(first.messages), len(second.messages)) == (3, 4)
    await old.feed.close()
    await place.leave(store)
    node = await node_of(await place.serve())
    yield Reader(
        ann,
        bob,
        groups,
        node,
        Messages(node, lambda _: None, lambda _: None),
        place.meter.calls,
        (first.cursor or "", second.cursor or ""),
    )
    await node.feed.close()


async def old_cursor(reader: Reader, *, with_sent: bool = False) -> str:
    """A cursor after everything there is, of this run, older than anything in the tail, and its heads are known."""
    answer = await reader.poll(None, with_sent=with_sent)
    assert answer.cursor is not None
    await reader.tell((await reader.node.store.send(private(reader.bob, reader.bob))).batch)
    hint = read(reader.ann, answer.cursor.encode())
    assert reader.node.tail.has_news((), hint.position) is None
    return answer.cursor


@pytest.mark.parametrize("with_sent", [False, True])
async def test_it_is_answered_as_the_route_answers(reader: Reader, with_sent: bool) -> None:
    """Old, of no hint, or of an earlier run: on the spot and by the route the answer is the same cursor of now."""
    cursor = await old_cursor(reader, with_sent=with_sent)
    hint = read(reader.ann, cursor.encode())
    unhinted = mint_cursor(reader.ann, msgspec.structs.replace(hint, digest=0))
    for old in (cursor, unhinted, reader.earlier[with_sent]):
        routed = await reader.poll(old, with_sent=with_sent)
        assert not routed.messages
        assert reader.find(old, with_sent=with_sent) == Body(None, routed.cursor or "")
        assert read(reader.ann, (routed.cursor or "").encode()).position == reader.node.tail.position


async def test_news_is_for_the_route(reader: Reader) -> None:
    """A message in any of the mailboxes, the copies if they are asked for: nothing is said on the spot."""
    cursor = await old_cursor(reader, with_sent=True)
    store = reader.node.store
    await reader.tell((await store.send(private(reader.ann, reader.bob))).batch)
    assert reader.find(cursor, with_sent=True) is None
    assert reader.find(cursor) is not None
    for draft in (private(reader.bob, reader.ann), to_group(reader.bob, reader.groups[1])):
        cursor = await old_cursor(reader)
        await reader.tell((await store.send(draft)).batch)
        assert reader.find(cursor) is None
        assert len((await reader.poll(cursor)).messages) == 1


async def test_a_change_of_memberships_is_for_the_route(reader: Reader) -> None:
    """Ann left a group or came back to it, and her entry is loaded: what her cursor stands for is not hers any more."""
    cursor = await old_cursor(reader)
    for change in (reader.node.store.remove_member, reader.node.store.add_member):
        await reader.tell((await change(reader.groups[0], reader.ann)).batch)
        await reader.node.directory.heads((await reader.node.directory.entry(reader.ann)).mailboxes_with_sent)
        assert reader.find(cursor) is None


async def test_what_memory_does_not_know_is_for_the_route(reader: Reader) -> None:
    """Heads not held, copies never asked for, seqs above the heads, a run or position unknown: nothing on the spot."""
    cursor = await old_cursor(reader)
    hint = read(reader.ann, cursor.encode())
    vector = unpack_vector(hint.raw)
    beyond = pack_vector(Vector(vector.own + 1, vector.sent, vector.groups))
    doubtful = [
        msgspec.structs.replace(hint, raw=beyond),
        msgspec.structs.replace(hint, run=4_711),
        msgspec.structs.replace(hint, position=hint.position + 1_000),
        msgspec.structs.replace(hint, generation=hint.generation ^ 1),
    ]
    for other in doubtful:
        assert reader.find(mint_cursor(reader.ann, Hint(*msgspec.structs.astuple(other)))) is None
    assert reader.find(cursor, with_sent=True) is None
    assert reader.find(cursor) is not None
    reader.node.directory.reset(0)
    await reader.node.directory.entry(reader.ann)
    assert reader.find(cursor) is None
