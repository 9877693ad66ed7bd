"""The one thread that writes: it commits waiting writes together (group commit), one timestamp a commit.

The rules of a commit, which make one number per commit enough for readers by timestamp:

- Its timestamp is max(wall clock, last + 1), read and set inside the transaction.
- It takes at most one message of each mailbox; the others wait for the next.
- After releasing the lock this process lets a millisecond pass on the monotonic clock before it commits again. So
  timestamps stay near the clock, and two processes take turns. If they run ahead all the same, it waits for the clock,
  unless that is far behind: then it was set back, and numbers go on without it.
"""

import asyncio
import fcntl
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import apsw
import msgspec

from tidings.errors import Internal, StoreUnavailable, TidingsError, TooMany, Unavailable
from tidings.model import Message, Written
from tidings.store.sqlite.file import WAL_MAX_BYTES
from tidings.store.sqlite.sends import Known, Send, send_all
from tidings.store.sqlite.transaction import Transaction

T = TypeVar("T")

log = logging.getLogger("tidings.store")

BATCH_MAX = 500  # writes in one commit: some 20 ms of work, so that nobody waits long behind it
_PAUSE_S = 0.001
_SWEEP_S = 0.25
_FAILED_S = 1.0
_TEND_S = 0.1  # at the disk's 500 MB/s, the log file grows by 50 MB meanwhile
_AHEAD_MAX_MS = 20  # timestamps further ahead than this mean that the clock was set back


Write = Callable[[Transaction], Any] | Send


class Job(msgspec.Struct, frozen=True):
    """A write that waits, the mailboxes of which its commit takes no other message, and who waits for it."""

    write: Write
    mailboxes: tuple[str, ...]
    answer: "asyncio.Future[Any]"


Outcome = tuple[Job, Any, BaseException | None]


