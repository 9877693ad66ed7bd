"""What is done to a whole store, while it is served or not: keep a copy, put one back, look for faults.

By the store's URL, as `open_store`; each raises UpkeepError, in one line, for what it can't do.
"""

from collections.abc import Callable
from pathlib import Path

import msgspec

Progress = Callable[[int, int], None]  # so much of so much is copied
Step = Callable[[str], None]  # what is looked at now


class BackedUp(msgspec.Struct, frozen=True, rename="camel"):
    """A copy of one moment: where, how many bytes, and the last position and timestamp (Unix ms) in it."""

    backup: str
    bytes: int
    position: int
    timestamp: int


class Restored(msgspec.Struct, frozen=True, rename="camel"):
    """A store put back from a copy; `kept` is where the one before it lies, None if there was none."""

    store: str
    backup: str
    kept: str | None
    position: int
    timestamp: int


class Finding(msgspec.Struct, frozen=True):
    """A kind of fault: in how many places, the first of them (ids and numbers, never text), and what to do."""

    kind: str
    what: str
    count: int
    examples: tuple[str, ...]
    advice: str


class Examination(msgspec.Struct, frozen=True):
    """What was looked at, and what was found."""

    store: str
    rows: dict[str, int]
    looked_for: tuple[str, ...]
    findings: tuple[Finding, ...]


class Prepared(msgspec.Struct, frozen=True, rename="camel"):
    """The tables of a store; which of them were made just now; whether the server keeps backups and expires keys.

    And for how many days messages are kept, 0: for ever.
    """

    store: str
    tables: list[str]
    made: list[str]
    point_in_time_recovery: bool
    expiry: bool
    retention_days: int


def prepare(url: str, retention_days: int | None) -> Prepared:
    """Make the tables of a store on DynamoDB, or check those that are there; None: messages are kept as before."""
    import asyncio

    from tidings.store.dynamodb.address import address_of
    from tidings.store.dynamodb.setup import prepare

    return asyncio.run(prepare(address_of(url), url, retention_days))


def back_up(url: str, target: Path, *, force: bool, on_progress: Progress) -> BackedUp:
    """Write a copy of one moment, checked, whole or not at all; into a directory under a name that tells the time.

    Never over a file that is there, unless `force`.
    """
    from tidings.store.sqlite.backup import back_up  # a driver is imported only when asked for
    from tidings.store.sqlite.file import path_of

    return back_up(path_of(url), target, force=force, on_progress=on_progress)


def restore(url: str, backup: Path, *, force: bool, on_progress: Progress) -> Restored:
    """Put a copy back as a new generation: every cursor minted before is told so (410).

    Never while a server holds the store, and over a store that is there only by `force`, which keeps that one aside.
    """
    from tidings.store.sqlite.file import path_of
    from tidings.store.sqlite.restore import restore

    return restore(path_of(url), backup, force=force, on_progress=on_progress)


def examine(url: str, on_step: Step) -> Examination:
    """Look for everything that no store should have; of a SQLite store in one snapshot. Nothing is changed."""
    if url.startswith("dynamodb:"):
        return _examine_tables(url, on_step)
    from tidings.store.sqlite.doctor import examine
    from tidings.store.sqlite.file import path_of

    return examine(path_of(url), on_step)


def _examine_tables(url: str, on_step: Step) -> Examination:
    import asyncio

    from tidings.store.dynamodb.address import address_of
    from tidings.store.dynamodb.doctor import examine

    return asyncio.run(examine(address_of(url), url, on_step))
