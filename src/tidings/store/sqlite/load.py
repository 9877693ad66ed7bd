"""An export becomes a file: made beside its place, compared with the export, looked over, and put there in one step.

Positions are given anew, in the order of timestamps, behind those of the runs that come along: so what a cursor of such
a run says stays true. Copies, places and counts are made of the messages.
"""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import apsw

from tidings.errors import StartError, UpkeepError
from tidings.store.moving.file import Export, Progress
from tidings.store.moving.lines import Answer, End, Entry, Group, Message, Run, Tally, Trimmed, User, difference, packed
from tidings.store.sqlite.backup import PART, identify, reading, sync, told
from tidings.store.sqlite.doctor import examine
from tidings.store.sqlite.dump import made_of
from tidings.store.sqlite.file import Lock, lay_pages, lay_tables, random_run, restoring
from tidings.store.sqlite.mailboxes import ANY_POSITION, place_messages

NOT_KEPT = frozenset(("left",))  # stays that have ended
_BESIDE = ("-wal", "-shm", "-journal")
_TOGETHER = 500  # lines to a statement

_ARRIVED = """
CREATE TEMP TABLE arrived(
  mailbox TEXT, seq INTEGER, sender TEXT, sent_seq INTEGER, timestamp INTEGER, id TEXT, text TEXT,
  name BLOB, content BLOB)
"""
_MESSAGES = """
INSERT INTO messages SELECT ?1 + row_number() OVER (ORDER BY timestamp, mailbox),
  mailbox, seq, sender, sent_seq, timestamp, id, text FROM arrived ORDER BY timestamp, mailbox
"""
_ANSWERED = "CREATE TEMP TABLE answered(name BLOB, content BLOB, timestamp INTEGER, answer TEXT)"
# In the order of time, since the oldest leave by their numbers.
_KEYS = """
INSERT INTO keys (name, content, timestamp, position, answer)
SELECT name, arrived.content, messages.timestamp, position, NULL FROM arrived
  JOIN messages USING (timestamp, mailbox) WHERE name IS NOT NULL
UNION ALL SELECT name, content, timestamp, NULL, answer FROM answered ORDER BY 3
"""


def load(path: Path, export: Export, on_progress: Progress) -> tuple[End, bool]:
    """Make the file at `path` what the export has; gives what was counted there, and whether it was so already."""
    path = path.resolve()  # as the server does: one file has one lock
    made = path.with_name(f".{path.name}.import{PART}")
    with told(f"{path} can't be written"), _held(path):
        before = _look_at(path, export.head.export)
        if before:
            return export.check(lambda done: on_progress("looked over", done, export.size)), True
        _remove(made)
        try:
            end = _make(made, export, on_progress)
            _give_away(made, path)
            _remove(path, *_BESIDE)  # of a store without anything in it
            made.replace(path)
            sync(path.parent)
        finally:
            _remove(made)
    return end, False


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """The place is ours alone, as if we served what is there."""
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


def _look_at(path: Path, export: str) -> bool:
    """Whether this export is there already. Raises UpkeepError if anything else is."""
    if restoring(path).exists():
        raise UpkeepError(f"a restore of {path} was broken off; run it again")
    if not path.exists():
        return False
    with closing(reading(path)) as db:
        identify(db, path)
        has_history = db.execute("SELECT 1 FROM pragma_table_info('history') WHERE name = 'imported'").get
        if has_history and db.execute("SELECT imported FROM history").get == export:
            return True
        is_empty = all(
            db.execute(f"SELECT 1 FROM {table} LIMIT 1").get is None  # noqa: S608  # a name of ours
            for table in ("users", "groups", "messages", "keys", "trimmed")
        )
    if not is_empty:
        raise UpkeepError(f"there is a store at {path}, and it is not empty: an import needs a place of its own")
    return False


