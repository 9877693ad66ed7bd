"""What every service works with, and how an idempotency key is made."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b

import msgspec

from tidings.config import Settings
from tidings.directory import Directory, Straight
from tidings.errors import FeedUnavailable, StoreUnavailable, Unavailable
from tidings.feed import Feed, no_feed
from tidings.model import Key, T, Written
from tidings.store import Store
from tidings.tail import Tail


def key(scope: str, name: str, operation: str, *fields: str) -> Key:
    """An idempotency key: unique within `scope`, and bound to the operation and its parsed fields."""
    packed_name = msgspec.json.encode((scope, name))
    content = msgspec.json.encode((operation, *fields))
    return Key(blake2b(packed_name, digest_size=16).digest(), blake2b(content, digest_size=16).digest())


class Node(msgspec.Struct, frozen=True):
    """The parts that every service works with."""

    settings: Settings
    store: Store
    feed: Feed
    tail: Tail
    directory: Directory

    async def told(self, written: Written[T]) -> T:
        """What a write gave, once this node has applied it: only then it is answered. Raises StoreUnavailable."""
        try:
            await self.feed.publish(written.batch)
        except Unavailable as error:
            text = "It was stored, but could not be told; the same Idempotency-Key finds it."
            raise StoreUnavailable("store_unavailable", text, retry_s=2) from error
        return written.value

    def tell(self, written: Written[T]) -> bool:
        """`told`, if this node can apply it on the spot; False if that must be waited for."""
        return self.feed.tell(written.batch)

    async def sight(self) -> "Directory | Straight":
        """Where to look users and heads up, so that everything acknowledged before this call is seen.

        That is the directory, and with it the tail, made as new as that if need be; while the feed is away, the store.
        Raises StoreUnavailable.
        """
        if not self.feed.is_fresh():
            try:
                await self.feed.catch_up()
            except FeedUnavailable:
                return Straight(self.store)
        return self.directory

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Give what a call asks of the store, with its waits for turns, `--read-wait-s` in all; then StoreUnavailable.

        With so much for each of several steps, whoever asked would have left before the last. What was read for this
        call alone is given up; what is on its way into the directory comes there, or ends when a read does.
        """
        deadline = asyncio.timeout(self.settings.read_wait_s)
        try:
            async with deadline:
                yield
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise StoreUnavailable("store_unavailable", "The store did not answer in time.", retry_s=2) from error

    def check_open(self) -> None:
        """Raises Unavailable if this node is stopping."""
        if not self.tail.is_open:
            raise Unavailable("shutting_down", "This server is stopping.", retry_s=1)

    def check_ready(self) -> None:
        """Raises Unavailable if other nodes should be asked before this one."""
        self.check_open()
        if self.feed.is_alone:
            raise no_feed()
