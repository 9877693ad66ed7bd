"""`tidings send` and `tidings read`."""

import datetime
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tidings.cli.asking import URL, Json, Server, UserId, ask
from tidings.cli.screen import Screen

if TYPE_CHECKING:
    from tidings.client import Client, Page

STDIN_MAX_BYTES = 1 << 24  # a server's --message-max-bytes is a sixteenth of it at most

Sender = Annotated[str, typer.Argument(metavar="SENDER", help="Your user id.", show_default=False)]
To = Annotated[str, typer.Argument(metavar="TO", help="The id of whom it is for.", show_default=False)]
Text = Annotated[
    str, typer.Argument(metavar="TEXT", help="What to say; - reads it from standard input.", show_default=False)
]
ToGroup = Annotated[bool, typer.Option("--to-group", help="TO is a group.")]
Key = Annotated[
    str,
    typer.Option(
        "--key",
        metavar="KEY",
        help="Idempotency key: the same send, run again with it, is sent once.",
        show_default=False,
    ),
]
Cursor = Annotated[
    str,
    typer.Option(
        "--cursor", metavar="CURSOR", help="Only what the cursor's holder was not given yet.", show_default=False
    ),
]
Since = Annotated[
    str,
    typer.Option(
        "--since",
        metavar="WHEN",
        help="Only what is later: Unix milliseconds, or a date and time such as 2026-01-31T18:30 (of this machine).",
        show_default=False,
    ),
]
Limit = Annotated[int, typer.Option("--limit", metavar="NUMBER", help="At most so many.", min=1, max=1000)]
Sent = Annotated[bool, typer.Option("--sent", help="With copies of what the user sent privately.")]


def send(
    sender_id: Sender,
    to_id: To,
    text: Text,
    to_group: ToGroup = False,
    key: Key = "",
    server: Server = URL,
    as_json: Json = False,
) -> int:
    """Send a message to a user or a group.

    Once this ends with exit code 0, the message is on the server's disk.
    """
    said = _standard_input() if text == "-" else text

    async def work(tidings: "Client", screen: Screen) -> None:
        call = tidings.send_to_group if to_group else tidings.send
        message = await call(sender_id, to_id, said, key=key or None)
        if screen.as_json:
            screen.json(message)
        elif screen.is_for_people:
            screen.say("Sent, as number ", str(message.seq), " of ", message.recipient_id)
        else:
            screen.fields(message.message_id)

    return ask(server, as_json, work)


def read(
    user_id: UserId,
    cursor: Cursor = "",
    since: Since = "",
    limit: Limit = 100,
    sent: Sent = False,
    server: Server = URL,
    as_json: Json = False,
) -> int:
    """Read a user's messages, oldest first.

    All of them, or what is new to a cursor, or what is later than a time. As JSON it is one object with the messages,
    the cursor to go on with, and whether there is more now.
    """
    if cursor and since:
        raise typer.BadParameter("--cursor and --since are two ways to ask; give one")
    timestamp = _milliseconds(since) if since else None

    async def work(tidings: "Client", screen: Screen) -> None:
        from tidings.cli.letters import Letters

        page = await tidings.read(user_id, cursor=cursor or None, timestamp=timestamp, limit=limit, with_sent=sent)
        if screen.as_json:
            screen.json(page)
            return
        await Letters(tidings, screen, user_id).print(page.messages)
        _say_the_rest(screen, page)

    return ask(server, as_json, work)


def _standard_input() -> str:
    """What is piped in, without the line end behind it; more than any server takes is not read."""
    try:
        return sys.stdin.buffer.read(STDIN_MAX_BYTES).decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise typer.BadParameter("standard input is not UTF-8") from None


def _say_the_rest(screen: Screen, page: "Page") -> None:
    if page.expired:
        screen.note("some messages before these are not kept any more")
    if page.more:
        place = f"--cursor {page.cursor}" if page.cursor else f"--since {page.messages[-1].timestamp}"
        screen.note(f"there is more; go on with {place}")
    elif not page.messages and screen.is_for_people:
        screen.say("No messages.")


def _milliseconds(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return round(datetime.datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"--since must be Unix milliseconds, or like 2026-01-31T18:30, not {text}") from None
