"""Done between commits, in small steps so that no write waits long: old news and keys leave, the log starts over."""

import time

import apsw

from tidings.store.sqlite.file import BUSY_MS

_START_OVER_MS = 50  # ten times what a page takes to read; who holds a snapshot longer is not waited for
_EVERY_S = 10.0
_STEP = 500  # rows a step: about a millisecond
_PAGES = 64  # freed pages given back to the file system a step


class Tidy:
    """Trims change rows and idempotency keys older than `kept_s` seconds; ages are told by the commits' timestamps."""

    def __init__(self, kept_s: float) -> None:
        self._kept_ms = int(kept_s * 1000)
        self._next_at = 0.0

    def __call__(self, db: apsw.Connection) -> None:
        """One step, if it is time for one; the rest of a backlog follows after the next commits."""
        now = time.monotonic()
        if now < self._next_at:
            return
        with db:
            is_done = self._trim(db)
        db.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()
        self._next_at = now + _EVERY_S if is_done else now

    def _trim(self, db: apsw.Connection) -> bool:
        """Delete one step's rows; true if none are left. How far the news is forgotten goes with them."""
        last, forgotten = db.execute("SELECT timestamp, forgotten FROM clock").get
        before = last - self._kept_ms
        old = [
            position
            for position, timestamp in db.execute(
                "SELECT position, timestamp FROM alterations ORDER BY position LIMIT ?", (_STEP,)
            )
            if timestamp < before
        ]
        keys = [
            number
            for number, timestamp in db.execute("SELECT number, timestamp FROM keys ORDER BY number LIMIT ?", (_STEP,))
            if timestamp < before
        ]
        if old:
            db.execute("DELETE FROM alterations WHERE position <= ?", (old[-1],))
            db.execute("UPDATE clock SET forgotten = ?", (max(forgotten, old[-1]),))
        if keys:
            db.execute("DELETE FROM keys WHERE number <= ?", (keys[-1],))
        return len(old) < _STEP and len(keys) < _STEP


def start_log_over(db: apsw.Connection) -> bool:
    """Copy the log back and empty its file, once the readers of the moment have ended; false if one of them stays.

    The whole wait is the writer's: with the usual timeout, each commit during a backup took five seconds more.
    """
    db.set_busy_timeout(_START_OVER_MS)
    try:
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.BusyError:
        return False
    finally:
        db.set_busy_timeout(BUSY_MS)
    return True
