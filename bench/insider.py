"""A node from within: the parts of a real one, assembled as its server does, but without HTTP; it tells, and listens.

What it tells is news of messages that no store has, so that the feed is measured and not the tables. It reads an act as
a line of JSON on stdin and answers with a `Done` on stdout, until stdin ends; the node goes on meanwhile. Times are of
the machine's monotonic clock, which all processes share.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import msgspec
import uvloop

from bench.seed import TEXT
from tidings.app import assemble
from tidings.config import Settings
from tidings.feed.redis import RedisFeed
from tidings.garbage import collect_rarely
from tidings.metrics import Metrics
from tidings.model import Batch, Message, Posted, mint, own
from tidings.service import Services
from tidings.tail import News

WINDOW = 2_000  # batches on their way, when as many are told as can be
STALLED_S = 20.0
CLOCK = time.monotonic


class Join(msgspec.Struct, tag="join"):
    """Become a node of this store and this feed."""

    store: str
    feed: str


class Listen(msgspec.Struct, tag="listen"):
    """Be told of private messages to these users from now on."""

    users: list[str]


class Tell(msgspec.Struct, tag="tell"):
    """Private messages to these users in turn, numbered from `first`: so many a second, or as many as the feed takes.

    Those that are paced are stamped, as a send's is: opened, and closed by what is told.
    """

    users: list[str]
    count: int
    per_s: float = 0.0
    first: int = 0


class Hear(msgspec.Struct, tag="hear"):
    """Wait until so many were heard since the last time."""

    count: int


Act = Join | Listen | Tell | Hear


class Done(msgspec.Struct):
    """How an act ended: when each message was due and told, or heard, in the order of their numbers; how long it took.

    Its stamp was asked for when it was due, and it was told once it had that.
    """

    due: Sequence[float] = ()
    told: Sequence[float] = ()
    heard: Sequence[float] = ()
    seconds: float = 0.0
    wrong: str = ""


class Ear:
    """Who is handed the news behind the tail, as a stream is: when each message came, by its number."""

    def __init__(self) -> None:
        self.heard: dict[int, float] = {}
        self.wrong = ""
        self.came = asyncio.Event()

    def take(self, news: Sequence[News], position: int) -> None:
        """Note when they came."""
        now = CLOCK()
        for _, _, posted in news:
            number = int(posted.message.message[:16], 16)
            if number in self.heard:
                self.wrong = f"message {number} came twice"
            self.heard[number] = now
        self.came.set()

    def altered(self) -> None:
        """Nobody's memberships change here."""
        self.wrong = "an entry was altered"

    def lost(self) -> None:
        """What was told may be missing."""
        self.wrong = "news was lost"

    def drained(self) -> None:
        """The node ends."""


class Insider:
    """The node, once it has joined."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._ear = Ear()
        self._seqs: dict[str, int] = {}  # told of each user
        self._services: Services
        self._feed: RedisFeed

    async def play(self, act: Act) -> Done:
        """One act."""
        if isinstance(act, Join):
            self._services = await assemble(Settings(store=act.store, feed=act.feed), Metrics(), None, self._stack)
            feed = self._services.node.feed
            assert isinstance(feed, RedisFeed)
            self._feed = feed
            return Done()
        if isinstance(act, Listen):
            self._services.node.tail.subscribe(self._ear, [own(user) for user in act.users])
            return Done()
        if isinstance(act, Hear):
            return await self._hear(act.count)
        return await (self._tell_paced(act) if act.per_s else self._tell_all(act))

    async def _hear(self, count: int) -> Done:
        ear = self._ear
        async with asyncio.timeout(STALLED_S):
            while len(ear.heard) < count and not ear.wrong:
                ear.came.clear()
                await ear.came.wait()
        heard, ear.heard = ear.heard, {}
        return Done(heard=[heard[number] for number in sorted(heard)], wrong=ear.wrong)

    async def _tell_paced(self, act: Tell) -> Done:
        told = [0.0] * act.count
        began = CLOCK() + 0.01
        due = [began + n / act.per_s for n in range(act.count)]

        async def tell(n: int) -> None:
            message_id = mint("message")
            stamp = await self._feed.open(message_id)
            batch = self._news(act, act.first + n, stamp, message_id)
            told[n] = CLOCK()
            await self._feed.publish(batch)

        telling = []
        for n, at in enumerate(due):
            if (left_s := at - CLOCK()) > 0:
                await asyncio.sleep(left_s)
            telling.append(asyncio.create_task(tell(n)))
        await asyncio.gather(*telling)
        return Done(due, told, seconds=CLOCK() - began)

    async def _tell_all(self, act: Tell) -> Done:
        turns = asyncio.Semaphore(WINDOW)
        began, now_ms = CLOCK(), time.time_ns() // 1_000_000

        async def tell(batch: Batch) -> None:
            try:
                await self._feed.publish(batch)
            finally:
                turns.release()

        async with asyncio.TaskGroup() as telling:
            for n in range(act.first, act.first + act.count):
                await turns.acquire()
                stamp = now_ms + (n - act.first) // len(act.users)  # later than the last one to the same user
                telling.create_task(tell(self._news(act, n, stamp, mint("message"))))
        return Done(seconds=CLOCK() - began)

    def _news(self, act: Tell, number: int, stamp: int, message_id: str) -> Batch:
        """A private message with a copy, behind what was told to the same user before."""
        at = number % len(act.users)
        receiver, sender = act.users[at], act.users[at - 1]
        seq = self._seqs[receiver] = self._seqs.get(receiver, 0) + 1
        message = Message(sender, f"{number:016x}{TEXT[16:]}", receiver, str(stamp), message_id, seq)
        return Batch(0, 0, (Posted(0, own(receiver), message, seq),))


async def serve() -> None:
    """Play acts until stdin ends."""
    async with AsyncExitStack() as stack:
        insider = Insider(stack)
        collect_rarely(lambda generation, seconds: None)
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            try:
                done = await insider.play(msgspec.json.decode(line, type=Act))
            except Exception as error:  # whatever it is, the bench is to say it
                done = Done(wrong=f"{type(error).__name__}: {error}"[:800])
            sys.stdout.buffer.write(msgspec.json.encode(done) + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    uvloop.run(serve())
