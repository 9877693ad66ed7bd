"""A store is closed: from one commit on, no writer of any process commits, since each reads the mark inside its own."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw

from tidings.errors import UpkeepError
from tidings.store.sqlite.backup import identify, reading, told
from tidings.store.sqlite.file import SCHEMA_VERSION, connect


def close_for(path: Path) -> str:
    """Close the store, served or not; gives the export that it is closed for, which is an earlier one if it was."""
    with _writing(path) as db:
        db.execute("UPDATE history SET closed = ? WHERE closed IS NULL", (secrets.token_hex(16),))
        return str(db.execute("SELECT closed FROM history").get)


def open_again(path: Path) -> bool:
    """Let it take writes again; whether it was closed."""
    with _writing(path) as db:
        db.execute("UPDATE history SET closed = NULL WHERE closed IS NOT NULL")
        return db.changes() > 0


@contextmanager
def _writing(path: Path) -> Iterator[apsw.Connection]:
    """One commit of ours among those of the server's writers, in whose queue we stand. Raises UpkeepError."""
    path = path.resolve()
    with closing(reading(path)) as db:
        check_version(db, path)
    turn = os.open(f"{path}.turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _give_away(Path(f"{path}.turn"), path)
        with told(f"{path} can't be written"), closing(connect(path)) as db:
            fcntl.flock(turn, fcntl.LOCK_EX)
            with db:  # a savepoint, that becomes a write with the first statement, which waits for its turn
                yield db
    finally:
        os.close(turn)


def _give_away(made: Path, path: Path) -> None:
    """What root makes beside a store belongs to whoever the store belongs to: the server must open it."""
    if os.geteuid() == 0:
        owner = path.stat()
        os.chown(made, owner.st_uid, owner.st_gid)


def check_version(db: apsw.Connection, path: Path) -> None:
    """Raises UpkeepError for a file that is none of ours, or of another version."""
    with told(f"{path} can't be read"):
        identify(db, path)
        if db.execute("PRAGMA user_version").get < SCHEMA_VERSION:
            raise UpkeepError(f"an older version made {path}: start the server on it once, which brings it forward")
