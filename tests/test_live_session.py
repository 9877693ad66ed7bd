"""A session's whole life at random, while other processes write: each message once, in order, and no other."""

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Sequence

import pytest

from tests.backends import LoggedPlace, gather_group, sign_up, to_group
from tests.nodes import Served, join
from tests.wires import Wires
from tidings.live import Ending, Event, Session, Streams
from tidings.model import Group, mint
from tidings.service import Groups, Node, Question, Users
from tidings.store import LoggedStore

pytest_plugins = "tests.opened"
pytestmark = [pytest.mark.anyio, pytest.mark.logged]

STEPS = 150
TURNS_MAX = 100_000  # of the loop, until what must come has come


class Page:
    """An outlet that keeps what is written, and takes nothing while it is `is_full`."""

    def __init__(self) -> None:
        self.is_full = False
        self.events: list[Event] = []

    def write(self, events: Sequence[Event]) -> None:
        assert not self.is_full, "written to a reader who takes nothing"
        self.events += events

    def heartbeat(self, cursor: str) -> None:
        if self.events:
            self.events[-1] = Event(self.events[-1].encoded, cursor)

    def expired(self) -> None:
        raise AssertionError("nothing is ever too old here")


class Life:
    """Bob reads on a node of his own; what he is to be given is noted as it is sent from another."""

    def __init__(self, writer: Served, reader: Served, people: dict[str, str], groups: list[str], seed: int) -> None:
        self.rng = random.Random(seed)
        self.writer, self.reader = writer, reader
        self.people, self.groups = people, groups
        self.streams = Streams(reader.messages, self.node(reader))
        self.member: set[str] = set()
        self.blocks = False
        self.expected: dict[str, list[str]] = defaultdict(list)
        self.given: list[Event] = []
        self.page = Page()
        self.session: Session
        self.running: asyncio.Task[Ending]
        self.first = ""
        self.floor = 0
        self.said = 0

    @staticmethod
    def node(served: Served) -> Node:
        return served.messages._node

    async def open(self, cursor: str) -> None:
        self.page, self.floor = Page(), 0
        self.session = self.streams.holding(Question(self.people["bob"], cursor=cursor, with_sent=True))
        await self.session.open()
        self.running = asyncio.create_task(self.session.run(self.page))

    async def settle(self) -> None:
        """Wait until Bob has been given everything there is."""
        if self.page.is_full:
            self.take_again()
        position = await self.writer.store.position()
        tail = self.reader.memory._tail
        for _ in range(TURNS_MAX):
            if tail.position >= position and self.session._is_live:
                return
            assert not self.running.done(), self.running
            if tail.position < position:
                await self.reader.feed.catch_up()
            await asyncio.sleep(0)
        raise AssertionError("it does not come to rest")

    def take_again(self) -> None:
        self.page.is_full = False
        self.session.resume()

    async def send_several(self) -> None:
        """To mailboxes of their own, so that one commit has them."""
        await asyncio.gather(*map(self.send, self.rng.sample(["to bob", "by bob", *self.groups], 4)))

    async def send(self, where: str = "") -> None:
        bob, ann = self.people["bob"], self.people["ann"]
        self.said += 1
        text = str(self.said)
        where = where or self.rng.choice(["to bob", "by bob", *self.groups])
        by = self.rng.choice([self.writer, self.reader])
        if where == "to bob":
            if not self.blocks:
                await by.messages.send(ann, bob, text, False, None)
                self.expected[bob].append(text)
        elif where == "by bob":
            await by.messages.send(bob, ann, text, False, None)
            self.expected["sent"].append(text)
        else:
            await by.messages.send(ann, where, text, True, None)
            if where in self.member:
                self.expected[where].append(text)

    async def come_or_go(self) -> None:
        group, bob = self.rng.choice(self.groups), self.people["bob"]
        groups = Groups(self.node(self.rng.choice([self.writer, self.reader])))
        if group in self.member:
            await self.settle()
            self.floor = len(self.page.events)
            await groups.remove(group, bob, None)
            self.member.discard(group)
        else:
            await groups.add(group, bob, None)
            self.member.add(group)

    async def block_or_unblock(self) -> None:
        users = Users(self.node(self.rng.choice([self.writer, self.reader])))
        change = users.unblock if self.blocks else users.block
        await change(self.people["bob"], self.people["ann"], None)
        self.blocks = not self.blocks

    async def lose_the_news(self) -> None:
        self.reader.memory.reset(self.reader.feed.position)

    async def stop_or_take(self) -> None:
        if self.page.is_full:
            self.take_again()
        else:
            self.page.is_full = True

    async def cut(self) -> None:
        """The connection breaks: Bob goes on from any of the places that he was given since the last time.

        But from none before he left a group, whose messages are not his any more.
        """
        await self.settle()
        self.session.end()
        assert (await self.running).code == "gone"
        self.session.let_go()
        for event in self.page.events[self.floor : -1]:  # there is something after each of these
            assert self.reader.messages.find_none_after(self.people["bob"], event.cursor.encode(), True) is None
        kept = self.rng.randint(self.floor, len(self.page.events))
        self.given += self.page.events[:kept]
        await self.open(self.given[-1].cursor if self.given else self.first)

    async def live(self) -> None:
        self.first = (await self.reader.poll(self.people["bob"], cursor="now", with_sent=True)).cursor
        await self.open(self.first)
        deeds = [*[self.send, self.send_several] * 6, *[self.come_or_go] * 3, self.block_or_unblock, self.lose_the_news]
        deeds += [self.stop_or_take, self.stop_or_take, self.cut]
        for _ in range(STEPS):
            await self.rng.choice(deeds)()
            for _ in range(self.rng.choice((0, 0, 1, 5))):
                await asyncio.sleep(0)
        await self.settle()
        self.given += self.page.events
        self.session.end()
        await self.running
        self.session.let_go()