class Writer:
    """A queue, a thread and a connection. Functions check first, then write; what they raise is their own outcome."""

    def __init__(
        self,
        db: apsw.Connection,
        path: Path,
        *,
        mailbox_max: int,
        waiting_max: int,
        wait_s: float,
        on_batch: Callable[[int], None],
        tidy: Callable[[apsw.Connection], None],
    ) -> None:
        self._db = db
        self._wal = Path(f"{path}-wal")
        self._turn_file = os.open(f"{path}.turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._mailbox_max = mailbox_max
        self._waiting_max = waiting_max
        self._wait_s = wait_s
        self._issued: deque[tuple[float, asyncio.Future[Any]]] = deque()  # when it becomes overdue
        self._on_batch = on_batch
        self._tidy = tidy
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._put_off: deque[Job] = deque()
        self._by_mailbox: Counter[str] = Counter()
        self._is_closing = False
        self._is_open = True  # until the thread met the end of the queue
        self._known = Known()
        self._may_begin_at = 0.0
        self._tend_at = 0.0
        self.waiting = 0
        self.committed = -1  # the last position that a commit of ours was answered for
        self._loop = asyncio.get_running_loop()
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)
        self._thread = threading.Thread(target=self._work, name="tidings-writer", daemon=True)
        self._thread.start()

    async def do(self, write: Callable[[Transaction], T]) -> Written[T]:
        """Run `write` inside a commit and return when that is durable. Raises what it raised, and Unavailable."""
        return await self._put(write, ())

    async def send(self, send: Send) -> Written[Message]:
        """Append a message. Raises its refusal, TooMany if a mailbox has too many waiting, Unavailable."""
        return await self._put(send, send.mailboxes)

    async def _put(self, write: Write, mailboxes: tuple[str, ...]) -> Written[Any]:
        self._admit(mailboxes)
        answer: asyncio.Future[Written[Any]] = self._loop.create_future()
        self.waiting += 1
        for mailbox in mailboxes:
            self._by_mailbox[mailbox] += 1
        self._issued.append((self._loop.time() + self._wait_s, answer))
        self._queue.put(Job(write, mailboxes, answer))
        try:
            return await answer
        finally:
            self._acknowledge(answer)

    async def close(self) -> None:
        """Finish what waits, then end the thread."""
        self._is_closing = True
        self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join)
        self._sweeper.cancel()
        os.close(self._turn_file)

    def _admit(self, mailboxes: tuple[str, ...]) -> None:
        if self._is_closing:
            raise Unavailable("shutting_down", "This server is stopping.", retry_s=1)
        if self.waiting >= self._waiting_max:
            raise Unavailable("overloaded", "Too many writes are waiting.", retry_s=1)
        for mailbox in mailboxes:
            if self._by_mailbox[mailbox] >= self._mailbox_max:
                raise TooMany("mailbox_busy", "Too many messages are waiting for this mailbox.", retry_s=1)

    def _work(self) -> None:
        """The thread's whole life. What it can't foresee is logged, and it goes on, since nobody sees a dead one."""
        while self._is_open or self._put_off:
            try:
                self._take_turn()
            except Exception:
                log.exception("the writer failed; it goes on in %g s", _FAILED_S)
                self._may_begin_at = time.monotonic() + _FAILED_S

    def _take_turn(self) -> None:
        if not self._put_off:
            job = self._queue.get()
            if job is None:
                self._is_open = False
                return
            self._put_off.append(job)
        self._wait_for_turn()
        self._gather()
        jobs = self._choose()
        if jobs:
            self._loop.call_soon_threadsafe(self._deliver, self._commit_all(jobs))
            self._tend()

    def _wait_for_turn(self) -> None:
        delay = self._may_begin_at - time.monotonic()
        if delay > 0:
            time.sleep(delay)

    def _gather(self) -> None:
        """Take what waits in the queue, up to its end."""
        while self._is_open and not self._queue.empty():
            job = self._queue.get_nowait()
            if job is None:
                self._is_open = False
            else:
                self._put_off.append(job)

    def _choose(self) -> list[Job]:
        """The next commit: the oldest first, at most one message of each mailbox."""
        chosen: list[Job] = []
        later: deque[Job] = deque()
        taken: set[str] = set()
        while self._put_off and len(chosen) < BATCH_MAX:
            job = self._put_off.popleft()
            if job.answer.done():  # overdue, or its caller went away: nobody was promised anything
                self._loop.call_soon_threadsafe(self._release, (job,))
                continue
            is_free = taken.isdisjoint(job.mailboxes)
            taken.update(job.mailboxes)  # also when put off, so that a mailbox keeps its order
            (chosen if is_free else later).append(job)
        later.extend(self._put_off)
        self._put_off = later
        return chosen

    def _commit_all(self, jobs: Sequence[Job]) -> list[Outcome]:
        try:
            return self._commit(jobs)
        except Exception as error:
            if len(jobs) == 1 or isinstance(error, apsw.BusyError):  # busy: none of them can get in
                return [(job, None, translate(error)) for job in jobs]
        outcomes: list[Outcome] = []
        for job in jobs:  # one of them spoiled it; alone, it spoils only its own
            if job.answer.done():  # overdue meanwhile, and told so
                outcomes.append((job, None, None))
                continue
            self._wait_for_turn()
            outcomes += self._commit_all([job])
        return outcomes

    def _commit(self, jobs: Sequence[Job]) -> list[Outcome]:
        last = 0
        with self._turn():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                position, last = self._db.execute("SELECT position, timestamp FROM clock").get
                transaction = Transaction(self._db, position, max(_wall_ms(), last + 1))
                results = _run(jobs, transaction, self._known)
                if transaction.position != position:
                    last = transaction.timestamp
                    self._db.execute("UPDATE clock SET position = ?, timestamp = ?", (transaction.position, last))
                self._db.execute("COMMIT")
                self._known.end(transaction)
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._set_pause(last)
        batch = transaction.batch()
        return [(job, None if error else Written(value, batch), error) for job, value, error in results]

    def _set_pause(self, last: int) -> None:
        ahead_ms = last - _wall_ms()
        pause_s = max(_PAUSE_S, ahead_ms / 1000) if ahead_ms <= _AHEAD_MAX_MS else _PAUSE_S
        self._may_begin_at = time.monotonic() + pause_s

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Writers of all processes queue here, since SQLite's own waiting is a poll with growing pauses."""
        fcntl.flock(self._turn_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._turn_file, fcntl.LOCK_UN)

    def _tend(self) -> None:
        """Keep the log file bounded even if readers never pause, and trim old news; a failure here waits."""
        now = time.monotonic()
        if now < self._tend_at:
            return
        self._tend_at = now + _TEND_S
        try:
            self._tidy(self._db)
            if self._wal.stat().st_size > WAL_MAX_BYTES:
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except (apsw.Error, OSError):
            return

    def _deliver(self, outcomes: Sequence[Outcome]) -> None:
        self._on_batch(len(outcomes))
        self._release(job for job, _, _ in outcomes)
        for job, written, error in outcomes:
            if job.answer.done():  # overdue, or its caller went away
                self.committed = max(self.committed, written.batch.last if written else -1)
            elif error is None:
                job.answer.set_result(written)
            else:
                job.answer.set_exception(error)

    def _acknowledge(self, answer: "asyncio.Future[Written[Any]]") -> None:
        """Its caller goes on, and publishes it in the same step: no reader in between finds this node behind."""
        if answer.done() and not answer.cancelled() and answer.exception() is None:
            self.committed = max(self.committed, answer.result().batch.last)

    def _release(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self.waiting -= 1
            for mailbox in job.mailboxes:
                self._by_mailbox[mailbox] -= 1
                if not self._by_mailbox[mailbox]:
                    del self._by_mailbox[mailbox]

    def _sweep(self) -> None:
        """Answer the overdue, so that no wait is without end: a stopped process can hold the file's lock for ever."""
        now = self._loop.time()
        while self._issued and (self._issued[0][1].done() or self._issued[0][0] <= now):
            _, answer = self._issued.popleft()
            if not answer.done():
                text = "The store did not take this in time; it may yet. The same Idempotency-Key finds out."
                answer.set_exception(StoreUnavailable("store_unavailable", text, retry_s=2))
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)


def translate(error: Exception) -> TidingsError:
    """The one place where SQLite's errors become ours."""
    if isinstance(error, TidingsError):
        return error
    if isinstance(error, apsw.FullError):
        return StoreUnavailable("store_full", "The store's disk is full; nothing more is taken.", retry_s=30)
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return StoreUnavailable("store_corrupt", "The store's file is damaged.", retry_s=60)
    if isinstance(error, (apsw.Error, OSError)):
        return StoreUnavailable("store_unavailable", "The store does not answer.", retry_s=2)
    return Internal("internal", "The server failed.")


def _run(jobs: Sequence[Job], tx: Transaction, known: Known) -> list[Outcome]:
    """Each job's result; the sends are done together, after the rest. A refusal is a result, too."""
    sends = [job for job in jobs if isinstance(job.write, Send)]
    outcomes = [_attempt(job, job.write, tx) for job in jobs if not isinstance(job.write, Send)]
    results = send_all(tx, [job.write for job in sends if isinstance(job.write, Send)], known)
    for job, result in zip(sends, results, strict=True):
        outcomes.append((job, None, result) if isinstance(result, TidingsError) else (job, result, None))
    return outcomes


def _attempt(job: Job, write: Callable[[Transaction], Any], tx: Transaction) -> Outcome:
    try:
        return job, write(tx), None
    except StoreUnavailable:
        raise
    except TidingsError as refusal:
        return job, None, refusal


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
