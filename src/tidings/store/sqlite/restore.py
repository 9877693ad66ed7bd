"""A copy is put back as the store: a new generation, the store before it kept aside, no step of it lost in a crash."""

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tidings.errors import StartError, UpkeepError
from tidings.store.sqlite.backup import PART, beside, check, copy, sync, told
from tidings.store.sqlite.file import Lock, connect, random_64, restoring
from tidings.store.upkeep import Progress, Restored

_FILES = ("-wal", "-shm", "")  # the store's own last: as long as it is there, it says that there is a store


def restore(path: Path, backup: Path, *, force: bool, on_progress: Progress) -> Restored:
    """See `tidings.store.upkeep`."""
    path = path.resolve()  # as the server does: one file has one lock
    if backup.resolve() == path:
        raise UpkeepError(f"{backup} is the store itself")
    if not backup.exists():
        raise UpkeepError(f"there is no backup at {backup}")
    with told(f"{path} can't be restored"), _held(path):
        if _is_there(path) and not force and not restoring(path).exists():
            raise UpkeepError(f"there is a store at {path}; --force puts the backup in its place and keeps it aside")
        for left in path.parent.glob(f".{path.name}.*{PART}*"):  # of a restore that was killed: we hold the lock
            left.unlink()
        made = beside(path)
        try:
            copy(backup, made, on_progress)
            position, timestamp = check(made, "integrity_check")
            _renew(made)
            _give_away(made, path)
            kept = _put(made, path)
        finally:
            for end in _FILES:
                made.with_name(made.name + end).unlink(missing_ok=True)
    return Restored(str(path), str(backup), str(kept) if kept else None, position, timestamp)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """The store is ours alone, as if we served it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = Lock(path, shared=False)
    except StartError as error:
        raise UpkeepError(f"{error}: end it first") from None
    try:
        _give_away(path.with_name(path.name + ".lock"), path)
        yield
    finally:
        lock.release()


def _is_there(path: Path) -> bool:
    return any(path.with_name(path.name + end).exists() for end in ("", "-wal"))


def _renew(made: Path) -> None:
    """A new generation: no cursor minted before is of this history; and writes are taken, if the copy was closed."""
    with closing(connect(made)) as db, db:
        db.execute("UPDATE history SET generation = ?, closed = NULL", (random_64(),))
    sync(made)


def _give_away(made: Path, path: Path) -> None:
    """What root puts back belongs to whoever the store, or its directory, belongs to: the server must open it."""
    if os.geteuid() == 0:
        owner = (path if path.exists() else path.parent).stat()
        os.chown(made, owner.st_uid, owner.st_gid)


def _put(made: Path, path: Path) -> Path | None:
    """Move the old files aside, then the new one in. In between no server starts, since a file beside them says so.

    Killed at any instruction, the same command goes on: it moves what was not moved, to where the rest is.
    """
    note = restoring(path)
    if not note.exists():
        if not _is_there(path):
            made.replace(path)
            sync(path.parent)
            return None
        aside = path.with_name(f"{path.name}.before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}")
        written = beside(note)
        written.write_text(aside.name)
        sync(written)
        written.replace(note)
        sync(path.parent)
    aside = path.with_name(note.read_text())
    for end in _FILES:
        old, kept = path.with_name(path.name + end), aside.with_name(aside.name + end)
        if old.exists() and not aside.exists():
            old.rename(kept)
    sync(path.parent)
    made.replace(path)
    sync(path.parent)
    note.unlink()
    sync(path.parent)
    return aside
