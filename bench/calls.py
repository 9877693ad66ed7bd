"""Calls to the tables alone, without a node: those that a send makes, in their kind and size, one after the other.

By the same driver, in a process of its own that does nothing else. It reads an `Ask` as a line of JSON on stdin and
answers with a `Told` on stdout, until stdin ends.
"""

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from itertools import count
from statistics import median
from uuid import uuid4

import msgspec
import uvloop

from bench.seed import TEXT
from tidings.model import NO_HEAD, Draft, Head, Message, Posted, mint, own, room, sent
from tidings.store import Uncounted
from tidings.store.dynamodb import items
from tidings.store.dynamodb.address import address_of
from tidings.store.dynamodb.driver import Driver, Item, connected
from tidings.store.dynamodb.lanes import Job, mailboxes_of
from tidings.store.dynamodb.mailboxes import Mailboxes
from tidings.store.dynamodb.puts import puts_of
from tidings.store.dynamodb.retention import Ends
from tidings.store.dynamodb.tables import directory_of, messages_of

WARM = 3  # sends, after which the connection is open
LOOK_S = 10.0


class Ask(msgspec.Struct):
    """So many sends' worth of calls, `together` messages in each put; then so many `looks` for the mailbox's head."""

    store: str
    count: int
    is_group: bool = False
    together: int = 1
    looks: int = 0


class Told(msgspec.Struct):
    """How long each kind of call took (the median, in ms), in order, and how long those of a send together."""

    calls: dict[str, float] = {}
    p50_ms: float = 0.0
    wrong: str = ""


class Lane:
    """A mailbox that nobody else writes to or reads."""

    def __init__(self, driver: Driver, ask: Ask) -> None:
        address = address_of(ask.store)
        self._driver = driver
        self._ask = ask
        self._directory = directory_of(address.prefix).name
        self._table = messages_of(address.prefix).name
        self._ends = Ends(driver, self._table, None)
        self._boxes = Mailboxes(driver, self._table, None, self._ends)
        self._sender, self._recipient = mint("user"), mint("group" if ask.is_group else "user")
        self._seqs = count(1)
        self.taken: dict[str, list[float]] = {}
        self.sends: list[float] = []

    async def send(self) -> None:
        """The calls of one."""
        began = time.perf_counter()
        await self._time("get_item", TableName=self._directory, Key=self._tie(), ConsistentRead=True)
        requests = self._puts()
        if len(requests) == 1:
            await self._time("put_item", **requests[0])
        else:
            puts = [{"Put": request} for request in requests]
            await self._time("transact_write_items", TransactItems=puts, ClientRequestToken=uuid4().hex)
        self.sends.append(time.perf_counter() - began)

    async def look(self) -> None:
        """The call that finds the head, as a node makes it whose put met another's message."""
        began = time.perf_counter()
        mailbox = (room if self._ask.is_group else own)(self._recipient)
        await self._boxes.head(mailbox, asyncio.get_running_loop().time() + LOOK_S)
        self.taken.setdefault("query", []).append(time.perf_counter() - began)

    async def _time(self, operation: str, **request: object) -> None:
        began = time.perf_counter()
        await self._driver.ask(operation, **request, ReturnConsumedCapacity="TOTAL")
        self.taken.setdefault(operation, []).append(time.perf_counter() - began)

    def _tie(self) -> Item:
        if self._ask.is_group:
            return items.user_key(self._sender, items.GROUP + self._recipient)
        return items.user_key(self._recipient, items.BLOCK + self._sender)

    def _puts(self) -> list[dict[str, object]]:
        """What a put of so many messages asks for."""
        jobs, posts = [], []
        for _ in range(self._ask.together):
            seq = next(self._seqs)
            draft = Draft(self._sender, self._recipient, TEXT, mint("message"), self._ask.is_group)
            mailbox, copies = mailboxes_of(draft, keep_copy=True)
            jobs.append(Job(draft, None, mailbox, copies, 0.0, lambda *_: None))
            stamp = str(time.time_ns() // 1_000_000)
            message = Message(self._sender, TEXT, self._recipient, stamp, draft.message_id, seq)
            posts.append(Posted(0, mailbox, message, seq if copies else 0))
        first = posts[0].message.seq
        head = Head(first - 1, int(posts[0].message.timestamp) - 1) if first > 1 else NO_HEAD
        heads = dict.fromkeys((own(self._recipient), room(self._recipient), sent(self._sender)), head)
        return puts_of(self._table, jobs, posts, heads, self._ends)


async def answer(driver: Driver, ask: Ask) -> Told:
    """Make the calls."""
    lane = Lane(driver, ask)
    for _ in range(WARM):
        await lane.send()
    lane.taken.clear()
    lane.sends.clear()
    for _ in range(ask.count):
        await lane.send()
    for _ in range(ask.looks):
        await lane.look()
    return Told({name: 1e3 * median(taken) for name, taken in lane.taken.items()}, 1e3 * median(lane.sends))


async def serve() -> None:
    """Answer until stdin ends; all that is asked is of one store."""
    driver: Driver | None = None
    async with AsyncExitStack() as stack:
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            try:
                ask = msgspec.json.decode(line, type=Ask)
                if driver is None:
                    driver = await stack.enter_async_context(connected(address_of(ask.store), Uncounted()))
                told = await answer(driver, ask)
            except Exception as error:  # whatever it is, the bench is to say it
                told = Told(wrong=f"{type(error).__name__}: {error}"[:800])
            sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    uvloop.run(serve())