def _make(made: Path, export: Export, on_progress: Progress) -> End:
    """Fill a new file; it counts only once it is whole. Gives what was counted in it."""
    os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # nobody else's to read
    with closing(apsw.Connection(str(made))) as db:
        lay_pages(db)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        db.execute("BEGIN")
        lay_tables(db, export.head.generation)
        db.execute(_ARRIVED)
        db.execute(_ANSWERED)
        base = _take(db, export, on_progress)
        on_progress("put in order", 0, 0)
        _finish(db, export, base)
        db.execute("COMMIT")
    sync(made)
    on_progress("compared", 0, 0)
    tally = Tally()
    with made_of(made, export.head.export) as source:
        for line in source.lines():
            tally.add(line, packed(line))
        end = tally.end(source.clock)
    other = difference(export.end, end, without=NOT_KEPT)
    if other:
        raise UpkeepError(f"what was made of {export.path} is not what it has: {other}")
    faults = examine(made, lambda _: None).findings
    if faults:
        raise UpkeepError(f"what {export.path} has is no sound store: {faults[0].what} ({faults[0].examples[0]})")
    return end


def _take(db: apsw.Connection, export: Export, on_progress: Progress) -> int:
    """Take all lines in; gives the last position that the runs among them could give out."""
    base = 0
    lines = export.lines(on_bytes=lambda done: on_progress("read", done, export.size))
    while batch := list(islice(lines, _TOGETHER)):
        for query, rows in _rows([line for _, line in batch]).items():
            try:
                db.executemany(query, rows)
            except apsw.ConstraintError as error:
                first, last = batch[0][0], batch[-1][0]
                raise UpkeepError(
                    f"{export.path}, lines {first} to {last}: something is there twice ({error})"
                ) from None
        base = max([base, *(line.last for _, line in batch if isinstance(line, Run))])
    return base


def _rows(lines: list[Entry]) -> dict[str, list[tuple[Any, ...]]]:
    """What to insert, by statement."""
    rows: dict[str, list[tuple[Any, ...]]] = {}

    def add(table: str, *row: Any) -> None:
        rows.setdefault(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", []).append(row)  # noqa: S608

    for line in lines:
        match line:
            case Run():
                add("run", line.number, line.id, line.first)
            case Group():
                add("groups", line.group_id, line.group_name, line.members)
            case User():
                add("users", line.user_id, line.username)
                for other in line.blocks:
                    add("blocks", line.user_id, other)
                for stay in line.groups:
                    add("memberships", line.user_id, stay.group_id, stay.key, stay.joined_seq)
            case Trimmed():
                add("trimmed", line.mailbox, line.seq, line.timestamp)
            case Answer():
                name, content = bytes.fromhex(line.name), bytes.fromhex(line.content)
                add("answered", name, content, line.timestamp, line.answer)
            case Message():
                key = (bytes.fromhex(line.key.name), bytes.fromhex(line.key.content)) if line.key else (None, None)
                place = (line.mailbox, line.seq, line.sender_id, line.sent_seq or None)
                add("arrived", *place, line.timestamp, line.message_id, line.message, *key)
    return rows


def _finish(db: apsw.Connection, export: Export, base: int) -> None:
    """Put the messages in order behind a position, and make what follows from them."""
    db.execute(_MESSAGES, (base,))
    db.execute(_KEYS)
    last = db.execute("SELECT max(position) FROM messages").get or base
    number = db.execute("SELECT coalesce(max(number), 0) + 1 FROM run").get
    db.execute("INSERT INTO run VALUES (?, ?, ?)", (number, random_run(), base + 1))  # so that the one before it ends
    db.execute("UPDATE clock SET position = ?, timestamp = ?, forgotten = ?", (last, export.end.clock, base))
    place_messages(db, base, ANY_POSITION)
    db.execute("UPDATE clock SET placed = position")
    db.execute("UPDATE history SET imported = ?, feeds = ?", (export.head.export, export.head.feeds))


def _give_away(made: Path, path: Path) -> None:
    """What root makes belongs to whoever the store, or its directory, belongs to: the server must open it."""
    if os.geteuid() == 0:
        owner = (path if path.exists() else path.parent).stat()
        os.chown(made, owner.st_uid, owner.st_gid)


def _remove(path: Path, *ends: str) -> None:
    for end in ends or ("", *_BESIDE):
        path.with_name(path.name + end).unlink(missing_ok=True)
