"""What the command line offers: each command, its arguments and its flags."""

from dataclasses import dataclass
from typing import Any

import typer

from tidings.cli import app


@dataclass(frozen=True)
class Command:
    """A command as one types it (`user create`), its arguments (`NAME`), and its flags (`--json`)."""

    name: str
    arguments: tuple[str, ...]
    flags: tuple[str, ...]


def offered() -> list[Command]:
    """All commands that help shows, and `tidings` itself, its name empty."""
    return [*_below(typer.main.get_command(app), ())]


def _below(command: Any, path: tuple[str, ...]) -> list[Command]:
    params = [(param, [*param.opts, *param.secondary_opts]) for param in command.params]
    arguments = tuple(param.metavar for param, _ in params if param.param_type_name == "argument")
    flags = ("--help", *(name for _, names in params for name in names if name.startswith("--")))
    found = [Command(" ".join(path), arguments, flags)]
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            found += _below(inner, (*path, name))
    return found
