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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import apsw

from tidings.board import Board
from tidings.errors import Closed, Internal, StoreUnavailable, TidingsError, store_closed
from tidings.model import Batch, Message, Written
from tidings.store.sqlite.file import WAL_MAX_BYTES
from tidings.store.sqlite.health import Health
from tidings.store.sqlite.jobs import Job, Jobs, Outcome, Settle, Write
from tidings.store.sqlite.sends import Known, Send, send_all
from tidings.store.sqlite.tidy import start_log_over
from tidings.store.sqlite.transaction import Transaction

T = TypeVar("T")

_Result = tuple[Job, Any, Exception | None]  # what a write gave inside the commit, or why it was refused

log = logging.getLogger("tidings.store")

_PAUSE_S = 0.001
_FAILED_S = 1.0
_TEND_S = 0.1  # at the disk's 500 MB/s, the log file grows by 50 MB meanwhile
_HELD_S = 1.0  # after a try in vain: a snapshot held as long as a backup takes costs writes a twentieth of their time
_CLOCK = "SELECT position, timestamp, placed, (SELECT closed FROM history) FROM clock"
_AHEAD_MAX_MS = 20  # timestamps further ahead than this mean that the clock was set back


class Writer:
    """A queue, a thread and a connection. Functions check first, then write; what they raise is their own outcome."""

    def __init__(
        self,
        db: apsw.Connection,
        path: Path,
        *,
        jobs: Jobs,
        board: Board | None,
        on_batch: Callable[[int], None],
        on_foreign: Callable[[Batch], None],
        tidy: Callable[[apsw.Connection], None],
        lag_max: int,
    ) -> None:
        self._db = db
        self._wal = Path(f"{path}-wal")
        self._turn_file = os.open(f"{path}.turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._jobs = jobs
        self.board = board
        self._on_batch = on_batch
        self._on_foreign = on_foreign
        self._tidy = tidy
        self._lag_max = lag_max
        self._health = Health()
        self._known = Known()
        self._foreign: list[Batch] = []  # read by commits whose outcomes were not delivered yet
        self._may_begin_at = 0.0
        self._tend_at = 0.0
        self.committed = -1  # the last position that a commit of ours was answered for
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="tidings-writer", daemon=True)
        self._thread.start()

    async def do(self, write: Callable[[Transaction], T]) -> Written[T]:
        """Run `write` inside a commit and return when that is durable. Raises what it raised, and Unavailable."""
        return await self._put(write, ())

    async def send(self, send: Send) -> Written[Message]:
        """Append a message. Raises its refusal, TooMany if a mailbox has too many waiting, Unavailable."""
        return await self._put(send, send.mailboxes)

    def submit(self, send: Send, settle: Settle) -> None:
        """The same without waiting: `settle` is told what `send` would give or raise. Raises TooMany, Unavailable.

        What it tells must be published in the same step, so that no reader in between finds this node behind.
        """
        self._jobs.put(send, send.mailboxes, settle)

    async def _put(self, write: Write, mailboxes: tuple[str, ...]) -> Written[Any]:
        answer: asyncio.Future[Written[Any]] = self._loop.create_future()

        job = self._jobs.put(write, mailboxes, partial(self._give, answer), is_awaited=True)
        try:
            return await answer
        finally:  # it goes on, and publishes in the same step: no reader in between finds this node behind
            job.is_settled = True  # also if the caller goes away
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self.committed = max(self.committed, answer.result().batch.last)

    def _give(
        self, answer: "asyncio.Future[Written[Any]]", written: Written[Any] | None, error: Exception | None
    ) -> None:
        if written is not None and answer.done():  # its caller goes away just now
            self.committed = max(self.committed, written.batch.last)
        elif written is not None:
            answer.set_result(written)
        elif error is not None and not answer.done():
            answer.set_exception(error)

    async def close(self) -> None:
        """Finish what waits, then end the thread."""
        self._jobs.end()
        await self._loop.run_in_executor(None, self._thread.join)
        self._jobs.stop()
        os.close(self._turn_file)

    def _work(self) -> None:
        """The thread's whole life. What it can't foresee is logged, and it goes on, since nobody sees a dead one."""
        while not self._jobs.has_ended:
            try:
                self._take_turn()
            except Exception:
                log.exception("the writer failed; it goes on in %g s", _FAILED_S)
                self._may_begin_at = time.monotonic() + _FAILED_S

    def _take_turn(self) -> None:
        if not self._jobs.take():
            return
        self._let_pass()
        failed: Exception | None = None
        with self._turn():
            self._jobs.gather()  # only now: what came in while we queued for the turn is taken along
            jobs = self._jobs.choose()
            try:
                outcomes = self._commit(jobs) if jobs else []
            except Exception as error:
                failed = error
        if failed is not None:
            outcomes = self._take_apart(jobs, failed)
        if jobs:
            self._health.note(error for _, _, error in outcomes)
            foreign, self._foreign = self._foreign, []
            self._loop.call_soon_threadsafe(self._deliver, outcomes, foreign)
            self._tend()

    def _let_pass(self) -> None:
        """Wait out the pause between two commits."""
        delay = self._may_begin_at - time.monotonic()
        if delay > 0:
            time.sleep(delay)

    def _take_apart(self, jobs: Sequence[Job], error: Exception) -> list[Outcome]:
        """One of them spoiled their commit: each is tried alone, where it spoils only its own."""
        if len(jobs) == 1 or isinstance(error, (apsw.BusyError, Closed)):  # none of them can get in
            return [(job, None, translate(error)) for job in jobs]
        outcomes: list[Outcome] = []
        for job in jobs:
            if job.is_settled:  # overdue meanwhile, and told so
                outcomes.append((job, None, None))
                continue
            self._let_pass()
            try:
                with self._turn():
                    outcomes += self._commit([job])
            except Exception as its_own:
                outcomes.append((job, None, translate(its_own)))
        return outcomes

    def _commit(self, jobs: Sequence[Job]) -> list[Outcome]:
        last = 0
        self._db.execute("BEGIN IMMEDIATE")
        try:
            position, last, placed, closed = self._db.execute(_CLOCK).get
            if closed is not None:
                raise store_closed()
            transaction = Transaction(self._db, position, max(_wall_ms(), last + 1), placed)
            self._known.follow(transaction)
            results = _run(jobs, transaction, self._known)
            if transaction.position != position:
                last = transaction.timestamp
                transaction.end(self._lag_max)
            self._db.execute("COMMIT")
            if self.board is not None:
                self.board.committed = transaction.position
            self._known.end(transaction)
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        finally:
            self._set_pause(last)
        if transaction.foreign is not None:
            self._foreign.append(transaction.foreign)
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
            if self._wal.stat().st_size > WAL_MAX_BYTES and not start_log_over(self._db):
                self._tend_at = time.monotonic() + _HELD_S
        except (apsw.Error, OSError):
            return

    def _deliver(self, outcomes: Sequence[Outcome], foreign: Sequence[Batch]) -> None:
        for batch in foreign:
            self._on_foreign(batch)
        self._on_batch(len(outcomes))
        self._jobs.release([job for job, _, _ in outcomes])
        for job, written, error in outcomes:
            if written is not None and (job.is_settled or not job.is_awaited):
                self.committed = max(self.committed, written.batch.last)
            if not job.is_settled:  # else overdue, or its caller went away
                job.is_settled = True
                try:
                    job.settle(written, error)
                except Exception:  # a fault of one is not the others'
                    log.exception("a write could not be answered")


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
    log.error("a write failed", exc_info=error)
    return Internal("internal", "The server failed.")


def _run(jobs: Sequence[Job], tx: Transaction, known: Known) -> list[_Result]:
    """Each job's result; the sends are done together, after the rest. A refusal is a result, too."""
    sends = [job for job in jobs if isinstance(job.write, Send)]
    outcomes = [_attempt(job, job.write, tx) for job in jobs if not isinstance(job.write, Send)]
    results = send_all(tx, [job.write for job in sends if isinstance(job.write, Send)], known)
    for job, result in zip(sends, results, strict=True):
        outcomes.append((job, None, result) if isinstance(result, TidingsError) else (job, result, None))
    return outcomes


def _attempt(job: Job, write: Callable[[Transaction], Any], tx: Transaction) -> _Result:
    try:
        return job, write(tx), None
    except StoreUnavailable:
        raise
    except TidingsError as refusal:
        return job, None, refusal


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
