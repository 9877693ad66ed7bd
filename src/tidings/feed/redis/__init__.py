"""The feed of many nodes: one stream on Valkey or Redis, that numbers what is published and gives the timestamps.

*Numbers.* A script (`turn.lua`) takes news in and numbers its changes 1, 2, 3, ...; each node reads the stream and
knows by the numbers that nothing is missing. A jump (the stream was trimmed before it was read), and another identity (the
server was restarted, flushed, or another became primary), reset the listener. The server is news, not truth: it needs
no persistence. Where several are replicated it must refuse what no replica confirms (`min-replicas-to-write 1`, with a
`min-replicas-max-lag` shorter than a failover takes), and evict nothing (`maxmemory-policy noeviction`).

*Freshness.* In each turn that brings nothing a node puts a beat into the stream, every 200 ms. What was put there after
a moment and has been read back proves that all that was taken before it has been applied.

*Stamps.* A message's timestamp is taken (`open`) before it is stored, and closed by its news. The settled time is just
below the smallest open stamp and the clock; entries and beats carry it. A stamp expires after ten seconds, by time in
which the feed was there: a hung server, or one whose clock jumps, expires none. A message whose news comes
after its stamp expired is told under a later timestamp if its own was settled by then. Only what is told changes: in
the store it keeps the timestamp that it was stored with.

*The clock* is the server's, never going back, and below a floor in the store, which is raised ten seconds ahead: there
the clock of the next feed begins. That feed holds the settled time back for ten seconds, as if a stamp were open that
is older than all that the earlier one may have left open.
"""

import asyncio
import contextlib
import logging
import random
import secrets
from hashlib import blake2b
from typing import Protocol

from tidings.errors import StartError, TidingsError
from tidings.feed import Listener
from tidings.feed.redis.bounds import WIDE, Bounds
from tidings.feed.redis.floor import FloorKeeper
from tidings.feed.redis.following import Following
from tidings.feed.redis.freshness import Freshness, no_feed
from tidings.feed.redis.link import Broken, Door, Link
from tidings.feed.redis.outbox import Outbox
from tidings.feed.redis.settling import Settling
from tidings.feed.redis.wire import Ask, Place, Told
from tidings.model import Batch
from tidings.stamps import Floor

log = logging.getLogger("tidings.feed")


class Counts(Protocol):
    """Who counts what a feed does."""

    def feed_lag(self, seconds: float) -> None:
        """From asking for something to be put into the feed until it was read back."""

    def feed_reset(self, why: str) -> None:
        """The listener began anew: `start`, `identity`, `gap`, `lost`, `fault`."""

    def feed_lost(self) -> None:
        """The link to the server broke."""

    def stamps_anew(self, count: int) -> None:
        """Messages of this node were told under a later timestamp than they are stored with."""


