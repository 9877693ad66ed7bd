"""Each setting as a flag of `tidings serve`, as an environment variable, and as a line of docs/settings.md."""

import difflib
import inspect
import os
import re
from dataclasses import fields
from typing import Annotated, Any

import typer

from tidings.config import About, Settings, described
from tidings.errors import StartError

# Kubernetes tells every pod of a service named `tidings` about it, in variables that are no settings of ours.
KUBERNETES = re.compile(r"TIDINGS_(SERVICE_.*|PORT_\d+_.*)")

OTHERS = ["TIDINGS_URL"]  # what other commands read, and a shell may well have set where a server is started

UNITS = {"s": "SECONDS", "bytes": "BYTES", "chars": "CHARACTERS"}

PAGE = """\
# Settings

Made by `tidings settings`; do not edit. Each is a flag of `tidings serve` and an environment variable; the flag wins,
and an empty variable is none. A wrong value, or a variable that is no setting, is refused at start in one line.
"""


def flag(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return "TIDINGS_" + name.upper()


def settings_page() -> None:
    """Print docs/settings.md."""
    typer.echo(PAGE)
    typer.echo("| flag | variable | default | what |\n|---|---|---|---|")
    for name, (_, about) in described().items():
        typer.echo(f"| `{flag(name)}` | `{variable(name)}` | {_default(name, about)} | {about.text} |")


def options() -> list[inspect.Parameter]:
    """Serve's options, made from the settings: what Typer would read from a signature of thirty parameters."""
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=Annotated[kind, _option(field.name, kind, about)],
        )
        for field, (kind, about) in zip(fields(Settings), described().values(), strict=True)
    ]


def check_variables() -> None:
    """Refuse a TIDINGS_ variable that is no setting: a misspelt limit must not go unnoticed. Raises StartError."""
    known = [*map(variable, described()), *OTHERS]
    for name in sorted(os.environ):
        if name.startswith("TIDINGS_") and name not in known and not KUBERNETES.fullmatch(name):
            near = difflib.get_close_matches(name, known, n=1)
            raise StartError(f"there is no setting {name}" + (f"; did you mean {near[0]}?" if near else ""))


def _default(name: str, about: About) -> str:
    value = {field.name: field.default for field in fields(Settings)}[name]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value or "none"
    shown = f"{value:.12g}"
    return shown if about.least is None or about.most is None else f"{shown}; {about.least:.12g} to {about.most:.12g}"


def _option(name: str, kind: type, about: About) -> Any:
    spelt = f"{flag(name)}/--no-{name.replace('_', '-')}" if kind is bool else flag(name)
    unit = UNITS.get(name.rpartition("_")[2], "TEXT" if kind is str else "NUMBER")
    return typer.Option(
        spelt,
        envvar=variable(name),
        show_envvar=False,
        metavar=None if kind is bool else unit,
        help=f"{about.text} [default: {_default(name, about)}]",
        show_default=False,
    )
