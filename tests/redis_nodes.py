"""Nodes with nothing but a feed on Redis: what they tell each other is made up, the store is left out."""

import asyncio
import secrets
from collections.abc import Callable

import msgspec

from tests.pairs import DEADLINE_S, Recorder
from tests.wires import CountedFeed, RedisWires
from tidings.feed.redis import RedisFeed
from tidings.feed.redis.bounds import WIDE, Bounds
from tidings.model import Altered, Batch, Message, Posted, mint, own

HOUR_MS = 3_600_000

BRISK = msgspec.structs.replace(WIDE, beat_s=0.02)  # so that tests wait for beats no longer than they must


class Teller(msgspec.Struct):
    """A node: its feed, what it was told, and what it counted."""

    feed: RedisFeed
    told: Recorder
    counts: CountedFeed

    async def say(self, text: str) -> None:
        """Publish a message that needs no stamp."""
        await self.feed.publish(posted(text))

    @property
    def texts(self) -> list[str]:
        return [change.message.message for change in self.told.changes if isinstance(change, Posted)]


class Cluster:
    """Nodes of one store."""

    def __init__(self, wires: RedisWires) -> None:
        self.wires = wires
        self.generation = int.from_bytes(secrets.token_bytes(8), "big", signed=True)

    async def join(self, bounds: Bounds = BRISK, after: int = 0) -> Teller:
        """One more node."""
        told, counts = Recorder(), CountedFeed()
        return Teller(await self.wires.start_with(self.generation, told, counts, bounds, after), told, counts)


def posted(text: str, timestamp: int = 0, name: str = "", mailbox: str = own("bob"), seq: int = 1) -> Batch:
    """The news of one message."""
    message = Message("ann", text, "bob", str(timestamp), name or mint("message"), seq)
    return Batch(0, 0, (Posted(0, mailbox, message, 0),))


def altered(*user_ids: str) -> Batch:
    """The news of directory entries."""
    return Batch(0, 0, tuple(Altered(0, user_id) for user_id in user_ids))


def timestamps(told: Recorder) -> dict[str, int]:
    """What was told, by text."""
    return {c.message.message: int(c.message.timestamp) for c in told.changes if isinstance(c, Posted)}


async def eventually(predicate: Callable[[], object]) -> None:
    """Return as soon as the predicate holds; fails at the deadline."""
    never = asyncio.Event()
    async with asyncio.timeout(DEADLINE_S):
        while not predicate():
            try:
                async with asyncio.timeout(0.005):
                    await never.wait()
            except TimeoutError:
                continue


async def send(teller: Teller, name: str, mailbox: str = own("bob")) -> int:
    """A message as a store sends it: its stamp is opened, it is stored, it is told. Gives the stamp."""
    stamp = await teller.feed.open(name)
    await teller.feed.publish(posted(name, stamp, name, mailbox))
    return stamp


def age(cluster: Cluster, by_ms: int = BRISK.expire_ms) -> None:
    """Let time go by in which the feed was there."""
    (feed,) = cluster.wires.server.keys("feed")
    cluster.wires.server.call("HINCRBY", feed, "age", by_ms)


def opened(cluster: Cluster) -> set[str]:
    """The messages whose stamps are open."""
    return {
        name.decode()
        for key in cluster.wires.server.keys("open")
        for name in cluster.wires.server.call("ZRANGE", key, 0, -1)
    }
