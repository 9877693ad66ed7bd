"""The store's file: who may open it, what it must look like, and the run that each server start writes into it."""

import fcntl
import os
import secrets
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote

import apsw

from tidings.errors import StartError
from tidings.store.sqlite.mailboxes import place_all

APPLICATION_ID = 0x54494431  # "TID1", so that another program's file is told from ours
SCHEMA_VERSION = 3
WAL_MAX_BYTES = 64 << 20  # beyond it a checkpoint waits for the readers of the moment, so that the log starts over
# A commit writes whole pages to the log, and few bytes in many of them: half of SQLite's usual size lets one process
# send a tenth more (measured; 1,024 gave no more).
PAGE_BYTES = 2_048
_WAL_PAGES = (32 << 20) // PAGE_BYTES  # between checkpoints, so that a page written often is copied back once
BUSY_MS = 5_000  # longer than any commit or checkpoint takes


def path_of(url: str) -> Path:
    """The file a `sqlite:///` URL names."""
    return Path(unquote(url.removeprefix("sqlite:///")))


def connect(path: Path, *, readonly: bool = False) -> apsw.Connection:
    """A connection with the pragmas that the promises rest on; `synchronous=FULL` is what makes a commit durable."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    db.set_busy_timeout(BUSY_MS)
    bounds = (f"wal_autocheckpoint={_WAL_PAGES}", f"journal_size_limit={WAL_MAX_BYTES}")
    for pragma in ("synchronous=FULL", "secure_delete=ON", "temp_store=MEMORY", *bounds):
        db.execute(f"PRAGMA {pragma}").fetchall()
    if readonly:
        db.execute("PRAGMA query_only=ON").fetchall()
    return db


def random_64() -> int:
    """64 random bits as SQLite keeps them: signed, and never 0."""
    return int.from_bytes(secrets.token_bytes(8), "big", signed=True) or 1


def random_run() -> int:
    """A number for a run: even, since those of feeds are odd, and a store that was on many nodes tells them apart."""
    return random_64() & ~1 or 2


class Lock:
    """The server's hold on its store: exclusive for one process, shared among the workers of one server.

    It is an flock on a file beside the store, since closing any descriptor of the store's own file would drop
    SQLite's locks. Raises StartError if another server holds it.
    """

    def __init__(self, path: Path, *, shared: bool) -> None:
        self._path = path
        self._file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take(fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        except StartError:
            os.close(self._file)
            raise

    def share(self) -> None:
        """Go over from exclusive to shared, so that workers can join.

        The change is not atomic (flock(2)): should another server slip in between, this one gives up.
        """
        self._take(fcntl.LOCK_SH)

    def release(self) -> None:
        """Let go; the file stays."""
        os.close(self._file)

    def _take(self, kind: int) -> None:
        try:
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(f"another server is serving {self._path}; one file has one server") from None


def restoring(path: Path) -> Path:
    """What lies beside a store while its files are exchanged: the name under which the old ones are kept."""
    return path.with_name(path.name + ".restoring")


def open_file(path: Path) -> apsw.Connection:
    """A writing connection to a store of this version, made if there is none. Raises StartError in one line."""
    if restoring(path).exists():
        raise StartError(f"a restore of {path} was broken off; run it again")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # nobody else's to read; its log and index take the same mode
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        return _checked(path)
    except apsw.NotADBError:
        raise StartError(f"{path} is not a Tidings store: it is no SQLite file") from None
    except apsw.CorruptError as error:
        raise StartError(f"{path} is corrupt ({error}); restore a backup, or move it away to begin anew") from None
    except apsw.FullError:
        raise StartError(f"the disk is full: {path} can't be opened for writing") from None
    except (apsw.Error, OSError) as error:
        raise StartError(f"{path} can't be opened: {error}") from None


def _checked(path: Path) -> apsw.Connection:
    db = connect(path)
    application = db.execute("PRAGMA application_id").get
    version = db.execute("PRAGMA user_version").get
    is_empty = db.execute("SELECT count(*) FROM sqlite_schema").get == 0
    if application == 0 and version == 0 and is_empty:
        _make(db)
    elif application != APPLICATION_ID:
        raise StartError(f"{path} is not a Tidings store: it belongs to another program")
    elif version > SCHEMA_VERSION:
        raise StartError(
            f"{path} has schema version {version}; this Tidings knows {SCHEMA_VERSION}: use the newer program"
        )
    if db.execute("PRAGMA journal_mode=WAL").get != "wal":
        raise StartError(f"{path} can't use a write-ahead log; is it on a network file system?")
    db.execute("SELECT generation FROM history WHERE one = 1").fetchall()
    if 0 < version < SCHEMA_VERSION:
        with db:  # one transaction, so a crash leaves no half
            if version == 1:
                _bring_forward_1(db)
            _bring_forward_2(db)
            db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    return db


def _bring_forward_1(db: apsw.Connection) -> None:
    """From version 1, where two indexes had what is in `places` now."""
    db.execute("ALTER TABLE clock RENAME TO clock_1")
    for table in ("clock", "places"):
        _make_table(db, table)
    db.execute("INSERT INTO clock SELECT one, position, timestamp, forgotten, 0 FROM clock_1")
    for old in ("TABLE clock_1", "INDEX messages_by_mailbox", "INDEX messages_by_sender"):
        db.execute(f"DROP {old}")
    place_all(db)


def _bring_forward_2(db: apsw.Connection) -> None:
    """From version 2, which knew of no exports."""
    db.execute("ALTER TABLE history RENAME TO history_2")
    _make_table(db, "history")
    db.execute("INSERT INTO history (one, generation) SELECT one, generation FROM history_2")
    db.execute("DROP TABLE history_2")


def _make_table(db: apsw.Connection, table: str) -> None:
    _, begin, rest = _schema().partition(f"CREATE TABLE {table}(")
    db.execute(begin + rest.partition(";")[0])


def _schema() -> str:
    return files("tidings.store.sqlite").joinpath("schema.sql").read_text()


def _make(db: apsw.Connection) -> None:
    lay_pages(db)
    db.execute("PRAGMA journal_mode=WAL").fetchall()
    with db:
        lay_tables(db, random_64())


def lay_pages(db: apsw.Connection) -> None:
    """The settings of a new file, which come before its first page."""
    db.execute(f"PRAGMA page_size={PAGE_BYTES}").fetchall()
    db.execute("PRAGMA auto_vacuum=INCREMENTAL").fetchall()


def lay_tables(db: apsw.Connection, generation: int) -> None:
    """An empty store, inside one transaction, so that a crash leaves no half."""
    for _ in db.execute(_schema()):
        pass
    db.execute("INSERT INTO history (one, generation) VALUES (1, ?)", (generation,))
    db.execute("INSERT INTO clock VALUES (1, 0, 0, 0, 0)")
    db.execute(f"PRAGMA application_id={APPLICATION_ID}")
    db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def begin_run(db: apsw.Connection, lag_max: int = 0) -> int:
    """Write this server start into the store, and give its random number; see `place_all` for `lag_max`."""
    run = random_run()
    with db:
        db.execute("INSERT INTO run (id, first) SELECT ?, position + 1 FROM clock", (run,))
        place_all(db, lag_max)
    return run


def last_run(db: apsw.Connection) -> int:
    """The number of the latest server start."""
    found = db.execute("SELECT id FROM run ORDER BY number DESC LIMIT 1").get
    return int(found) if found is not None else 0
