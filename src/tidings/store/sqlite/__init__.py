"""The store on SQLite: one file, one writer thread, readers beside it that never wait for it."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw

from tidings.board import Board
from tidings.config import Settings
from tidings.errors import StartError, StoreUnavailable, Unavailable
from tidings.model import Batch, Draft, Found, Group, Head, Key, Message, Profile, Start, User, Written
from tidings.store import Meter
from tidings.store.sqlite import mailboxes as boxes
from tidings.store.sqlite import reads, writes
from tidings.store.sqlite.file import Lock, begin_run, connect, last_run, open_file, path_of
from tidings.store.sqlite.jobs import Jobs, Settle
from tidings.store.sqlite.sends import send_of
from tidings.store.sqlite.tidy import Tidy
from tidings.store.sqlite.transaction import Transaction
from tidings.store.sqlite.writer import Writer, translate

T = TypeVar("T")


class _GivenUp(Exception):
    """Nobody waits any more for what was to be read."""


class SqliteStore:
    """See `tidings.store` for what every method promises."""

    def __init__(
        self, db: apsw.Connection, path: Path, lock: Lock, settings: Settings, meter: Meter, board: Board | None
    ) -> None:
        self._path = path
        self._lock = lock
        self._keep_copies = settings.sent_copies
        self._limits = writes.Limits(
            settings.groups_per_user_max, settings.blocks_per_user_max, settings.members_per_group_max
        )
        self._meter = meter
        self._board = board  # with it this process is one of several
        self.generation, self._knows_feeds = db.execute("SELECT generation, feeds FROM history").get
        runs = db.execute("SELECT id, first, lead(first) OVER (ORDER BY number) FROM run")
        self._runs: dict[int, tuple[int, int | None]] = {run: (first, following) for run, first, following in runs}
        self.run = last_run(db)
        self._opened_at = int(db.execute("SELECT position FROM clock").get)
        self._writer_db = db
        self._tell: Callable[[Batch], None] = lambda _: None
        self._jobs = Jobs(settings.writes_waiting_max, settings.mailbox_waiting_max, settings.write_wait_s)
        self._writer = Writer(
            db,
            path,
            jobs=self._jobs,
            board=board,
            on_batch=meter.batch,
            on_foreign=lambda batch: self._tell(batch),
            tidy=Tidy(settings.news_kept_s),
            lag_max=settings.index_lag_max,
        )
        self._look_db = connect(path, readonly=True)
        self._seen = (-1, 0)  # PRAGMA data_version, and the position that was read under it
        self._readers = ThreadPoolExecutor(settings.cold_reads_max, "tidings-reader")
        self._follower = ThreadPoolExecutor(1, "tidings-follower")  # the news never waits behind cold reads
        self._read_wait_s = settings.read_wait_s
        self._reading = 0
        self._reading_max = settings.cold_reads_max + settings.reads_waiting_max
        self._thread = threading.local()
        self._reader_dbs: list[apsw.Connection] = []

    @classmethod
    async def open(cls, settings: Settings, meter: Meter, run: int | None, board: Board | None) -> "SqliteStore":
        """Open the file as its one server, or as a worker of the server that began `run` and made the board."""
        path = path_of(settings.store)
        try:
            path = path.resolve()  # one file has one lock, by whatever link it is named
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = Lock(path, shared=run is not None)
        except (OSError, RuntimeError) as error:  # RuntimeError: links that lead round in a circle
            raise StartError(f"{path} can't be opened: {getattr(error, 'strerror', None) or error}") from None
        try:
            db = open_file(path)
            try:
                if run is None:
                    begin_run(db, settings.index_lag_max)
                elif last_run(db) != run:
                    raise StartError(f"another server has taken over {path}")
            except apsw.Error as error:
                raise StartError(f"{path} can't be written: {error}") from None
            return cls(db, path, lock, settings, meter, board)
        except StartError:
            lock.release()
            raise

    def share(self, board: Board) -> None:
        self._lock.share()
        board.committed = self.look()
        self._board = self._writer.board = board

    @property
    def forgets(self) -> bool:
        return False

    @property
    def waiting(self) -> int:
        """How many writes wait."""
        return self._jobs.waiting

    async def create_user(self, user: User, key: Key | None = None) -> Written[User]:
        return await self._write(writes.once(key, User, partial(writes.create_user, user=user)))

    async def create_group(self, group: Group, key: Key | None = None) -> Written[Group]:
        return await self._write(writes.once(key, Group, partial(writes.create_group, group=group)))

    async def block(self, user_id: str, other_id: str, key: Key | None = None) -> Written[None]:
        write = partial(writes.block, user_id=user_id, other_id=other_id, limits=self._limits)
        return await self._write(writes.once(key, type(None), write))

    async def unblock(self, user_id: str, other_id: str, key: Key | None = None) -> Written[None]:
        write = partial(writes.unblock, user_id=user_id, other_id=other_id)
        return await self._write(writes.once(key, type(None), write))

    async def add_member(self, group_id: str, user_id: str, key: Key | None = None) -> Written[None]:
        write = partial(writes.add_member, group_id=group_id, user_id=user_id, limits=self._limits)
        return await self._write(writes.once(key, type(None), write))

    async def remove_member(self, group_id: str, user_id: str, key: Key | None = None) -> Written[None]:
        write = partial(writes.remove_member, group_id=group_id, user_id=user_id)
        return await self._write(writes.once(key, type(None), write))

    async def send(self, draft: Draft, key: Key | None = None) -> Written[Message]:
        self._meter.store_call("send")
        return await self._writer.send(send_of(draft, key, keep_copy=self._keep_copies))

    def submit(self, draft: Draft, key: Key | None, settle: Settle) -> None:
        self._meter.store_call("send")
        self._writer.submit(send_of(draft, key, keep_copy=self._keep_copies), settle)

    async def find_profile(self, user_id: str) -> Profile | None:
        return await self._read("profile", lambda db: reads.profile(db, user_id))

    async def find_group(self, group_id: str) -> Group | None:
        return await self._read("group", lambda db: reads.group(db, group_id))

    async def blocks(self, user_id: str) -> list[str]:
        return await self._read("blocks", lambda db: reads.blocks(db, user_id))

    async def members(self, group_id: str, after: str, limit: int) -> list[User]:
        return await self._read("members", lambda db: reads.members(db, group_id, after, limit))

    async def heads(self, mailboxes: Sequence[str]) -> list[Head]:
        return await self._read("heads", lambda db: boxes.heads(db, mailboxes))

    async def read(self, starts: Sequence[Start], limit: int, until: int | None = None) -> list[Found]:
        end = boxes.ANY_POSITION if until is None else until
        return await self._read("read", lambda db: boxes.read(db, starts, limit, end))

    async def read_before(self, mailbox: str, before: int, limit: int, until: int | None = None) -> list[Found]:
        end = boxes.ANY_POSITION if until is None else until
        return await self._read("read_before", lambda db: boxes.read_before(db, mailbox, before, limit, end))

    async def changes(self, after: int, limit: int) -> Batch:
        return await self._ask("changes", self._follower, lambda db: reads.changes(db, after, limit))

    async def position(self) -> int:
        return await self._ask("position", self._follower, lambda db: int(db.execute("SELECT position FROM clock").get))

    def follow(self, tell: Callable[[Batch], None]) -> None:
        self._tell = tell

    def latest(self) -> int:
        if self._board is not None:
            return self._board.committed
        return max(self._writer.committed, self._opened_at)

    def look(self) -> int:
        try:
            version = self._look_db.execute("PRAGMA data_version").get
            if version != self._seen[0]:
                self._seen = (version, self._look_db.execute("SELECT position FROM clock").get)
        except apsw.Error as error:
            raise translate(error) from error
        return self._seen[1]

    async def recent(self, window_ms: int, limit: int) -> int:
        oldest = time.time_ns() // 1_000_000 - window_ms
        return await self._read("recent", lambda db: reads.recent(db, oldest, limit))

    def surely_knows(self, run: int, position: int) -> bool:
        if self._knows_feeds and run & 1 and run not in self._runs:
            return True  # an odd one is a feed's: from when this store was on many nodes
        first, following = self._runs.get(run, (1, 0))  # none: no position fits
        last = self.latest() if following is None else following - 1
        return first - 1 <= position <= last

    async def knows(self, run: int, position: int) -> bool:
        if self.surely_knows(run, position):
            return True
        # Beyond the latest of this run, it may be of a commit that no writer was answered for yet, or none of ours.
        return run == self.run and self._runs[run][0] - 1 <= position <= await self.position()

    async def close(self) -> None:
        await self._writer.close()
        for pool in (self._readers, self._follower):
            await asyncio.to_thread(pool.shutdown)
        for db in (*self._reader_dbs, self._look_db, self._writer_db):
            db.close()
        self._lock.release()

    async def _write(self, write: Callable[[Transaction], T]) -> Written[T]:
        self._meter.store_call("write")
        return await self._writer.do(write)

    async def _read(self, name: str, read: Callable[[apsw.Connection], T]) -> T:
        if self._reading >= self._reading_max:
            raise Unavailable("overloaded", "Too many reads of the store are waiting.", retry_s=1)
        self._reading += 1
        return await self._ask(name, self._readers, read, self._read_ended)

    def _read_ended(self, _: object) -> None:
        self._reading -= 1

    async def _ask(
        self,
        name: str,
        pool: ThreadPoolExecutor,
        read: Callable[[apsw.Connection], T],
        on_end: Callable[[object], None] = lambda _: None,
    ) -> T:
        """Read in a thread of the pool, and wait so long; a read that hangs keeps its place until it ends."""
        self._meter.store_call(name)
        is_wanted = True

        def look(db: apsw.Connection) -> T:
            if not is_wanted:
                raise _GivenUp
            return read(db)

        job = pool.submit(self._in_snapshot, look)
        reading = asyncio.wrap_future(job)
        reading.add_done_callback(lambda done: on_end(done.cancelled() or done.exception()))
        try:
            done, _ = await asyncio.wait((reading,), timeout=self._read_wait_s)
        except asyncio.CancelledError:
            is_wanted = False  # it keeps its place until its turn: callers that come and go are no queue without bound
            raise
        if not done:
            job.cancel()  # if it did not begin, it never does
            raise StoreUnavailable("store_unavailable", "The store did not answer in time.", retry_s=2)
        return reading.result()

    def _in_snapshot(self, read: Callable[[apsw.Connection], T]) -> T:
        try:
            db: apsw.Connection | None = getattr(self._thread, "db", None)
            if db is None:
                db = self._thread.db = connect(self._path, readonly=True)
                self._reader_dbs.append(db)
            db.execute("BEGIN")
            try:
                return read(db)
            finally:
                db.execute("ROLLBACK")
        except apsw.Error as error:
            raise translate(error) from error
