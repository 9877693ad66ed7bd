"""Copies of a store: taken of one moment while others write, checked, and put in place whole or not at all."""

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import apsw

from tidings.errors import UpkeepError
from tidings.store.sqlite.file import APPLICATION_ID, BUSY_MS, SCHEMA_VERSION, restoring
from tidings.store.upkeep import BackedUp, Progress

_STEP_PAGES = 2_048  # 4 MB between two words of progress
PART = ".part"  # the end of the name of what is not whole yet
_BESIDE = ("-wal", "-shm", "-journal")  # what SQLite keeps beside a file


def back_up(path: Path, target: Path, *, force: bool, on_progress: Progress) -> BackedUp:
    """See `tidings.store.upkeep`."""
    with told(f"{target} can't be written"):
        if target.is_dir():
            target = target / f"tidings-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.db"
        _check_target(path, target, force)
        temporary = beside(target)
        try:
            copy(path, temporary, on_progress)
            position, timestamp = check(temporary, "quick_check")
            _put(temporary, target, force)
        finally:
            temporary.unlink(missing_ok=True)
    return BackedUp(str(target), target.stat().st_size, position, timestamp)


def _check_target(path: Path, target: Path, force: bool) -> None:
    """A copy must not replace its own store, or lie beside the log of another file, which would pass for the copy's."""
    store = path.resolve()
    if target.resolve() in {store, *(store.with_name(store.name + end) for end in (*_BESIDE, ".lock", ".turn"))}:
        raise UpkeepError(f"{target} belongs to the store itself; choose another name")
    if target.exists() and not force:
        raise UpkeepError(f"{target} is there already; choose another name, or --force to replace it")
    for end in _BESIDE:
        if target.with_name(target.name + end).exists():
            raise UpkeepError(
                f"{target}{end} is there: some program uses {target}, or died doing so; choose another name"
            )


@contextmanager
def told(what: str) -> Iterator[None]:
    """Errors of files and of SQLite as one line that begins with `what`."""
    try:
        yield
    except apsw.FullError:
        raise UpkeepError(f"{what}: the disk is full") from None
    except apsw.Error as error:
        raise UpkeepError(f"{what}: {error}") from None
    except OSError as error:
        raise UpkeepError(f"{what}: {error.strerror or error}") from None


def beside(target: Path) -> Path:
    """An empty file in the target's directory, for its owner's eyes only, that becomes the target once it is whole."""
    file, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=PART, dir=target.parent)
    os.close(file)
    return Path(name)


def reading(path: Path) -> apsw.Connection:
    """A connection that only reads. Raises UpkeepError if there is no file, or none that can be opened."""
    with told(f"{path} can't be read"):
        if restoring(path).exists():
            raise UpkeepError(f"a restore of {path} was broken off; run it again")
        if not path.is_file():
            raise UpkeepError(f"there is no store at {path}" if not path.exists() else f"{path} is no file")
        if not os.access(path, os.R_OK, effective_ids=True):  # of which SQLite says only that it is unable
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)  # with its log, which needs an index
        try:
            if path.with_name(path.name + "-wal").exists():  # who only looks leaves it as it is, for whoever looks next
                db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            db.set_busy_timeout(BUSY_MS)
            db.execute("PRAGMA query_only=ON").fetchall()
            db.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        except apsw.NotADBError:
            db.close()
            raise UpkeepError(f"{path} is not a Tidings store: it is no SQLite file") from None
        except (apsw.CantOpenError, apsw.ReadOnlyError):
            db.close()
            if path.with_name(path.name + "-wal").exists():
                raise
            return immutable(path)  # a place where nothing may be written; so nobody does
        except apsw.Error:
            db.close()
            raise
    return db


def immutable(path: Path) -> apsw.Connection:
    """A connection to a file that nobody writes: nothing is laid beside it."""
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    return apsw.Connection(f"file:{quote(str(path.absolute()))}?immutable=1", flags=flags)


def copy(source: Path, target: Path, on_progress: Progress) -> None:
    """Copy a store into an empty file, page by page out of one snapshot, and make that durable."""
    with closing(reading(source)) as db, closing(apsw.Connection(str(target))) as copied:
        for pragma in ("journal_mode=OFF", "synchronous=OFF"):  # it counts only once it is whole
            copied.execute(f"PRAGMA {pragma}").fetchall()
        db.execute("BEGIN").fetchall()
        identify(db, source)  # the first read: from here on the snapshot is held, over all steps
        with copied.backup("main", db, "main") as backup:
            while not backup.done:
                backup.step(_STEP_PAGES)
                on_progress(backup.page_count - backup.remaining, backup.page_count)
    sync(target)


def identify(db: apsw.Connection, path: Path) -> None:
    """Raises UpkeepError for the file of another program, or of a newer Tidings."""
    if db.execute("PRAGMA application_id").get != APPLICATION_ID:
        raise UpkeepError(f"{path} is not a Tidings store: it belongs to another program")
    version = db.execute("PRAGMA user_version").get
    if version > SCHEMA_VERSION:
        raise UpkeepError(
            f"{path} has schema version {version}; this Tidings knows {SCHEMA_VERSION}: use the newer program"
        )


def check(path: Path, how: str) -> tuple[int, int]:
    """The last position and timestamp of a copy that nobody writes. Raises UpkeepError if it is damaged."""
    with closing(immutable(path)) as db:
        try:
            problem = db.execute(f"PRAGMA {how}(1)").get
            clock = db.execute("SELECT position, timestamp FROM clock").get
        except apsw.CorruptError as error:
            problem, clock = str(error), None
    if problem != "ok" or clock is None:
        raise UpkeepError(f"what was copied is corrupt ({problem}); tidings doctor says more")
    return int(clock[0]), int(clock[1])


def _put(temporary: Path, target: Path, force: bool) -> None:
    """Give the whole file its name in one step: over what is there only by force."""
    if force:
        temporary.replace(target)
    else:
        try:
            os.link(temporary, target)
        except FileExistsError:
            raise UpkeepError(f"{target} is there already, since a moment ago") from None
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            temporary.rename(target)  # a file system without hard links
    sync(target.parent)


def sync(path: Path) -> None:
    """Make a file, or what a directory lists, survive a power cut."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        with suppress(OSError):
            os.close(file)
