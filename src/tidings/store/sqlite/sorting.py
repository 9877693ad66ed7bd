"""Things put in order on disk, so that memory stays flat; killed at any moment, it goes on where it was saved last.

For whoever gets them in no order, and more of them than memory holds: what a DynamoDB server gives of its tables.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import apsw

_CACHE_KB = 16_000

_TABLES = """
CREATE TABLE IF NOT EXISTS things(box TEXT, place, thing BLOB NOT NULL, PRIMARY KEY (box, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class Sorting:
    """A file with things by box and place in it (numbers before texts), and notes of how far one is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = apsw.Connection(str(path))
        for pragma in ("journal_mode=WAL", "synchronous=OFF", f"cache_size=-{_CACHE_KB}"):  # a power cut: from anew
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        for _ in self._db.execute(_TABLES):
            pass

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def remove(self) -> None:
        """Let go of it, and delete it."""
        self._db.close()
        remove(self._path)

    def save(self, things: Iterable[tuple[str, int | str, bytes]], notes: dict[str, str]) -> None:
        """Put things in, over what is in their place, and notes; all of it or nothing."""
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO things VALUES (?, ?, ?)", things)
            self._db.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?)", notes.items())

    def note(self, name: str) -> str | None:
        """What was noted."""
        found = self._db.execute("SELECT value FROM notes WHERE name = ?", (name,)).get
        return None if found is None else str(found)

    def find(self, box: str, place: int | str) -> bytes | None:
        """One thing."""
        found: bytes | None = self._db.execute("SELECT thing FROM things WHERE box = ? AND place = ?", (box, place)).get
        return found

    def things(self, first: str) -> Iterator[tuple[str, Any, bytes]]:
        """All whose box begins with something, in order."""
        rows: Iterator[Any] = self._db.cursor().execute(
            "SELECT box, place, thing FROM things WHERE box >= ?1 AND box < ?1 || char(1114111) ORDER BY box, place",
            (first,),
        )
        return rows


def remove(path: Path) -> None:
    """Delete such a file."""
    for end in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + end).unlink(missing_ok=True)