@pytest.mark.parametrize("seed", range(20))
async def test_a_random_life(place: LoggedPlace, wires: Wires, seed: int) -> None:
    """Comings and goings, blocks, lost news, a reader that stops taking, cuts: Bob is given each message once."""
    store = await place.serve()
    writer, reader = await join(place, store, wires), await join(place, store, wires)
    people = {name: await sign_up(writer.store, name) for name in ("ann", "bob")}
    groups = []
    for name in ("hikers", "bakers", "singers"):
        written = await writer.store.create_group(Group(mint("group"), name))
        groups.append(written.value.group_id)
        await writer.feed.publish((await writer.store.add_member(groups[-1], people["ann"])).batch)
    life = Life(writer, reader, people, groups, seed)
    await life.live()
    given: dict[str, list[str]] = defaultdict(list)
    for event in life.given:
        message = json.loads(event.encoded)
        given["sent" if message.get("sent") else message["recipientId"]].append(message["message"])
    assert given == life.expected
    assert life.said > 50


async def test_who_never_ran_leaves_nothing(place: LoggedPlace, wires: Wires) -> None:
    """A session that was opened and let go, as for HEAD or a client that left, is handed nothing more by the tail."""
    store = await place.serve()
    node = await join(place, store, wires)
    bob = await sign_up(node.store, "bob")
    streams = Streams(node.messages, Life.node(node))
    for _ in range(3):
        with streams.holding(Question(bob)) as session:
            await session.open()
            assert node.memory.is_awaited
        assert not node.memory.is_awaited
    assert node.messages.waits == 0


@pytest.mark.parametrize("is_removed", [True, False], ids=["removed", "let in"])
async def test_what_is_told_together_binds_in_its_order(
    place: LoggedPlace, store: LoggedStore, wires: Wires, is_removed: bool
) -> None:
    """Bob is removed from a group, or let in, by another process, between two messages, and all that is told in one
    piece: he is given the one that was sent while he was a member, and not the other."""
    reader = await join(place, store, wires)
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    group = await gather_group(store, ann, *([bob] if is_removed else []))
    await reader.feed.catch_up()
    page = Page()
    with Streams(reader.messages, Life.node(reader)).holding(Question(bob)) as session:
        await session.open()
        running = asyncio.create_task(session.run(page))
        await until_live(session)
        before = await store.position()
        await store.send(to_group(ann, group, "first"))
        await (store.remove_member if is_removed else store.add_member)(group, bob)
        await store.send(to_group(ann, group, "second"))
        batch = await store.changes(before, 100)
        assert len(batch.changes) == 3
        assert reader.feed.tell(batch)
        await until_live(session)
        assert [json.loads(event.encoded)["message"] for event in page.events] == ["first" if is_removed else "second"]
        session.end()
        await running


async def until_live(session: Session) -> None:
    """Wait until it has given what there is."""
    for _ in range(TURNS_MAX):
        await asyncio.sleep(0)
        if session._is_live:
            return
    raise AssertionError("it does not come to rest")


async def test_a_message_to_many_costs_its_readers_alone(place: LoggedPlace, wires: Wires) -> None:
    """Of a thousand members twenty are connected, as are twenty strangers: what is sent is written to those twenty at
    once, encoded once, and no task of anybody's is woken for it."""
    store = await place.serve()
    writer, reader = await join(place, store, wires), await join(place, store, wires)
    ann = await sign_up(writer.store, "ann")
    members = await asyncio.gather(*(sign_up(writer.store, f"member {n}") for n in range(1_000)))
    strangers = await asyncio.gather(*(sign_up(writer.store, f"stranger {n}") for n in range(20)))
    group = (await writer.store.create_group(Group(mint("group"), "all"))).value.group_id
    await asyncio.gather(*(writer.store.add_member(group, user) for user in (ann, *members)))
    await writer.feed.catch_up()
    streams = Streams(reader.messages, Life.node(reader))
    pages, sessions, running = {}, [], []
    for user in (*members[:20], *strangers):
        session, pages[user] = streams.holding(Question(user)), Page()
        await session.open()
        running.append(asyncio.create_task(session.run(pages[user])))
        sessions.append(session)
    for session in sessions:
        await until_live(session)

    batch = (await writer.store.send(to_group(ann, group, "to all"))).batch
    loop, woken = asyncio.get_running_loop(), []
    call_soon = loop.call_soon
    loop.call_soon = lambda *call, **context: woken.append(call) or call_soon(*call, **context)  # type: ignore
    reader.feed.tell(batch)  # in one step, as a worker takes the news of another
    del loop.call_soon

    assert woken == []
    given = {user: page.events for user, page in pages.items()}
    assert [len(given[user]) for user in members[:20]] == [1] * 20
    assert [given[user] for user in strangers] == [[]] * 20
    assert len({id(events[0].encoded) for events in given.values() if events}) == 1
    assert len({events[0].cursor for events in given.values() if events}) == 20
    assert all(session._is_live for session in sessions)
    for session in sessions:
        session.end()
    await asyncio.gather(*running)
    for session in sessions:
        session.let_go()
