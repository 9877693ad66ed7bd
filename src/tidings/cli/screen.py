"""What commands print: sentences for people at a terminal, bare fields for pipes, JSON for programs."""

import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tidings.cli.visible import visible
from tidings.errors import TidingsError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text


class Screen:
    """Standard output, in one of three ways; every line is flushed, so that what was printed has left."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.is_for_people = not as_json and sys.stdout.isatty()
        self._console: Console | None = None
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter shows its number

    def json(self, value: object) -> None:
        """A value in one line, in UTF-8 whatever the terminal speaks (RFC 8259)."""
        import msgspec

        sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
        sys.stdout.flush()

    def fields(self, *values: str) -> None:
        """A line for pipes: values, tabs between them."""
        sys.stdout.write("\t".join(visible(value) for value in values) + "\n")
        sys.stdout.flush()

    @property
    def console(self) -> "Console":
        """What shows things to people."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(highlight=False, soft_wrap=False)
        return self._console

    def show(self, what: "RenderableType") -> None:
        """Something for people."""
        self.console.print(what)

    def say(self, *parts: str) -> None:
        """A sentence for people; every second part is somebody's own words or an id, and stands out."""
        from rich.text import Text

        text = Text()
        for index, part in enumerate(parts):
            text.append(visible(part), "bold" if index % 2 else "")
        self.show(text)

    def rows(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """Names with their ids, for people."""
        from rich.table import Table

        if not rows:
            self.say(f"{title}: none")
            return
        table = Table.grid(padding=(0, 2, 0, 0))
        for is_id in (False, False, True):
            table.add_column(no_wrap=is_id, overflow="fold")  # an id is whole, whatever else has to give way
        for name, identity in rows:
            table.add_row("", styled(name, "bold"), styled(identity, "dim"))
        self.say(f"{title}:")
        self.show(table)

    def done(self, *sentence: str) -> None:
        """That a change without an answer was made: a sentence for people, nothing for pipes."""
        if self.as_json:
            self.json({})
        elif self.is_for_people:
            self.say(*sentence)

    def note(self, text: str) -> None:
        """Something beside the answer, on stderr."""
        sys.stderr.write(f"tidings: {visible(text)}\n")
        sys.stderr.flush()

    @staticmethod
    def error(error: TidingsError) -> None:
        """An error for programs, on stderr."""
        import msgspec

        shown = {"code": error.code, "detail": error.detail, "status": error.status, "retry": error.retry_s is not None}
        sys.stderr.write(msgspec.json.encode(shown).decode() + "\n")


def styled(text: str, style: str) -> "Text":
    """Text of strangers in a style: no markup in it is obeyed."""
    from rich.text import Text

    return Text(visible(text), style)
