"""Nodes that tell each other: a store handle with a feed on it each, and a listener that holds the feed to its word."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from tests.backends import LoggedPlace, private, sign_up
from tests.wires import Wires
from tidings.feed import Feed
from tidings.model import Batch, Change, Posted, Written
from tidings.store import LoggedStore

DEADLINE_S = 20.0  # for what takes milliseconds


def bare(changes: Sequence[Change]) -> list[Change]:
    """Changes without the positions that a feed gave them."""
    return [msgspec.structs.replace(change, position=0) for change in changes]


class Recorder:
    """A listener that keeps what it was told, and holds the feed to its promises while it is told."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.batches: list[Batch] = []
        self.resets: list[int] = []
        self.position = -1
        self.is_awaited = True
        self._news = asyncio.Event()

    def apply(self, batch: Batch) -> None:
        assert self.resets, "told before the first reset"
        assert batch.after == self.position, "a gap, or news told twice"
        positions = [change.position for change in batch.changes]
        assert positions == sorted(set(positions))
        assert all(batch.after < position <= batch.last for position in positions)
        self.changes += batch.changes
        self.batches.append(batch)
        self.position = batch.last
        self._news.set()

    def reset(self, position: int, latest: int | None = None) -> None:
        self.resets.append(position)
        self.changes.clear()
        self.batches.clear()
        self.position = position
        self._news.set()

    @property
    def message_ids(self) -> list[str]:
        """Of the messages that were told, in that order."""
        return [change.message.message_id for change in self.changes if isinstance(change, Posted)]

    async def until_told(self, batch: Batch) -> None:
        """Wait until the last change of a batch that is somewhere published was told."""
        (last,) = bare(batch.changes[-1:])
        async with asyncio.timeout(DEADLINE_S):
            while last not in bare(self.changes):
                self._news.clear()
                await self._news.wait()

    async def until_position(self, position: int) -> None:
        """Wait until everything up to a position was told."""
        async with asyncio.timeout(DEADLINE_S):
            while self.position < position:
                self._news.clear()
                await self._news.wait()


class Node(msgspec.Struct):
    """A store handle with a started feed on it, and what it was told."""

    store: LoggedStore
    feed: Feed
    told: Recorder

    async def commit(self, sender: str, receiver: str) -> Written[Any]:
        """A send that is stored, and not yet told to anybody."""
        return await self.store.send(private(sender, receiver))

    async def send(self, sender: str, receiver: str) -> Written[Any]:
        """A send that is stored and told."""
        written = await self.commit(sender, receiver)
        await self.feed.publish(written.batch)
        return written


async def start(store: LoggedStore, wires: Wires, look_s: float, after: int = 0) -> Node:
    """One more node."""
    told = Recorder()
    return Node(store, await wires.start(store, told, look_s, after=after), told)


class Pair(msgspec.Struct):
    """Two nodes on one store, and two users of it."""

    first: Node
    second: Node
    ann: str
    bob: str


async def pair(place: LoggedPlace, wires: Wires, look_s: float) -> Pair:
    """Two nodes that have been told of Ann and Bob."""
    store = await place.serve()
    worker = await place.join(store)
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    return Pair(await start(store, wires, look_s), await start(worker, wires, look_s), ann, bob)
