"""What every command that asks a server shares: its options, how it ends, what its errors look like."""

import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from tidings.cli.exits import FAILED, INTERRUPTED, UNREACHABLE, WRONG_USE, complain
from tidings.cli.screen import Screen
from tidings.errors import TidingsError

if TYPE_CHECKING:
    from tidings.client import Client

URL = "http://127.0.0.1:8080"
TRIED_S = 5.0  # after a first failure: a server that restarts is waited for, one that is not there soon told

Server = Annotated[
    str, typer.Option("--server", envvar="TIDINGS_URL", metavar="URL", help="Where the server is.", show_envvar=True)
]
Json = Annotated[bool, typer.Option("--json", help="Answer, and errors too, as JSON, one value a line.")]
UserId = Annotated[str, typer.Argument(metavar="USER", help="A user's id.", show_default=False)]
OtherId = Annotated[str, typer.Argument(metavar="OTHER", help="The other user's id.", show_default=False)]
GroupId = Annotated[str, typer.Argument(metavar="GROUP", help="A group's id.", show_default=False)]

Work = Callable[["Client", Screen], Awaitable[int | None]]


def ask(server: str, as_json: bool, work: Work) -> int:
    """Do the work with a client of the server; gives the exit code. What is raised becomes one line on stderr."""
    import asyncio

    from tidings.client import Client, Retries

    try:
        client = Client(server, retries=Retries(total_s=TRIED_S))
    except ValueError as error:
        return complain(str(error), WRONG_USE)
    try:
        return asyncio.run(_ask(client, work, Screen(as_json=as_json))) or 0
    except TidingsError as error:
        return _refused(error, server, as_json)
    except BrokenPipeError:  # who read our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be flushed at the end
        return FAILED
    except OSError as error:  # the disk that our output goes to is full
        return complain(f"can't write: {error.strerror}", FAILED)
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            sys.stderr.write("\n")  # behind the terminal's own ^C
        return INTERRUPTED


async def _ask(client: "Client", work: Work, screen: Screen) -> int | None:
    async with client as tidings:
        return await work(tidings, screen)


def _refused(error: TidingsError, server: str, as_json: bool) -> int:
    from tidings.client import NotUnderstood, Unreachable

    is_refused = isinstance(error, Unreachable) and error.is_refused
    is_foreign = error.code.startswith("http_")  # no problem of ours: another program, or a proxy
    code = FAILED
    if isinstance(error, NotUnderstood) or error.retry_s is not None or is_foreign:
        code = UNREACHABLE
    elif error.status == 400:
        code = WRONG_USE
    if as_json:
        Screen.error(error)
        return code
    if is_refused:
        return complain(f"nobody listens on {server}; is the server running? Start it with: tidings serve", code)
    if is_foreign:
        return complain(
            f"{server} answers HTTP {error.status}, and not as Tidings does; is another program there?", code
        )
    return complain(error.detail or error.code, code)
