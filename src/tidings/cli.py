"""The command line: `tidings serve`, each of whose options is a field of `Settings`."""

import difflib
import inspect
import os
import re
import sys
from dataclasses import fields
from typing import Annotated, Any

import typer

from tidings.config import About, Settings, described
from tidings.errors import StartError

FAILED = 1
WRONG_USE = 2

# Kubernetes tells every pod of a service named `tidings` about it, in variables that are no settings of ours.
KUBERNETES = re.compile(r"TIDINGS_(SERVICE_.*|PORT_\d+_.*)")

UNITS = {"s": "SECONDS", "bytes": "BYTES", "chars": "CHARACTERS"}

PAGE = """\
# Settings

Made by `tidings settings`; do not edit. Each is a flag of `tidings serve` and an environment variable; the flag wins,
and an empty variable is none. A wrong value, or a variable that is no setting, is refused at start in one line.
"""

app = typer.Typer(
    name="tidings",
    add_completion=False,
    rich_markup_mode=None,  # importing rich would take a tenth of the second that a start may take
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; gives the exit code: 0, 1 for what failed, 2 for what was asked for wrongly."""
    try:
        return app(arguments, prog_name="tidings", standalone_mode=False) or 0
    except typer.TyperException as error:
        return _complain(error.format_message(), WRONG_USE)
    except typer.Abort:
        return FAILED


def flag(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return "TIDINGS_" + name.upper()


@app.callback(invoke_without_command=True)
def tidings(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.", is_eager=True)] = False,
) -> None:
    """A messaging backend that loses nothing."""
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"tidings {version_of('tidings')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def serve(**chosen: Any) -> int:
    """Serve the HTTP API until SIGTERM or Ctrl-C.

    Each option is an environment variable as well: --wait-max-s is TIDINGS_WAIT_MAX_S, and so on. The option wins.
    """
    try:
        _check_variables()
        settings = Settings(**chosen)
    except StartError as error:
        return _complain(str(error), WRONG_USE)
    try:
        return _run(settings)
    except (StartError, OSError) as error:  # too many open files, no room for a directory: not a fault of ours
        return _complain(str(error), FAILED)


def _run(settings: Settings) -> int:
    if settings.workers > 1:
        from tidings.supervisor import run
    else:
        from tidings.server import run  # each alone: what one needs the other need not import

    return run(settings)


@app.command("settings", hidden=True)
def settings_page() -> None:
    """Print docs/settings.md."""
    typer.echo(PAGE)
    typer.echo("| flag | variable | default | what |\n|---|---|---|---|")
    for name, (_, about) in described().items():
        typer.echo(f"| `{flag(name)}` | `{variable(name)}` | {_default(name, about)} | {about.text} |")


def _default(name: str, about: About) -> str:
    value = {field.name: field.default for field in fields(Settings)}[name]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value or "none"
    shown = f"{value:.12g}"
    return shown if about.least is None or about.most is None else f"{shown}; {about.least:.12g} to {about.most:.12g}"


def _options() -> list[inspect.Parameter]:
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


def _check_variables() -> None:
    """Refuse a TIDINGS_ variable that is no setting: a misspelt limit must not go unnoticed."""
    known = [variable(name) for name in described()]
    for name in sorted(os.environ):
        if name.startswith("TIDINGS_") and name not in known and not KUBERNETES.fullmatch(name):
            near = difflib.get_close_matches(name, known, n=1)
            raise StartError(f"there is no setting {name}" + (f"; did you mean {near[0]}?" if near else ""))


def _complain(text: str, code: int) -> int:
    sys.stderr.write("tidings: " + " ".join(text.split()) + "\n")  # one line, whatever the text holds
    return code


_parameters = _options()
serve.__signature__ = inspect.Signature(_parameters)  # type: ignore[attr-defined]  # PEP 362: what inspect then gives
serve.__annotations__ = {parameter.name: parameter.annotation for parameter in _parameters}
app.command("serve")(serve)
