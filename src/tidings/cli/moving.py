"""`tidings export`, `tidings import` and `tidings store open`: a store becomes a file, and a file a store elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidings.cli.exits import FAILED
from tidings.cli.flags import variable
from tidings.cli.upkeep import STORE, Json, mb, telling
from tidings.config import Settings
from tidings.errors import no_driver

if TYPE_CHECKING:
    from tidings.store.moving import Exported, Imported
    from tidings.store.moving.file import Progress

_LONG = 8_000_000  # bytes of a file, which take a moment; less is done before a bar is drawn
_ONE = {
    name: name.removesuffix("s") for name in ("runs", "groups", "users", "blocks", "memberships", "keys", "messages")
}
_ONE["copies"] = "copy"

Store = Annotated[
    str,
    typer.Option(
        "--store",
        envvar=variable("store"),
        metavar="URL",
        help="The store: sqlite:///relative/path, or dynamodb://REGION/PREFIX.",
    ),
]
Target = Annotated[Path, typer.Argument(metavar="FILE", help="The file to write: one JSON object a line.")]
Source = Annotated[Path, typer.Argument(metavar="FILE", help="A file that tidings export wrote.")]
Close = Annotated[bool, typer.Option("--close", help="Take no writes from now on, so that nothing is left behind.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]


def export(
    target: Target, store: Store = STORE, close: Close = False, force: Force = False, as_json: Json = False
) -> int:
    """Write all that a store has into a file, from which `tidings import` makes another store, of either kind.

    With --close, the store takes no writes from then on (503, store_closed); reads go on. Then clients' cursors are
    good for the store that is made of the file. Without, it is a copy of one moment, whose readers start over. A store
    on DynamoDB must be closed for it. The file is for its owner's eyes only: all messages are in it.
    """
    from tidings.store.moving import export_store

    with telling(as_json, FAILED) as told, _progress() as progress:
        made = export_store(_checked(store), target, close=close, force=force, on_progress=progress)
        told.show(made, _exported(made))
    return told.code


def import_(file: Source, store: Store = STORE, as_json: Json = False) -> int:
    """Make a store of a file that `tidings export` wrote, where none is.

    The store can be served once all is there and was compared with the file. If this ends before, for whatever reason,
    the same command goes on.
    """
    from tidings.store.moving import import_store

    with telling(as_json, FAILED) as told, _progress() as progress:
        made = import_store(_checked(store), file, progress)
        told.show(made, _imported(made))
    return told.code


def open_again(store: Store = STORE, as_json: Json = False) -> int:
    """Let a store take writes again that an export closed.

    Only if no store that was made of that export is served, or was: two that go on from one history tear it apart.
    """
    from tidings.store.moving import open_again

    with telling(as_json, FAILED) as told:
        opened = open_again(_checked(store))
        words = "takes writes again" if opened.was_closed else "takes writes: it was not closed"
        told.show(opened, f"{opened.store} {words}")
    return told.code


def _checked(store: str) -> str:
    if not store.startswith("dynamodb:"):
        return Settings(store=store).store
    try:
        from tidings.store.dynamodb.address import address_of
        from tidings.store.dynamodb.driver import connected as _  # noqa: F401  # whether what it takes is installed
    except ImportError:
        raise no_driver() from None
    address_of(store)
    return store


@contextmanager
def _progress() -> Iterator["Progress"]:
    """What is done now, on a terminal's stderr: a bar where it is known how much there is."""
    with ExitStack() as stack:
        bar: list[Any] = []

        def progress(what: str, done: int, total: int) -> None:
            if not sys.stderr.isatty() or 0 < total < _LONG:
                return
            if not bar:
                from rich.console import Console
                from rich.progress import Progress

                shown = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
                bar.extend((shown, shown.add_task(what)))
            shown, task = bar
            counted = f"{what} {done:,}" if done and not total else what
            shown.update(task, description=counted, total=total or None, completed=done)

        yield progress


def _exported(made: "Exported") -> str:
    told = "It takes no writes from now on." if made.closed else "It goes on; what comes later is not in the file."
    return f"{made.file}: {mb(made.bytes)}, {_counted(made.counts)}\n{told}"


def _imported(made: "Imported") -> str:
    did = "was made of this file before; the file has" if made.already else "is what the file has:"
    told = "Cursors go on." if made.closed else "It is a copy of one moment, and its readers start over."
    return f"{made.store} {did} {_counted(made.counts)}\n{told}"


def _counted(counts: dict[str, int]) -> str:
    told = [f"{count:,} {_ONE.get(name, name) if count == 1 else name}" for name, count in counts.items() if count]
    return ", ".join(told) or "nothing"
