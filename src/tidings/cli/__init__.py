"""The command line: every command on one page. What a command needs is imported when it runs, so that each is quick."""

from typing import Annotated

import typer

from tidings.cli.exits import FAILED, WRONG_USE, complain
from tidings.cli.flags import flag, settings_page, variable
from tidings.cli.serve import serve
from tidings.cli.upkeep import backup, check_history, doctor, restore

__all__ = ["app", "flag", "main", "variable"]

app = typer.Typer(
    name="tidings",
    add_completion=False,
    rich_markup_mode=None,  # importing rich would take a tenth of the second that a start may take
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


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


# A command gives its exit code; its help is its docstring.
app.command("serve")(serve)
app.command("backup")(backup)
app.command("restore")(restore)
app.command("doctor")(doctor)
app.command("check-history")(check_history)
app.command("settings", hidden=True)(settings_page)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; gives the exit code, as exits.py lists them."""
    try:
        return app(arguments, prog_name="tidings", standalone_mode=False) or 0
    except typer.TyperException as error:
        return complain(error.format_message(), WRONG_USE)
    except typer.Abort:
        return FAILED
