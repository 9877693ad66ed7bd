"""Messages that are kept for some days only, on DynamoDB: whatever the server deletes, in whatever order, however late.

The stand-in deletes nothing by itself here: tests delete items as DynamoDB would, some of those whose time has come by
the clock that its answers tell.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backends import DynamoPlace, gather_group, key, private, sign_up, to_group
from tests.shell import Shell
from tests.standin import endpoint
from tests.standin.between import Between, Talk
from tests.standin.raw import Raw
from tidings.config import Settings
from tidings.errors import StartError
from tidings.model import Draft, Message, Posted, Start, own, room, sent
from tidings.store.dynamodb import DynamoStore
from tidings.store.dynamodb.address import address_of
from tidings.store.dynamodb.doctor import examine
from tidings.store.dynamodb.driver import Item

pytest_plugins = ("tests.opened", "tests.standin.opened")

DAYS = 3
DAY_S = 86_400


class World:
    """A store whose messages are kept for three days, two nodes on it, its clock, and what was sent."""

    def __init__(self, place: DynamoPlace, door: Between) -> None:
        self.place = place
        self.door = door
        self.raw = Raw(address_of(place.url))
        self.nodes: list[DynamoStore] = []
        self.sent: dict[str, list[Message]] = {}  # by mailbox, copies too
        self.stands: dict[tuple[int, str], int] = {}  # readers' cursors
        self.given: set[tuple[int, str, int]] = set()
        door.ahead_s = 0.0

    async def begin(self) -> None:
        self.nodes = [await self.serve() for _ in range(2)]
        self.ann, self.bob = [await sign_up(self.nodes[0], name) for name in ("ann", "bob")]
        self.group = await gather_group(self.nodes[0], self.ann, self.bob)
        self.sent = {own(self.bob): [], sent(self.ann): [], room(self.group): []}

    async def serve(self) -> DynamoStore:
        return await self.place.serve(through=self.door.url, retention_days=DAYS)

    @property
    def now_ms(self) -> int:
        """What the server's clock says."""
        return int((time.time() + (self.door.ahead_s or 0)) * 1000)

    def draft(self, is_private: bool) -> Draft:
        return private(self.ann, self.bob) if is_private else to_group(self.ann, self.group)

    async def send(self, is_private: bool, node: int = 0, count: int = 1) -> None:
        """Every message gets the next seq, whatever of those before it is there."""
        for _ in range(count):
            self.place.stamps.give(self.now_ms)
        written = await asyncio.gather(*(self.nodes[node].send(self.draft(is_private)) for _ in range(count)))
        for one in sorted(written, key=lambda w: w.value.seq):
            (news,) = one.batch.changes
            assert isinstance(news, Posted)
            self._note(news.mailbox, news.message)
            if news.sent_seq:
                self._note(sent(self.ann), Message(*_without_seq(news.message), news.sent_seq, True))

    def _note(self, mailbox: str, message: Message) -> None:
        assert message.seq == len(self.sent[mailbox]) + 1, "a seq twice, or a hole"
        self.sent[mailbox].append(message)

    def kept(self, mailbox: str) -> list[Message]:
        """What readers must be given."""
        return [m for m in self.sent[mailbox] if int(m.timestamp) > self.now_ms - DAYS * DAY_S * 1000]

    async def expired(self) -> list[Item]:
        """Items that the server may delete."""
        return [i for i in await self.raw.all(self.raw.messages) if _expires(i) * 1000 <= self.now_ms]

    async def poll(self, reader: int, mailbox: str, node: int = 0) -> None:
        """A reader goes on: is given all that is kept, once, and told if and only if something is gone."""
        at, store = self.stands.get((reader, mailbox), 0), self.nodes[node]
        found = await store.read([Start(mailbox, at)], 1_000)
        (head,) = await store.heads([mailbox])
        kept = [m for m in self.kept(mailbox) if m.seq > at]
        assert [f.message for f in found] == kept
        assert (head.seq, head.gone) == (len(self.sent[mailbox]), len(self.sent[mailbox]) - len(self.kept(mailbox)))
        for message in kept:
            assert (reader, mailbox, message.seq) not in self.given, "given twice"
            self.given.add((reader, mailbox, message.seq))
        self.stands[reader, mailbox] = max([at, head.gone, *(m.seq for m in kept)])

    async def look(self, mailbox: str, chance: random.Random, node: int = 0) -> None:
        """Whoever reads by time, or backwards, gets what is kept and no more."""
        store, kept, all_ = self.nodes[node], self.kept(mailbox), self.sent[mailbox]
        at = int(chance.choice(all_).timestamp) if all_ else 1
        found = await store.read([Start(mailbox, time=at)], 1_000)
        assert [f.message for f in found] == [m for m in kept if int(m.timestamp) > at]
        before = chance.randint(1, len(all_) + 1)
        found = await store.read_before(mailbox, before, 2)
        assert [f.message for f in found] == [m for m in kept if m.seq < before][-2:]


