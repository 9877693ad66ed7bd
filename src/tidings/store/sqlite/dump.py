"""What a file holds, as the lines of an export: out of one snapshot, while it is served or not; memory stays flat."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import apsw

from tidings.store.moving.lines import (
    FORMAT,
    KEYS_MS,
    VERSION,
    Answer,
    Entry,
    Group,
    Head,
    Intent,
    Message,
    Run,
    Stay,
    Trimmed,
    User,
)
from tidings.store.sqlite.backup import immutable, reading, told
from tidings.store.sqlite.closing import check_version, close_for
from tidings.store.sqlite.file import random_64

T = TypeVar("T")

_RUNS = """
SELECT number, id, first, lead(first, 1, (SELECT position + 1 FROM clock)) OVER (ORDER BY number) - 1
FROM run ORDER BY number
"""
_STAYS = """
SELECT user_id, group_id, groups.name, key, joined_seq FROM memberships CROSS JOIN groups ON groups.id = group_id
ORDER BY user_id, group_id
"""
_ANSWERS = """
SELECT lower(hex(name)), lower(hex(content)), answer, timestamp FROM keys
WHERE answer IS NOT NULL AND timestamp > ? ORDER BY name
"""
# SQLite makes an index for the keys by itself, and sorts on disk.
_MESSAGES = """
SELECT mailbox, seq, sender, messages.timestamp, id, text, sent_seq, lower(hex(name)), lower(hex(content))
FROM messages LEFT JOIN (SELECT position, name, content FROM keys WHERE position IS NOT NULL AND timestamp > ?) AS used
  ON used.position = messages.position
ORDER BY mailbox, seq
"""


class FileSource:
    """A snapshot of a file. See `tidings.store.moving.Source`."""

    def __init__(self, db: apsw.Connection, export: str, *, closed: bool, made_here: bool = False) -> None:
        self._db = db
        self._made_here = made_here  # a file that an import is making: its last run is the import's own
        generation, feeds = db.execute("SELECT generation, feeds FROM history").get
        self.head = Head(
            format=FORMAT,
            version=VERSION,
            export=export,
            generation=generation if closed else random_64(),
            closed=closed,
            feeds=bool(feeds),
        )
        self.clock = int(db.execute("SELECT timestamp FROM clock").get)

    def lines(self) -> Iterator[Entry]:
        """All of it."""
        db, old = self._db, self.clock - KEYS_MS
        runs: list[Any] = db.execute(_RUNS).fetchall()
        for run in runs[:-1] if self._made_here else runs:
            yield Run(*run)
        for group in self._rows("SELECT id, name, members FROM groups ORDER BY id"):
            yield Group(*group)
        yield from self._users()
        for answer in self._rows(_ANSWERS, old):
            yield Answer(*answer)
        for trimmed in self._rows("SELECT mailbox, seq, timestamp FROM trimmed ORDER BY mailbox"):
            yield Trimmed(*trimmed)
        for *message, sent_seq, name, content in self._rows(_MESSAGES, old):
            mailbox, seq, sender, timestamp, message_id, text = message
            key = Intent(name, content) if name else None
            yield Message(mailbox, seq, sender, timestamp, message_id, text, sent_seq or 0, key)

    def _users(self) -> Iterator[User]:
        blocks = _Beside(self._rows("SELECT user_id, other_id FROM blocks ORDER BY 1, 2"), lambda row: row[1])
        stays = _Beside(self._rows(_STAYS), lambda row: Stay(*row[1:]))
        for user_id, name in self._rows("SELECT id, name FROM users ORDER BY id"):
            yield User(user_id, name, blocks.of(user_id), stays.of(user_id))

    def _rows(self, query: str, *bindings: int) -> Iterator[Any]:
        rows: Iterator[Any] = self._db.cursor().execute(query, bindings)
        return rows


class _Beside(Generic[T]):
    """Rows that begin with a user's id, in the order of these, taken beside the users themselves."""

    def __init__(self, rows: Iterator[Any], made: Callable[[Any], T]) -> None:
        self._rows = rows
        self._made = made
        self._next = next(rows, None)

    def of(self, user_id: str) -> list[T]:
        """Those of one user; of nobody's, which only a damaged store has, none are given."""
        found = []
        while self._next is not None and self._next[0] <= user_id:
            if self._next[0] == user_id:
                found.append(self._made(self._next))
            self._next = next(self._rows, None)
        return found


@contextmanager
def file_of(path: Path, close: bool) -> Iterator[FileSource]:
    """A store's file as it is now; with `close`, as it stays. Raises UpkeepError."""
    with closing(reading(path)) as db:
        check_version(db, path)
    with told(f"{path} can't be read"):
        closed_for = close_for(path) if close else None
        with closing(reading(path)) as db:
            db.execute("PRAGMA temp_store=FILE").fetchall()  # sorting may take more memory than there is
            db.execute("BEGIN").fetchall()
            mark = db.execute("SELECT closed FROM history").get  # the first read: from here on the snapshot is held
            is_closed = mark is not None and (closed_for is None or mark == closed_for)
            yield FileSource(db, mark if is_closed else secrets.token_hex(16), closed=is_closed)


@contextmanager
def made_of(path: Path, export: str) -> Iterator[FileSource]:
    """A file that an import has just made, and nobody else has opened."""
    with closing(immutable(path)) as db:
        db.execute("PRAGMA temp_store=FILE").fetchall()
        yield FileSource(db, export, closed=True, made_here=True)
