"""A node's directory with as many users as are wanted, made up as it asks for them; its feed is a real one.

From real tables a million would take hours: each is a call or two, at a millisecond each. Directory, tail and feed are
those of a node, put together as its server does; only what the directory reads comes from here. It reads an `Ask` as a
line of JSON on stdin and answers with a `Told` on stdout.
"""

import asyncio
import gc
import re
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench.seed import group_id, user_id
from tidings.app import Memory
from tidings.backends import open_backends
from tidings.config import Settings
from tidings.directory import Directory
from tidings.garbage import collect_rarely
from tidings.metrics import Metrics
from tidings.model import Head, Membership, Profile, User, own
from tidings.tail import Tail

GROUPS, GROUPS_EACH = 1_000, 2
AT_A_TIME = 100  # users loaded together


class Fill(msgspec.Struct, tag="fill"):
    """Join, and load so many users."""

    store: str
    feed: str
    users: int


class Look(msgspec.Struct, tag="look"):
    """Say how it was since the last time; and how long it takes to collect all garbage at once."""


class Told(msgspec.Struct):
    """Users held, bytes that they take, seconds that it took; pauses of the collector, their longest, that of all.

    `stall_ms` is how late the loop was at the most.
    """

    users: int = 0
    size: int = 0
    seconds: float = 0.0
    pauses: int = 0
    longest_ms: float = 0.0
    whole_ms: float = 0.0
    stall_ms: float = 0.0
    position: int = 0
    moved: int = 0
    wrong: str = ""


class People:
    """What the directory reads: everybody is in two groups, and nothing was sent to anybody yet."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}

    async def find_profile(self, user: str) -> Profile | None:
        """A user, whose strings are nobody else's."""
        number = int(user.rpartition("-")[2], 16)
        rooms = [(number + k) % GROUPS for k in range(GROUPS_EACH)]
        stays = tuple(Membership(group_id(n), f"group {n}", hash((user, n)), 0) for n in rooms)
        return Profile(User(f"{user[:5]}{user[5:]}", f"user {number}"), stays)

    async def heads(self, mailboxes: Sequence[str]) -> list[Head]:
        """Those of mailboxes with a message each."""
        now_ms = time.time_ns() // 1_000_000
        return [Head(0, 0) if mailbox[0] == "u" else Head(1_000, now_ms) for mailbox in mailboxes]


class Crowd:
    """The node."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._pauses: list[float] = []
        self._stall_s = 0.0
        self._watch: asyncio.Task[None]
        self._directory: Directory
        self._position: Any = lambda: 0

    async def fill(self, ask: Fill) -> Told:
        """Load them, some at a time."""
        settings = Settings(store=ask.store, feed=ask.feed)
        ends = await open_backends(settings, Metrics(), None, self._stack)
        tail = Tail(settings.tail_window_s, settings.tail_max_bytes)
        ends.attach(tail)
        self._directory = directory = Directory(People(), ask.users, 3 * ask.users)  # type: ignore[arg-type]
        await ends.feed.start(ends.after, Memory(directory, tail, ends.learn))
        self._position = lambda: ends.feed.position
        collect_rarely(lambda _, seconds: self._pauses.append(seconds))
        self._watch = asyncio.create_task(self._look_at_clock())
        before, began = anonymous(), time.perf_counter()
        for first in range(0, ask.users, AT_A_TIME):
            users = [user_id(n) for n in range(first, min(first + AT_A_TIME, ask.users))]
            entries = await asyncio.gather(*map(directory.entry, users))
            await directory.heads(sorted({mailbox for entry in entries for mailbox in entry.mailboxes}))
        seconds = time.perf_counter() - began
        return Told(directory.users, anonymous() - before, seconds)

    async def look(self) -> Told:
        """What came since, and a collection of everything."""
        pauses, self._pauses = self._pauses, []
        stall_s, self._stall_s = self._stall_s, 0.0
        gc.collect()
        (*_, whole) = self._pauses
        self._pauses = []
        await asyncio.sleep(0)
        self._stall_s = 0.0
        longest = max(pauses, default=0.0)
        moved = sum((self._directory.find_head(own(user_id(n))) or Head(0, 0)).seq for n in range(1_000))
        return Told(
            self._directory.users,
            pauses=len(pauses),
            longest_ms=1e3 * longest,
            whole_ms=1e3 * whole,
            stall_ms=1e3 * stall_s,
            position=self._position(),
            moved=moved,
        )

    async def _look_at_clock(self) -> None:
        while True:
            due = time.perf_counter() + 0.002
            await asyncio.sleep(0.002)
            self._stall_s = max(self._stall_s, time.perf_counter() - due)


def anonymous() -> int:
    """The memory of this process that no file stands for, in bytes."""
    found = re.search(r"^RssAnon:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


async def serve() -> None:
    """Answer until stdin ends."""
    async with AsyncExitStack() as stack:
        crowd = Crowd(stack)
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            try:
                ask = msgspec.json.decode(line, type=Fill | Look)
                told = await (crowd.fill(ask) if isinstance(ask, Fill) else crowd.look())
            except Exception as error:  # whatever it is, the bench is to say it
                told = Told(wrong=f"{type(error).__name__}: {error}"[:800])
            sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    uvloop.run(serve())