class RedisFeed:
    """See `tidings.feed` and `tidings.stamps` for what every method promises.

    `generation` is the store's; its feed's keys on the server bear it. Raises StartError for an address that is none.
    """

    _following: Following  # from `start` on

    def __init__(self, url: str, generation: int, floor: Floor, counts: Counts, bounds: Bounds = WIDE) -> None:
        self._door = Door(url, generation, secrets.token_hex(8))
        self._generation = generation
        self._counts = counts
        self._bounds = bounds
        self._after: int | None = None  # where the listener is to begin, until it has begun
        self._floor = FloorKeeper(floor, bounds, self._wake_up)
        self._fresh = Freshness(bounds.fresh_s, counts.feed_lag)
        self._outbox = Outbox(bounds)
        self._settling = Settling()
        self._id = ""  # of the feed that is followed
        self._identity = _number(secrets.token_hex(8), generation)  # no other's, until there is a feed
        self._wake = asyncio.Event()
        self._linked = asyncio.Event()
        self._link_lost_at = float("-inf")
        self._beat_at = 0.0
        self._running: asyncio.Task[None] | None = None

    @property
    def identity(self) -> int:
        return self._identity

    @property
    def position(self) -> int:
        return self._following.place.number

    @property
    def proof_age_s(self) -> float:
        """How old the newest proof of freshness is; it is to stay below a second."""
        return self._fresh.age_s

    @property
    def held(self) -> int:
        """How many batches were published and not read back yet."""
        return self._outbox.held

    async def start(self, after: int, listener: Listener) -> None:
        """Without a server the listener begins empty, and everything is asked of the store until there is one.

        Raises StartError if the server does not let us in.
        """
        self._following = Following(listener, self._counts.feed_reset)
        self._after = after
        self._running = asyncio.create_task(self._run(), name="tidings-feed")
        caught_up = asyncio.create_task(self._catch_up_first())
        await asyncio.wait(
            [self._running, caught_up], timeout=self._bounds.start_s, return_when=asyncio.FIRST_COMPLETED
        )
        caught_up.cancel()
        if self._running.done():
            self._running.result()
        if self._after is not None:
            log.warning("the feed can't be reached; this node serves from the store until it can")
            listener.reset(0)

    async def publish(self, batch: Batch) -> None:
        if not batch.changes:
            return
        done = self._outbox.put(batch)
        self._wake_up()
        await asyncio.wait([done], timeout=self._patience_s(self._bounds.publish_s))
        if not done.done():
            raise no_feed()  # it stays in the outbox, and is told when it can be

    def tell(self, batch: Batch) -> bool:
        return not batch.changes

    def expect_news(self) -> None:
        """Nothing: every node is told at once of everything."""

    def is_fresh(self) -> bool:
        return self._fresh.is_fresh()

    async def catch_up(self) -> None:
        if not self._linked.is_set():
            raise no_feed()
        await self._fresh.prove(self._wake_up)

    @property
    def settled(self) -> int:
        return self._settling.now

    async def settle(self, timestamp: int, within_s: float) -> int:
        return await self._settling.reach(timestamp, self._patience_s(within_s))

    async def open(self, name: str) -> int:
        opening = self._outbox.open(name)
        self._wake_up()
        try:
            async with asyncio.timeout(self._patience_s(self._bounds.publish_s)):
                return await opening
        except TimeoutError as error:
            raise no_feed() from error

    def drop(self, name: str) -> None:
        self._outbox.drop(name)  # with the next beat

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self._floor.close()
        self._fresh.give_up()
        self._outbox.refuse_opens()

    def _patience_s(self, within_s: float) -> float:
        """How long to wait at the most: hardly, once there has been no link for a while."""
        if self._linked.is_set():
            return within_s
        gone_s = asyncio.get_running_loop().time() - self._link_lost_at
        return min(within_s, max(0.0, self._bounds.patience_s - gone_s))

    def _wake_up(self) -> None:
        self._wake.set()

    async def _catch_up_first(self) -> None:
        while True:
            await self._linked.wait()
            with contextlib.suppress(TidingsError):
                await self._fresh.prove(self._wake_up)
                return

    async def _run(self) -> None:
        """Link after link, for as long as the node lives. Raises StartError before there was one."""
        failed = 0
        while True:
            try:
                link = await self._door.open(self._bounds.turn_s)
                try:
                    await self._attach(link)
                    failed = 0
                    await self._serve(link)
                finally:
                    self._part()
                    await link.close()
            except StartError as error:
                if self._after is not None:
                    raise
                log.warning("the feed is lost: %s", error)
            except (Broken, TidingsError, TimeoutError) as error:
                if not failed:
                    log.warning("the feed is lost: %s", error)
            except Exception:  # a fault of ours: a feed that stays away would be worse
                log.exception("the feed is lost")
            failed += 1
            longest = min(self._bounds.backoff_s, 0.02 * 2 ** min(failed, 10))
            await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - to be apart, not to be secret

    async def _attach(self, link: Link) -> None:
        """Find out which feed it is, begin one if there is none, and take up the listener's place in it."""
        found = -1 if self._after is None else await self._floor.read()
        told = await link.ask(self._ask(found), ())
        if not told.id:
            told = await link.ask(self._ask(await self._floor.read()), ())
        if told.id != self._id:
            self._begin(told)
        self._fresh.begin_at(self._following.place)
        self._floor.see(told.now, told.floor)
        self._beat_at = 0.0
        self._linked.set()
        self._wake_up()
        log.info("following the feed from %s", self._following.place.number)

    def _begin(self, told: Told) -> None:
        """Another feed than before: what positions mean changes with them, in one step."""
        after, why = told.last, "identity"
        if self._after is not None:
            after, why = min(self._after, told.last), "start"
            self._after = None
        self._id = told.id
        self._identity = _number(told.id, self._generation)
        self._outbox.begin_anew()
        self._following.begin_at(Place(after, 0 if after < told.last else told.beats), why)
        self._settling.set(told.settled)

    async def _serve(self, link: Link) -> None:
        """Until the link breaks. Raises Broken."""
        tasks = [asyncio.create_task(self._talk(link)), asyncio.create_task(self._follow(link))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _part(self) -> None:
        if self._linked.is_set():
            self._linked.clear()
            self._link_lost_at = asyncio.get_running_loop().time()
            self._counts.feed_lost()
        self._fresh.give_up()

    async def _talk(self, link: Link) -> None:
        """Turn after turn: at once if there is something to tell, else a beat when it is due."""
        while True:
            await self._until_needed()
            self._wake.clear()
            at = self._fresh.clock()
            load = self._outbox.load()
            ask = self._ask(-1)
            ask.drops, ask.batches, ask.opens = load.drops, load.offers(), [name for name, _ in load.opens]
            ask.is_beat = at >= self._beat_at or self._fresh.is_asked
            try:
                told = await link.ask(ask, [held.packed for held in load.batches])
                if told.id != self._id:
                    raise Broken("it is another feed")
            except BaseException:
                self._outbox.unload(load)
                raise
            self._take(told, at, is_put=bool(load.batches) or ask.is_beat)
            self._outbox.settle(load, told)
            self._outbox.applied(self.position)
            if self._outbox.has_more:
                self._wake_up()

    async def _until_needed(self) -> None:
        """Until somebody woke us, or a beat is due."""
        left_s = self._beat_at - self._fresh.clock()
        if left_s > 0 and not self._wake.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._wake.wait()

    def _take(self, told: Told, at: float, is_put: bool) -> None:
        if is_put:
            self._beat_at = at + self._bounds.beat_s
            self._fresh.put(Place(told.last, told.beats), at)
        if told.anew:
            log.warning("told under later timestamps than stored: %s messages", told.anew)
            self._counts.stamps_anew(told.anew)
        self._floor.see(told.now, told.floor)

    async def _follow(self, link: Link) -> None:
        while True:
            entries = await link.read(self._following.place, self._bounds.read_s)
            if any(entry.header.id != self._id for entry in entries):
                raise Broken("it is another feed")
            if entries:
                self._following.take(entries)
                self._settling.set(entries[-1].header.settled)
                self._fresh.reached(self._following.place)
                self._outbox.applied(self.position)

    def _ask(self, found: int) -> Ask:
        """A question, so far; `found` says that the node takes up the feed, whichever it is."""
        bounds = self._bounds
        is_attaching = not self._linked.is_set()
        return Ask(
            id="" if is_attaching else self._id,
            seed=secrets.token_hex(16) if is_attaching else "",
            found=found,
            floor=self._floor.raised,
            keep=bounds.keep,
            expire_ms=bounds.expire_ms,
            ahead_ms=bounds.ahead_ms,
        )


def _number(feed: str, generation: int) -> int:
    """A feed's identity, as a cursor keeps it: 64 bits with a sign."""
    digest = blake2b(f"{feed}:{generation}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
