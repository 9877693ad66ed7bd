"""`tidings backup`, `restore`, `doctor` and `check-history`: looking after a store, with or without a server on it."""

import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from tidings.cli.exits import FAILED, WRONG_USE, complain
from tidings.cli.flags import variable
from tidings.config import Settings
from tidings.errors import StartError, UpkeepError, no_driver

if TYPE_CHECKING:
    from tidings.store.upkeep import Examination, Prepared, Progress, Step

_LONG_PAGES = 16_384  # 32 MB, which takes a moment; less is done before a bar is drawn

Store = Annotated[
    str,
    typer.Option(
        "--store",
        envvar=variable("store"),
        metavar="URL",
        help="The store: sqlite:///relative/path, or //// and an absolute one.",
    ),
]
AnyStore = Annotated[
    str,
    typer.Option(
        "--store",
        envvar=variable("store"),
        metavar="URL",
        help="The store: sqlite:///relative/path, or //// and an absolute one, or dynamodb://REGION/PREFIX.",
    ),
]
STORE = Settings.store
Tables = Annotated[
    str,
    typer.Option(
        "--store",
        envvar=variable("store"),
        metavar="URL",
        help="Where: dynamodb://REGION/PREFIX, with ?endpoint=URL for another server of that API.",
    ),
]
Days = Annotated[
    int | None,
    typer.Option(
        "--retention-days",
        envvar=variable("retention_days"),
        metavar="DAYS",
        help="For how many days messages are kept, 0: for ever; without it, as before.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Answer, and errors too, as JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]
ForceAside = Annotated[bool, typer.Option("--force", help="Replace a store that is there; it is kept aside.")]
Target = Annotated[
    Path, typer.Argument(metavar="TARGET", help="The file to write, or a directory for one with the time in its name.")
]
Backup = Annotated[Path, typer.Argument(metavar="BACKUP", help="A file that tidings backup wrote.")]
Looked = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="A backup to look over, instead of the store.", show_default=False),
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A history: one JSON object a line (docs/testing.md).")]


def backup(target: Target, store: Store = STORE, force: Force = False, as_json: Json = False) -> int:
    """Copy the store, as it is at one moment, while it is served or not.

    The copy is checked, and is there whole or not at all. It is for its owner's eyes only: all messages are in it.
    """
    from tidings.store.upkeep import back_up

    with telling(as_json, FAILED) as told, _bar("copied") as progress:
        made = back_up(_checked(store), target, force=force, on_progress=progress)
        told.show(made, f"{made.backup}: {mb(made.bytes)}, everything up to position {made.position:,}")
    return told.code


def restore(backup: Backup, store: Store = STORE, force: ForceAside = False, as_json: Json = False) -> int:
    """Put a copy back as the store, which no server may hold meanwhile.

    Readers who come with an older cursor are told to start over (410), since what came after the copy is lost.
    """
    from tidings.store.upkeep import restore

    with telling(as_json, FAILED) as told, _bar("copied") as progress:
        done = restore(_checked(store), backup, force=force, on_progress=progress)
        kept = f"\nThe store that was there is kept: {done.kept}" if done.kept else ""
        told.show(done, f"{done.store} is what {done.backup} has, up to position {done.position:,}{kept}")
    return told.code


def doctor(file: Looked = None, store: AnyStore = STORE, as_json: Json = False) -> int:
    """Look a store, or a backup, over: for damage, holes, wrong order, orphans; while it is served or not.

    A store on DynamoDB is read once from end to end, which is paid by its size, and more than once where it refers.

    Ends with 0 if nothing is wrong, with 1 if something is, with 2 if it could not look. Nothing is changed.
    """
    from tidings.store.upkeep import examine

    with telling(as_json, WRONG_USE) as told:
        is_away = store.startswith("dynamodb:") and not file
        with _status() as status, _driver():
            found = examine(f"sqlite:///{quote(str(file))}" if file else store if is_away else _checked(store), status)
        told.show(found, _diagnosis(found))
        told.code = FAILED if found.findings else 0
    return told.code


def init(store: Tables, retention_days: Days = None, as_json: Json = False) -> int:
    """Make the tables of a store on DynamoDB; where they are there already, check that they are what they must be.

    They are paid by use, with point-in-time recovery where the server knows it. A SQLite store needs none: its file is
    made when it is first served.
    """
    from tidings.store.upkeep import prepare

    with telling(as_json, FAILED) as told:
        if not store.startswith("dynamodb:"):
            raise StartError("only a store on DynamoDB is made beforehand; a SQLite store is made when it is served")
        with _driver():
            made = prepare(store, None if retention_days is None else _days(store, retention_days))
        told.show(made, _preparation(made))
    return told.code


def check_history(file: File, as_json: Json = False) -> int:
    """Judge what clients sent and were given: which promise was broken, and by which events.

    Ends with 0 if nothing is wrong, with 1 if something is, with 2 if the file is no history.
    """
    from tidings.history import check, read_history

    with telling(as_json, WRONG_USE) as told:
        try:
            verdict = check(read_history(file))
        except ValueError as error:
            raise UpkeepError(str(error)) from None
        anomalies = [{"kind": a.kind, "text": a.text, "events": a.events} for a in verdict.anomalies]
        told.show({"counts": dict(verdict.counts), "anomalies": anomalies}, verdict.report())
        told.code = 0 if verdict else FAILED
    return told.code


class _Told:
    """What was done, told as JSON or in words; and the exit code."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self.code = 0

    def show(self, value: Any, words: str) -> None:
        import msgspec

        try:
            sys.stdout.write((msgspec.json.encode(value).decode() if self._as_json else words) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:  # who read our output has gone, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be flushed at the end
        except OSError as error:
            raise UpkeepError(f"it is done, and can't be told: {error.strerror}") from None


@contextmanager
def telling(as_json: bool, code: int) -> Iterator[_Told]:
    """What goes wrong becomes one line and an exit code. SIGTERM ends it as Ctrl-C does, with nothing half left."""
    told = _Told(as_json)
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield told
    except (UpkeepError, StartError, OSError) as error:
        told.code = WRONG_USE if isinstance(error, StartError) else code  # a --store that names none
        detail = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        if as_json:
            import msgspec

            sys.stderr.write(msgspec.json.encode({"detail": detail}).decode() + "\n")
        else:
            complain(detail, told.code)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _driver() -> Iterator[None]:
    """Says what is to be installed for a store on DynamoDB, if it is not."""
    try:
        yield
    except ImportError:
        raise no_driver() from None


def _checked(store: str) -> str:
    if store.startswith("dynamodb:"):
        raise StartError("this is for a SQLite store; DynamoDB has backups of its own (point-in-time recovery)")
    return Settings(store=store).store


@contextmanager
def _bar(what: str) -> Iterator["Progress"]:
    """A bar on a terminal's stderr, if there is much to do."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        advance: list[Any] = []

        def progress(done: int, total: int) -> None:
            if total < _LONG_PAGES or not sys.stderr.isatty():
                return
            if not advance:
                from rich.console import Console
                from rich.progress import Progress

                bar = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
                task = bar.add_task(what, total=total)
                advance.append(lambda done: bar.update(task, completed=done))
            advance[0](done)

        yield progress


@contextmanager
def _status() -> Iterator["Step"]:
    """Says on a terminal's stderr what is looked for now."""

    def status(name: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{name and f'looking for: {name}'}\r")
            sys.stderr.flush()

    yield status
    status("")


def _days(store: str, retention_days: int) -> int:
    """Checked as a node checks it, which needs a feed; any will do."""
    return Settings(store=store, feed="redis://127.0.0.1", retention_days=retention_days).retention_days


def _preparation(made: "Prepared") -> str:
    lines = [f"{table}: {'made' if table in made.made else 'is there, and as it must be'}" for table in made.tables]
    if not made.point_in_time_recovery:
        lines.append("This server keeps no backups of its own (no point-in-time recovery).")
    if not made.expiry:
        lines.append("This server lets nothing expire: idempotency keys stay.")
    if made.retention_days:
        lines.append(f"Messages are kept for {made.retention_days:,} days.")
    return "\n".join(lines)


def _diagnosis(found: "Examination") -> str:
    rows = ", ".join(f"{count:,} {name}" for name, count in found.rows.items())
    lines = [f"{found.store}: {rows}" if rows else found.store]
    for finding in found.findings:
        lines += ["", f"{finding.kind}: {finding.what} ({finding.count:,})"]
        lines += [f"  {example}" for example in finding.examples]
        if finding.count > len(finding.examples):
            lines.append(f"  and {finding.count - len(finding.examples):,} more")
        lines.append(f"  What to do: {finding.advice}")
    if not found.findings:
        lines.append(f"Nothing is wrong with it: looked for {', '.join(found.looked_for)}.")
    return "\n".join(lines)


def mb(count: int) -> str:
    """A size for people."""
    return f"{math.ceil(count / 1e5) / 10:,.1f} MB"
