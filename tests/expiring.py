"""A store on DynamoDB whose messages are kept for three days: nodes on it, its clock, what was sent, who reads.

The stand-in deletes nothing by itself here: tests delete items as DynamoDB would, some of those whose time has come by
the clock that its answers tell.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.backends import DynamoPlace, gather_group, private, sign_up, to_group
from tests.standin import endpoint
from tests.standin.between import Between
from tests.standin.raw import Raw
from tidings.model import Draft, Message, Posted, Start, own, room, sent
from tidings.store.dynamodb import DynamoStore
from tidings.store.dynamodb.address import address_of
from tidings.store.dynamodb.driver import Item

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

    async def pass_days(self, days: float) -> None:
        """The server's clock goes on; nodes know of it by its answers."""
        self.door.ahead_s = (self.door.ahead_s or 0) + days * DAY_S
        for node in self.nodes:
            await node.floor()

    async def delete(self, chance: random.Random, share: float = 1.0) -> None:
        """The server deletes some of what has expired, in any order."""
        expired = await self.expired()
        chance.shuffle(expired)
        for item in expired[: round(len(expired) * share)]:
            await self.raw.delete(item)

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
