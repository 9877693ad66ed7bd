"""The feed of many nodes: one stream on Valkey or Redis, that numbers what is published and gives the timestamps.

*Numbers.* A script (`turn.lua`) takes news in and numbers its changes 1, 2, 3, ...; each node reads the stream and
knows by the numbers that nothing is missing. A jump (the stream was trimmed before it was read) resets the listener,
and so does another identity: the server was restarted or flushed, or another became primary. The server holds news,
not truth: it needs no persistence, but must evict nothing (`maxmemory-policy noeviction`). Where it has replicas it
must refuse what none of them confirms (`min-replicas-to-write 1`), sooner (`min-replicas-max-lag`) than another is made
primary.

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
import logging
import random
import secrets

from tidings.errors import StartError, TidingsError
from tidings.feed import Listener, no_feed
from tidings.feed.redis.bounds import WIDE, Bounds
from tidings.feed.redis.conversation import Conversation, Counts
from tidings.feed.redis.link import Broken, Door
from tidings.model import Batch
from tidings.stamps import Floor

log = logging.getLogger("tidings.feed")


class RedisFeed:
    """See `tidings.feed` and `tidings.stamps` for what every method promises.

    `generation` is the store's; its feed's keys on the server bear it. Raises StartError for an address that is none.
    """

    def __init__(self, url: str, generation: int, floor: Floor, counts: Counts, bounds: Bounds = WIDE) -> None:
        self._door = Door(url, generation, secrets.token_hex(8))
        self._bounds = bounds
        self._counts = counts
        self._talks = Conversation(generation, floor, counts, bounds)
        self._parted_at = float("-inf")  # when the last link was lost
        self._was_linked = False
        self._running: asyncio.Task[None] | None = None

    @property
    def identity(self) -> int:
        return self._talks.identity

    @property
    def position(self) -> int:
        return self._talks.following.place.number

    @property
    def proof_age_s(self) -> float:
        """How old the newest proof of freshness is; it is to stay below a second."""
        return self._talks.fresh.age_s

    @property
    def held(self) -> int:
        """How many batches were published and not read back yet."""
        return self._talks.outbox.held

    async def recent(self, limit: int) -> int:
        """A position after which lie at most `limit` changes, where a tail may begin; 0 if there is no server.

        Raises StartError if the server does not let us in.
        """
        try:
            link = await self._door.open(self._bounds.turn_s)
        except Broken:
            return 0
        try:
            told = await self._talks.find(link)
        except (Broken, TidingsError, TimeoutError):
            return 0
        finally:
            await link.close()
        return max(0, told.last - limit)

    async def start(self, after: int, listener: Listener) -> None:
        """Without a server the listener begins empty, and everything is asked of the store until there is one.

        Raises StartError if the server does not let us in.
        """
        talks = self._talks
        talks.begin(after, listener)
        self._running = asyncio.create_task(self._run(), name="tidings-feed")
        caught_up = asyncio.create_task(talks.catch_up_first())
        first = asyncio.FIRST_COMPLETED
        try:
            await asyncio.wait([self._running, caught_up], timeout=self._bounds.start_s, return_when=first)
        finally:
            caught_up.cancel()
        if self._running.done():
            self._running.result()
        if not talks.has_begun:
            log.warning("the feed can't be reached; until it can, everything is asked of the store")
            listener.reset(0)

    async def publish(self, batch: Batch) -> None:
        if not batch.changes:
            return
        done = self._talks.outbox.put(batch)
        self._talks.wake_up()
        await asyncio.wait([done], timeout=self._patience_s(self._bounds.publish_s))
        if not done.done():
            raise no_feed()  # it stays in the outbox, and is told when it can be

    def tell(self, batch: Batch) -> bool:
        return not batch.changes

    def expect_news(self) -> None:
        """Nothing: every node is told at once of everything."""

    def is_fresh(self) -> bool:
        return self._talks.fresh.is_fresh()

    async def catch_up(self) -> None:
        if not self._talks.linked.is_set():
            raise no_feed()
        await self._talks.catch_up()

    @property
    def is_alone(self) -> bool:
        return not self.is_fresh()

    @property
    def settled(self) -> int:
        return self._talks.settling.now

    async def settle(self, timestamp: int, within_s: float) -> int:
        if self.settled < timestamp:
            self._counts.settling_wait()
        return await self._talks.settling.reach(timestamp, self._patience_s(within_s))

    async def open(self, name: str) -> int:
        opening = self._talks.outbox.open(name)
        self._talks.wake_up()
        try:
            async with asyncio.timeout(self._patience_s(self._bounds.publish_s)):
                return await opening
        except TimeoutError as error:
            self.drop(name)  # it may be open
            raise no_feed() from error
        except asyncio.CancelledError:
            self.drop(name)
            raise

    def drop(self, name: str) -> None:
        self._talks.outbox.drop(name)  # with the next turn, which may be a beat

    async def close(self) -> None:
        talks = self._talks
        if talks.linked.is_set():
            await talks.outbox.drain(self._bounds.turn_s)
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await talks.floor.close()

    def _patience_s(self, within_s: float) -> float:
        """How long to wait at the most: hardly, once there has been no link for a while."""
        if self._talks.linked.is_set():
            return within_s
        gone_s = asyncio.get_running_loop().time() - self._parted_at
        return min(within_s, max(0.0, self._bounds.patience_s - gone_s))

    async def _run(self) -> None:
        """Link after link, for as long as the node lives. Raises StartError before there was one."""
        failed = 0
        while True:
            try:
                await self._serve()
            except StartError as error:
                if not self._talks.has_begun:
                    raise
                log.warning("the feed is lost: %s", error)
            except (Broken, TidingsError, TimeoutError) as error:
                failed = 0 if self._was_linked else failed
                if not failed:
                    log.warning("the feed is lost: %s", error)
            except Exception:  # a fault of ours: a feed that stays away would be worse
                log.exception("the feed is lost")
            failed += 1
            longest = min(self._bounds.backoff_s, 0.02 * 2 ** min(failed, 10))
            await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - to be apart, not to be secret

    async def _serve(self) -> None:
        """One link, until it breaks. Raises Broken, StoreUnavailable, TimeoutError, StartError."""
        talks = self._talks
        self._was_linked = False
        link = await self._door.open(self._bounds.turn_s)
        try:
            await talks.attach(link)
            self._was_linked = True
            await talks.hold(link)
        finally:
            if talks.linked.is_set():
                self._parted_at = asyncio.get_running_loop().time()
            talks.part()
            await link.close()
