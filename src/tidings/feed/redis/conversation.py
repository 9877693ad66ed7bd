"""What a node says to the feed over a link, and what it hears there."""

import asyncio
import contextlib
import logging
import secrets
from hashlib import blake2b
from typing import Protocol

from tidings.errors import FeedUnavailable
from tidings.feed import Listener
from tidings.feed.redis.bounds import Bounds
from tidings.feed.redis.floor import FloorKeeper
from tidings.feed.redis.following import Following
from tidings.feed.redis.freshness import Freshness
from tidings.feed.redis.link import Broken, Link
from tidings.feed.redis.outbox import Outbox
from tidings.feed.redis.settling import Settling
from tidings.feed.redis.wire import Ask, Place, Told
from tidings.stamps import Floor

log = logging.getLogger("tidings.feed")


class Counts(Protocol):
    """Who counts what a feed does."""

    def feed_lag(self, seconds: float) -> None:
        """From asking for something to be put into the feed until it was read back."""

    def feed_turn(self, why: str) -> None:
        """The feed is asked to take or stamp something (`request`), for `proof` to somebody, or only for a `beat`.

        Or who it is, before there is a `link`.
        """

    def feed_reset(self, why: str) -> None:
        """The listener began anew: `start`, `identity`, `gap`, `lost`, `fault`."""

    def feed_lost(self) -> None:
        """The link to the server broke."""

    def stamps_anew(self, count: int) -> None:
        """Messages of this node were told under a later timestamp than they are stored with."""

    def settling_wait(self) -> None:
        """A reader by timestamp waits until it is settled."""


