"""Writes that wait for their commit: bounded when they come in, chosen for a commit by its thread, settled once.

`put`, `release`, `settle` and `sweep` are for the event loop; `take`, `gather` and `choose` for the writer's thread.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import takewhile
from queue import SimpleQueue
from typing import Any

import msgspec

from tidings.errors import StoreUnavailable, TooMany, Unavailable
from tidings.model import Written
from tidings.store.sqlite.sends import Send
from tidings.store.sqlite.transaction import Transaction

BATCH_MAX = 500  # writes in one commit: some 20 ms of work, so that nobody waits long behind it
_SWEEP_S = 0.25

Write = Callable[[Transaction], Any] | Send
Settle = Callable[[Written[Any] | None, Exception | None], None]


class Job(msgspec.Struct, eq=False):
    """A write that waits, the mailboxes of which its commit takes no other message, and who is told how it ended.

    After `due` (time of the loop) the outcome is unknown. A settled job is told nothing any more.
    """

    write: Write
    mailboxes: tuple[str, ...]
    due: float
    settle: Settle
    is_awaited: bool = False  # by a task, which goes on in a later step of the loop
    is_settled: bool = False


Outcome = tuple[Job, Written[Any] | None, Exception | None]


class Jobs:
    """All that wait; `waiting_max` and `mailbox_max` bound them in all and for one mailbox, `wait_s` each wait."""

    def __init__(self, waiting_max: int, mailbox_max: int, wait_s: float) -> None:
        self._waiting_max = waiting_max
        self._mailbox_max = mailbox_max
        self._wait_s = wait_s
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._put_off: deque[Job] = deque()
        self._held: dict[Job, None] = {}  # all that wait, the oldest first
        self._by_mailbox: Counter[str] | None = None  # how many for each, once a mailbox could have too many
        self._is_closing = False
        self._is_open = True  # until the thread met the end of the queue
        self._sweeper: asyncio.TimerHandle | None = None  # runs while something waits

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._held)

    def put(self, write: Write, mailboxes: tuple[str, ...], settle: Settle, *, is_awaited: bool = False) -> Job:
        """Let a write wait. Raises TooMany, Unavailable."""
        if self._is_closing:
            raise Unavailable("shutting_down", "This server is stopping.", retry_s=1)
        waiting = len(self._held)
        if waiting >= self._waiting_max:
            raise Unavailable("overloaded", "Too many writes are waiting.", retry_s=1)
        if waiting >= self._mailbox_max or self._by_mailbox is not None:
            self._count(mailboxes)
        job = Job(write, mailboxes, self._loop.time() + self._wait_s, settle, is_awaited)
        self._held[job] = None
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)
        self._queue.put(job)
        return job

    def end(self) -> None:
        """Take nothing more; the thread ends behind what waits."""
        self._is_closing = True
        self._queue.put(None)

    def stop(self) -> None:
        """The thread is gone: nothing is overdue any more."""
        if self._sweeper is not None:
            self._sweeper.cancel()

    def release(self, jobs: Sequence[Job]) -> None:
        """They wait no longer."""
        for job in jobs:
            del self._held[job]
        if self._by_mailbox is not None:
            self._count_off(jobs, self._by_mailbox)

    def _count(self, mailboxes: Sequence[str]) -> None:
        """Count one more for each: only now, since below so many in all none can have too many. Raises TooMany."""
        if self._by_mailbox is None:
            self._by_mailbox = Counter(mailbox for job in self._held for mailbox in job.mailboxes)
        counts = self._by_mailbox
        for mailbox in mailboxes:
            if counts[mailbox] >= self._mailbox_max:
                raise TooMany("mailbox_busy", "Too many messages are waiting for this mailbox.", retry_s=1)
        counts.update(mailboxes)

    def _count_off(self, jobs: Sequence[Job], counts: Counter[str]) -> None:
        if len(self._held) <= self._mailbox_max // 2:  # half, so that it is not begun anew at each commit
            self._by_mailbox = None
            return
        for job in jobs:
            for mailbox in job.mailboxes:
                counts[mailbox] -= 1
                if not counts[mailbox]:
                    del counts[mailbox]

    def _sweep(self) -> None:
        """Answer the overdue, so that no wait is without end: a stopped process can hold the file's lock for ever."""
        now = self._loop.time()
        overdue = list(takewhile(lambda job: job.due <= now, self._held))
        try:
            for job in overdue:
                if not job.is_settled:
                    job.is_settled = True
                    text = "The store did not take this in time; it may yet. The same Idempotency-Key finds out."
                    job.settle(None, StoreUnavailable("store_unavailable", text, retry_s=2))
        finally:  # whatever became of one
            self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep) if self._held else None

    @property
    def has_ended(self) -> bool:
        """For the thread: whether there is nothing left, and nothing can come."""
        return not self._is_open and not self._put_off

    def take(self) -> bool:
        """Wait until something waits; false if nothing will any more."""
        if not self._put_off:
            self._hold(self._queue.get())
        return bool(self._put_off)

    def gather(self) -> None:
        """Take what waits in the queue, up to its end."""
        while self._is_open and not self._queue.empty():
            self._hold(self._queue.get_nowait())

    def choose(self) -> list[Job]:
        """The next commit: the oldest first, at most one message of each mailbox."""
        chosen: list[Job] = []
        later: deque[Job] = deque()
        taken: set[str] = set()
        while self._put_off and len(chosen) < BATCH_MAX:
            job = self._put_off.popleft()
            if job.is_settled:  # overdue, or its caller went away: nobody was promised anything
                self._loop.call_soon_threadsafe(self.release, (job,))
                continue
            is_free = taken.isdisjoint(job.mailboxes)
            taken.update(job.mailboxes)  # also when put off, so that a mailbox keeps its order
            (chosen if is_free else later).append(job)
        later.extend(self._put_off)
        self._put_off = later
        return chosen

    def _hold(self, job: Job | None) -> None:
        if job is None:
            self._is_open = False
        else:
            self._put_off.append(job)
