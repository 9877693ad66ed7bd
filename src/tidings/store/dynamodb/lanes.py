"""Messages that wait for their put: bounded when they come in, in order, chosen for a put together, settled once.

Each mailbox is a lane. Only one put at a time is under way in a lane, since one at head+2 beside one at head+1 would
leave a hole if that fails. A private message stands in two lanes, its receiver's and that of its sender's copies.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

import msgspec

from tidings.errors import StoreUnavailable, TooMany, Unavailable
from tidings.model import Draft, Key, Message, Written, own, room, sent

log = logging.getLogger("tidings.store")

TOGETHER_MAX = 50  # messages in one put: with their copies 100 items, the most that a transaction takes
_BYTES_MAX = 900_000  # of one put as JSON: aiohttp writes up to 1 MB without a pause; a transaction takes 4 MB
_OVERHEAD = 1_000  # of an item beside its text, more than it can be
_SWEEP_S = 0.25

Settle = Callable[[Written[Message] | None, Exception | None], None]


class Job(msgspec.Struct, eq=False):
    """A message that waits; who is told how it ended, and until when (time of the loop) its outcome is awaited."""

    draft: Draft
    key: Key | None
    mailbox: str
    copies: str  # the sender's mailbox of copies, or ""
    due: float
    settle: Settle
    is_settled: bool = False
    walked: int = 0  # with a key: up to this seq of the mailbox there is no message of that key

    @property
    def mailboxes(self) -> tuple[str, ...]:
        """The one or two that it is appended to."""
        return (self.mailbox, self.copies) if self.copies else (self.mailbox,)


def mailboxes_of(draft: Draft, *, keep_copy: bool) -> tuple[str, str]:
    """Where a draft goes, and where its copy; a message to oneself has none."""
    mailbox = (room if draft.is_group else own)(draft.recipient_id)
    has_copy = keep_copy and not draft.is_group and draft.sender_id != draft.recipient_id
    return mailbox, sent(draft.sender_id) if has_copy else ""


class _Lane(msgspec.Struct, eq=False):
    """Who waits for a mailbox, oldest first; whether a put of it is under way."""

    waiting: deque[Job]
    is_held: bool = False

    def first(self) -> Job | None:
        """The oldest that still waits."""
        while self.waiting and self.waiting[0].is_settled:
            self.waiting.popleft()
        return self.waiting[0] if self.waiting else None


class Lanes:
    """All that wait or are being put; `begin` is called, on the event loop, with what is to be put together now."""

    def __init__(self, waiting_max: int, mailbox_max: int, puts_max: int, begin: Callable[[list[Job]], None]) -> None:
        self._waiting_max = waiting_max
        self._mailbox_max = mailbox_max
        self._puts_max = puts_max
        self._begin = begin
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[str, _Lane] = {}
        self._counts: dict[str, int] = {}
        self._issued: deque[Job] = deque()
        self._ready: dict[str, None] = {}  # lanes whose first may be free to go, in the order they became so
        self._is_pumping = False
        self._puts = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self.is_closing = False
        self.waiting = 0

    def enter(self) -> None:
        """One more write. Raises Unavailable; else `leave` must follow."""
        if self.is_closing:
            raise Unavailable("shutting_down", "This server is stopping.", retry_s=1)
        if self.waiting >= self._waiting_max:
            raise Unavailable("overloaded", "Too many writes are waiting.", retry_s=1)
        self.waiting += 1
        self._idle.clear()

    def leave(self) -> None:
        """It has ended."""
        self.waiting -= 1
        if not self.waiting:
            self._idle.set()

    async def close(self) -> None:
        """Refuse later ones; give when nothing waits any more."""
        self.is_closing = True
        await self._idle.wait()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def put(self, job: Job) -> None:
        """Let a message wait. Raises TooMany, Unavailable."""
        for mailbox in job.mailboxes:
            if self._counts.get(mailbox, 0) >= self._mailbox_max:
                raise TooMany("mailbox_busy", "Too many messages are waiting for this mailbox.", retry_s=1)
        self.enter()
        for mailbox in job.mailboxes:
            self._counts[mailbox] = self._counts.get(mailbox, 0) + 1
            self._lanes.setdefault(mailbox, _Lane(deque())).waiting.append(job)
        self._issued.append(job)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)
        self._wake(job.mailboxes)

    def settle(self, job: Job, written: Written[Message] | None, error: Exception | None) -> None:
        """Tell how it ended, unless that was told already: overdue, or its caller went away."""
        if job.is_settled:
            return
        self.forget(job)
        try:
            job.settle(written, error)
        except Exception:  # a fault of one is not the others'
            log.exception("a write could not be answered")

    def forget(self, job: Job) -> None:
        """It is awaited no longer: if it still waits, it is never put."""
        if job.is_settled:
            return
        job.is_settled = True
        self.leave()
        for mailbox in job.mailboxes:
            left = self._counts[mailbox] - 1
            if left:
                self._counts[mailbox] = left
            else:
                del self._counts[mailbox]
        while self._issued and self._issued[0].is_settled:
            self._issued.popleft()
        self._wake(job.mailboxes)

    def release(self, jobs: list[Job]) -> None:
        """A put has ended: its lanes are free for the next."""
        self._puts -= 1
        boxes = {mailbox for job in jobs for mailbox in job.mailboxes}
        for mailbox in boxes:
            self._lanes[mailbox].is_held = False
        self._wake(tuple(boxes))

    def _wake(self, mailboxes: tuple[str, ...]) -> None:
        """Look in the next step of the loop, so that what comes in this one goes together."""
        self._ready.update(dict.fromkeys(mailboxes))
        if not self._is_pumping:
            self._is_pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._is_pumping = False
        ready, self._ready = self._ready, {}
        for mailbox in ready:
            lane = self._lanes.get(mailbox)
            if lane is None or lane.is_held:
                continue  # its release looks again
            job = lane.first()
            if job is None:
                del self._lanes[mailbox]
            elif self._puts >= self._puts_max:
                self._ready[mailbox] = None  # the next release looks again
            elif jobs := self._choose(job):
                self._puts += 1
                self._begin(jobs)

    def _choose(self, job: Job) -> list[Job]:
        """What goes with `job`, along the longer of its lanes: each the first in all of its lanes, none of them held.

        If its turn has not come in the other lane, whoever is before it there looks again.
        """
        line = max((self._lanes[mailbox] for mailbox in job.mailboxes), key=lambda lane: len(lane.waiting))
        chosen: list[Job] = []
        held: list[_Lane] = []
        keys: set[bytes] = set()
        size = 0
        while (job_ := line.first()) is not None and len(chosen) < TOGETHER_MAX:
            lanes = [self._lanes[mailbox] for mailbox in job_.mailboxes]
            is_free = all(lane.first() is job_ and (not lane.is_held or lane in held) for lane in lanes)
            size += (_json_bytes(job_.draft.message) + _OVERHEAD) * len(lanes)
            if not is_free or (chosen and size > _BYTES_MAX) or (job_.key is not None and job_.key.name in keys):
                break
            for lane in lanes:
                lane.waiting.popleft()
                lane.is_held = True
            held += lanes
            if job_.key is not None:
                keys.add(job_.key.name)
            chosen.append(job_)
        return chosen

    def _sweep(self) -> None:
        """Answer the overdue, so that no wait is without end."""
        now = self._loop.time()
        try:
            while self._issued and (self._issued[0].is_settled or self._issued[0].due <= now):
                text = "The store did not take this in time; it may yet. The same Idempotency-Key finds out."
                job = self._issued.popleft()
                self.settle(job, None, StoreUnavailable("store_unavailable", text, retry_s=2))
        finally:  # whatever became of one
            self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep) if self._issued else None


def _json_bytes(text: str) -> int:
    """About what a text takes in a call, where all but ASCII is escaped."""
    return len(text) if text.isascii() else 3 * len(text.encode())
