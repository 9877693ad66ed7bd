"""A store moves: all that it holds becomes a file of JSON lines, and such a file another store.

A closed store takes no writes, so nothing that was acknowledged can come after its export, and the history goes on in
the other store under the same generation: cursors live. The export of an open store is a copy of one moment: it gets a
generation of its own, under which readers start over, knowingly.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Protocol

import msgspec

from tidings.errors import UpkeepError
from tidings.store.moving.file import Export, Progress, held, write
from tidings.store.moving.lines import End, Entry, Head


class Exported(msgspec.Struct, frozen=True, rename="camel"):
    """A store as a file: which export, of a closed store or not, and how much of what is in it."""

    file: str
    store: str
    export: str
    closed: bool
    bytes: int
    counts: dict[str, int]


class Imported(msgspec.Struct, frozen=True, rename="camel"):
    """A file that became a store; `already`: it had before. `counts` were counted in the store."""

    file: str
    store: str
    export: str
    closed: bool
    already: bool
    counts: dict[str, int]


class Opened(msgspec.Struct, frozen=True, rename="camel"):
    """A store that takes writes; whether it was closed until now."""

    store: str
    was_closed: bool


class Source(Protocol):
    """A store that is exported: its head, its lines, and after these the last timestamp that it gave out."""

    @property
    def head(self) -> Head:
        """The first line."""

    @property
    def clock(self) -> int:
        """In Unix ms; once all lines were taken."""

    def lines(self) -> Iterator[Entry]:
        """All between the first and the last line, sorted; memory stays bounded."""


def export_store(url: str, target: Path, *, close: bool, force: bool, on_progress: Progress) -> Exported:
    """Write a store into a file, whole or not at all; with `close`, it takes no writes from before the first line on.

    Killed, the same call does it again, or goes on. Raises UpkeepError, StartError.
    """
    if target.is_dir():
        raise UpkeepError(f"{target} is a directory; name the file that is to be written")
    before = _finished(target)
    if before is None and target.exists() and not force:
        raise UpkeepError(f"{target} is there already; choose another name, or --force to replace it")
    with _told(target), held(target) as part, _source(url, part, close, on_progress) as source:
        if before is not None and before[0] == source.head and source.head.closed:
            end = before[1]  # of a store that was closed then, so it is all there
            part.unlink()
        elif before is not None and not force:
            raise UpkeepError(f"{target} is there already; choose another name, or --force to replace it")
        else:
            end = write(part, source.head, source.lines(), lambda: source.clock, lambda n: on_progress("lines", n, 0))
            part.replace(target)
            _sync(target.absolute().parent)
        head = source.head
    return Exported(str(target), url, head.export, head.closed, target.stat().st_size, end.counts)


def import_store(url: str, file: Path, on_progress: Progress) -> Imported:
    """Make a file a store, in a place where none is; killed at any moment, the same call goes on or begins anew.

    Nothing is begun with a file that is bad anywhere, and nobody can serve the store before it is whole and was
    compared with the file. Raises UpkeepError, StartError.
    """
    with closing(Export(file)) as export:
        if url.startswith("dynamodb:"):
            from tidings.store.dynamodb.load import load as load_tables

            end, already = load_tables(url, export, on_progress)
        else:
            from tidings.store.sqlite.file import path_of
            from tidings.store.sqlite.load import load as load_file

            end, already = load_file(path_of(url), export, on_progress)
        head = export.head
    return Imported(str(file), url, head.export, head.closed, already, end.counts)


def open_again(url: str) -> Opened:
    """Let a store that was closed take writes again."""
    if url.startswith("dynamodb:"):
        from tidings.store.dynamodb.closing import open_again as open_tables

        return Opened(url, open_tables(url))
    from tidings.store.sqlite.closing import open_again as open_file
    from tidings.store.sqlite.file import path_of

    return Opened(url, open_file(path_of(url)))


def _source(url: str, part: Path, close: bool, on_progress: Progress) -> AbstractContextManager[Source]:
    if url.startswith("dynamodb:"):
        from tidings.store.dynamodb.dump import tables_of

        return tables_of(url, part, close, on_progress)
    from tidings.store.sqlite.dump import file_of
    from tidings.store.sqlite.file import path_of

    return file_of(path_of(url), close)


def _finished(target: Path) -> tuple[Head, End] | None:
    """The first and last line of an export that is there and whole."""
    if not target.is_file():
        return None
    try:
        with closing(Export(target)) as export:
            return export.head, export.check()
    except UpkeepError:
        return None


def _sync(directory: Path) -> None:
    from tidings.store.sqlite.backup import sync

    sync(directory)


def _told(target: Path) -> AbstractContextManager[None]:
    from tidings.store.sqlite.backup import told

    return told(f"{target} can't be written")
