"""The command line: every command on one page. What a command needs is imported when it runs, so that each is quick."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tidings.cli.chat import chat
from tidings.cli.exits import CODES, INTERRUPTED, WRONG_USE, complain
from tidings.cli.flags import flag, settings_page, variable
from tidings.cli.follow import follow
from tidings.cli.groups import add_member, create_group, remove_member, show_group
from tidings.cli.messages import read, send
from tidings.cli.moving import export, import_, open_again
from tidings.cli.serve import serve
from tidings.cli.upkeep import backup, check_history, doctor, init, restore
from tidings.cli.users import block, create_user, show_user, unblock

__all__ = ["app", "flag", "main", "variable"]

LOOK: dict[str, Any] = {
    "rich_markup_mode": None,  # importing rich would take a tenth of the second that a start may take
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100},
}


class _Page(TyperGroup):
    """The help page begins with what serves, then has the nouns, then the verbs."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """The names, in order."""
        return sorted(
            self.commands, key=lambda name: (name != "serve", not isinstance(self.commands[name], TyperGroup))
        )


app = typer.Typer(name="tidings", cls=_Page, pretty_exceptions_enable=False, epilog=CODES, **LOOK)
user = typer.Typer(**LOOK)
group = typer.Typer(**LOOK)
store = typer.Typer(**LOOK)


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
    _help(context)


@user.callback(invoke_without_command=True)
def _user(context: typer.Context) -> None:
    """Sign users up, and look at them."""
    _help(context)


@group.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    """Make groups, let users in and out."""
    _help(context)


@store.callback(invoke_without_command=True)
def _store(context: typer.Context) -> None:
    """Make the tables of a store; open a closed one again."""
    _help(context)


def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


# A command gives its exit code; its help is its docstring.
app.command("serve")(serve)
app.add_typer(user, name="user")
user.command("create")(create_user)
user.command("show")(show_user)
app.command("block")(block)
app.command("unblock")(unblock)
app.add_typer(group, name="group")
group.command("create")(create_group)
group.command("add")(add_member)
group.command("remove")(remove_member)
group.command("show")(show_group)
app.command("send")(send)
app.command("read")(read)
app.command("follow")(follow)
app.command("chat", short_help="Talk to somebody, or in a group.")(chat)
app.add_typer(store, name="store")
store.command("init", short_help="Make the tables of a store on DynamoDB.")(init)
store.command("open", short_help="Take writes again, after an export.")(open_again)
app.command("export", short_help="Write a store into a file, to move it.")(export)
app.command("import", short_help="Make a store of such a file.")(import_)
app.command("backup", short_help="Copy the store, served or not.")(backup)
app.command("restore", short_help="Put a copy back as the store.")(restore)
app.command("doctor", short_help="Look a store over for damage.")(doctor)
app.command("check-history", short_help="Judge what clients were given.")(check_history)
app.command("settings", hidden=True)(settings_page)


def _wrong(error: typer.TyperException) -> str:
    """What was asked for wrongly, and where stands how it is meant."""
    if isinstance(error, typer.BadParameter) and not error.param:
        return error.message  # a command's own words, about several options
    text, context = error.format_message(), getattr(error, "ctx", None)
    return f"{text.rstrip('.')}. See: {context.command_path} --help" if context else text


def main(arguments: list[str] | None = None) -> int:
    """Run a command; gives the exit code, as exits.py lists them."""
    try:
        return app(arguments, prog_name="tidings", standalone_mode=False) or 0
    except typer.TyperException as error:
        return complain(_wrong(error), WRONG_USE)
    except typer.Abort:  # Ctrl-C, where the command does not see to it itself
        return INTERRUPTED