def _without_seq(message: Message) -> tuple[str, str, str, str, str]:
    return message.sender_id, message.message, message.recipient_id, message.timestamp, message.message_id


def _expires(item: Item) -> int:
    return int(item["expires"]["N"]) if "expires" in item else 1 << 60


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    async with Between(endpoint()).open() as door:
        place = DynamoPlace(directory)
        try:
            made = World(place, door)
            await made.begin()
            yield made
        finally:
            await place.close()


SENDS = st.tuples(st.just("send"), st.booleans(), st.integers(0, 1), st.integers(1, 3))
# No sum of these is three days: so what is kept does not hang on the seconds that the test takes.
DAYS_PASS = st.tuples(st.just("pass"), st.sampled_from([0.7, 1.3, 2.1, 3.6]))
DELETES = st.tuples(st.just("delete"), st.sampled_from([0.3, 0.7, 1.0]))
POLLS = st.tuples(st.just("poll"), st.integers(0, 1), st.integers(0, 1))
LOOKS = st.tuples(st.just("look"), st.integers(0, 1))
RESTARTS = st.tuples(st.just("restart"), st.integers(0, 1))
DEAF = st.tuples(st.just("deaf"), st.booleans())  # ends are lost, as those of a node that dies
DEEDS = st.lists(st.one_of(SENDS, SENDS, DAYS_PASS, DELETES, DELETES, POLLS, LOOKS, RESTARTS, DEAF), max_size=30)


def deaf(talk: Talk) -> None:
    if talk.operation == "UpdateItem" and "box" in talk.request["Key"]:
        talk.refuse("AccessDeniedException")


@settings(max_examples=60, deadline=None)
@given(deeds=DEEDS, seed=st.integers(0, 1 << 32))
def test_whatever_expires_no_seq_is_given_twice_and_no_reader_misses_what_is_kept(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[tuple[Any, ...]], seed: int
) -> None:
    """Two nodes send, days pass, the server deletes some of what expired, nodes start anew, or do not give ends.


    All the while every message gets the next number, and each reader all that is kept, once, and is told what is gone.
    """

    async def live() -> None:
        chance = random.Random(seed)
        async with world(tmp_path_factory.mktemp("world")) as here:
            for deed, *how in deeds:
                await do(here, deed, how, chance)
            here.door.fault = lambda _: None
            for mailbox in here.sent:
                await here.poll(0, mailbox)
                await here.poll(1, mailbox, 1)
                await here.nodes[0].raise_floor(here.now_ms + 1_000_000)
            through = address_of(here.place.url)._replace(endpoint=here.door.url)
            assert (await examine(through, "", lambda _: None)).findings == ()

    asyncio.run(live())


async def do(here: World, deed: str, how: list[Any], chance: random.Random) -> None:
    """One of the things that happen."""
    if deed == "send":
        await here.send(*how)
    elif deed == "pass":
        here.door.ahead_s = (here.door.ahead_s or 0) + how[0] * DAY_S
        for node in here.nodes:
            await node.floor()  # any call: a node knows the server's time from its answers
    elif deed == "delete":
        expired = await here.expired()
        chance.shuffle(expired)
        for item in expired[: round(len(expired) * how[0])]:
            await here.raw.delete(item)
    elif deed == "poll":
        for mailbox in here.sent:
            await here.poll(how[0], mailbox, how[1])
    elif deed == "look":
        for mailbox in here.sent:
            await here.look(mailbox, chance, how[0])
    elif deed == "restart":
        await here.place.leave(here.nodes[how[0]])
        here.nodes[how[0]] = await here.serve()
    else:
        here.door.fault = deaf if how[0] else lambda _: None