class Conversation:
    """One node's part in the feed. It outlives its links; what was not taken over one is offered over the next."""

    following: Following  # from `begin` on

    def __init__(self, generation: int, floor: Floor, counts: Counts, bounds: Bounds) -> None:
        self._generation = generation
        self._counts = counts
        self._bounds = bounds
        self.floor = FloorKeeper(floor, bounds, self.wake_up)
        self.fresh = Freshness(bounds.fresh_s, counts.feed_lag)
        self.outbox = Outbox(bounds)
        self.settling = Settling()
        self.linked = asyncio.Event()
        self._after: int | None = None  # where the listener is to begin, until it has begun
        self._id = ""  # of the feed that is followed
        self.identity = self._name(secrets.token_hex(8))  # no other's, until there is a feed
        self._wake = asyncio.Event()
        self._beat_at = 0.0

    @property
    def has_begun(self) -> bool:
        """Whether the listener was ever given a place in a feed."""
        return self._after is None

    def begin(self, after: int, listener: Listener) -> None:
        """Give this listener all that comes after a position, as soon as there is a feed."""
        self._after = after
        self.following = Following(listener, self._counts.feed_reset)

    def wake_up(self) -> None:
        """There is something to say."""
        self._wake.set()

    async def catch_up(self) -> None:
        """Wait until all that was taken before this call is applied. Raises FeedUnavailable."""
        await self.fresh.prove(self.wake_up)

    async def catch_up_first(self) -> None:
        """The same, however long it takes to get a link."""
        while True:
            await self.linked.wait()
            with contextlib.suppress(FeedUnavailable):
                return await self.catch_up()

    async def find(self, link: Link, found: int = -1) -> Told:
        """The feed as it is; one is begun if there is none. Raises Broken, StoreUnavailable, TimeoutError."""
        self._counts.feed_turn("link")
        told = await link.ask(self._ask(found), ())
        if not told.id:
            floor = await self.floor.read()
            self._counts.feed_turn("link")
            told = await link.ask(self._ask(floor), ())
        return told

    async def attach(self, link: Link) -> None:
        """Take up the listener's place in the feed, whichever it is. Raises what `find` does."""
        told = await self.find(link, -1 if self.has_begun else await self.floor.read())
        if told.id != self._id:
            self._begin_anew(told)
        self.fresh.begin_at(self.following.place)
        self.floor.see(told.now, told.floor)
        self._beat_at = 0.0
        self.linked.set()
        self.wake_up()
        log.info("following the feed from %s", self.following.place.number)

    async def hold(self, link: Link) -> None:
        """Go on until the link breaks. Raises Broken."""
        tasks = [asyncio.create_task(self._talk(link)), asyncio.create_task(self._follow(link))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def part(self) -> None:
        """There is no link."""
        if self.linked.is_set():
            self.linked.clear()
            self._counts.feed_lost()
        self.fresh.give_up()

    def _begin_anew(self, told: Told) -> None:
        """Another feed than before: what positions mean changes with them, in one step."""
        after, why = told.last, "identity"
        if self._after is not None:
            after, why = min(self._after, told.last), "start"
            self._after = None
        self._id = told.id
        self.identity = self._name(told.id)
        self.outbox.begin_anew()
        self.following.begin_at(Place(after, 0 if after < told.last else told.beats), told.now, why)
        self.settling.set(told.settled)

    async def _talk(self, link: Link) -> None:
        """Turn after turn: at once if there is something to tell, else a beat when it is due."""
        while True:
            await self._until_needed()
            self._wake.clear()
            at = self.fresh.clock()
            load = self.outbox.load()
            ask = self._ask(-1)
            ask.drops, ask.batches, ask.opens = load.drops, load.offers(), [name for name, _ in load.opens]
            is_asked = self.fresh.is_asked
            ask.is_beat = at >= self._beat_at or is_asked
            try:
                self._counts.feed_turn("request" if ask.batches or ask.opens else "proof" if is_asked else "beat")
                told = await link.ask(ask, [held.packed for held in load.batches])
                if told.id != self._id:
                    raise Broken("it is another feed")
            except BaseException:
                self.outbox.unload(load)
                raise
            self._take(told, at, is_put=bool(load.batches) or ask.is_beat)
            self.outbox.settle(load, told)
            self.outbox.applied(self.following.place.number)
            if self.outbox.has_more:
                self.wake_up()

    async def _until_needed(self) -> None:
        """Until somebody woke us, or a beat is due."""
        left_s = self._beat_at - self.fresh.clock()
        if left_s > 0 and not self._wake.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._wake.wait()

    def _take(self, told: Told, at: float, is_put: bool) -> None:
        if is_put:
            self._beat_at = at + self._bounds.beat_s
            self.fresh.put(Place(told.last, told.beats), at)
        if told.anew:
            log.warning("told under later timestamps than stored: %s messages", told.anew)
            self._counts.stamps_anew(told.anew)
        self.floor.see(told.now, told.floor)

    async def _follow(self, link: Link) -> None:
        while True:
            entries = await link.read(self.following.place, self._bounds.read_s)
            if any(entry.header.id != self._id for entry in entries):
                raise Broken("it is another feed")
            if not entries and self.fresh.is_overdue:
                raise Broken("nothing of what is told is read back")
            if entries:
                self.following.take(entries)
                self.settling.set(entries[-1].header.settled)
                self.fresh.reached(self.following.place)
                self.outbox.applied(self.following.place.number)

    def _ask(self, found: int) -> Ask:
        """A question, so far; without a link it is one for the feed as it is, which may be begun from `found`."""
        bounds = self._bounds
        is_linked = self.linked.is_set()
        return Ask(
            id=self._id if is_linked else "",
            seed="" if is_linked else secrets.token_hex(16),
            found=found,
            floor=self.floor.raised,
            shown=-1 if is_linked else self.settling.now,
            keep=bounds.keep,
            expire_ms=bounds.expire_ms,
            ahead_ms=bounds.ahead_ms,
        )

    def _name(self, feed: str) -> int:
        """A feed's identity, as a cursor keeps it: 64 bits with a sign. It is odd, and a run of SQLite's is not."""
        digest = blake2b(f"{feed}:{self._generation}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True) | 1
