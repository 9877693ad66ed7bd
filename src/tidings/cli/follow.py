"""`tidings follow`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidings.cli.asking import URL, Json, Server, UserId, ask
from tidings.cli.exits import FAILED, complain
from tidings.cli.messages import Sent
from tidings.cli.screen import Screen
from tidings.errors import AnotherHistory, TidingsError

if TYPE_CHECKING:
    from tidings.cli.place import Place
    from tidings.client import Client


class Transport(StrEnum):
    """The ways that the client knows."""

    AUTO = "auto"
    WEBSOCKET = "websocket"
    SSE = "sse"
    POLL = "poll"


FromNow = Annotated[bool, typer.Option("--from-now", help="Begin with what comes from now on, wherever it stood.")]
FromStart = Annotated[bool, typer.Option("--from-start", help="Begin with the first message, wherever it stood.")]
CursorFile = Annotated[
    Path | None,
    typer.Option(
        "--cursor-file",
        metavar="FILE",
        help="Where to keep the place; else in a file for this user under $XDG_STATE_HOME (~/.local/state).",
        show_default=False,
    ),
]
By = Annotated[
    Transport,
    typer.Option("--transport", help="How messages come: the best that can be had, or just this way."),
]
GoOn = Annotated[
    bool,
    typer.Option("--go-on", help="Where messages are missing, or history was replaced, say so on stderr and go on."),
]


def follow(
    user_id: UserId,
    from_now: FromNow = False,
    from_start: FromStart = False,
    cursor_file: CursorFile = None,
    go_on: GoOn = False,
    sent: Sent = False,
    transport: By = Transport.AUTO,
    server: Server = URL,
    as_json: Json = False,
) -> int:
    """Print messages as they come, until Ctrl-C.

    Next time, it goes on where it ended. A message is printed first, its place kept then: whoever is ended in between
    prints the last few again next time, with the same messageId; none is left out. A server that is away for a while
    is waited for.
    """
    from tidings.cli.place import Place, PlaceError, usual_file

    if from_now and from_start:
        raise typer.BadParameter("--from-now and --from-start are two places to begin at; give one")
    try:
        place = Place(cursor_file or usual_file(server, user_id), server, user_id)
        try:
            begin = "now" if from_now else None if from_start else place.load()

            async def work(tidings: "Client", screen: Screen) -> int:
                return await _follow(tidings, screen, place, user_id, begin, sent, go_on, transport)

            return ask(server, as_json, work)
        finally:
            place.close()
    except PlaceError as error:
        return complain(str(error), FAILED)


async def _follow(
    tidings: "Client",
    screen: Screen,
    place: "Place",
    user_id: str,
    begin: str | None,
    sent: bool,
    go_on: bool,
    transport: Transport,
) -> int:
    from tidings.cli.letters import Letters

    user = await tidings.user(user_id)  # a wrong id, or no server, is said before anything is waited for
    if screen.is_for_people:
        where = "" if begin is None else ", from now on" if begin == "now" else ", from where it ended"
        screen.note(f"following {user.username}{where}; Ctrl-C ends it")
    silence = Silence(screen)

    def save(cursor: str) -> None:
        silence.end()
        place.save(cursor)

    letters = Letters(tidings, screen, user_id)
    following = tidings.follow(user_id, begin, save=save, tell=silence.tell, with_sent=sent, transport=transport.value)
    while True:
        try:
            async for message in following:
                silence.end()
                await letters.print([message])
        except TidingsError as error:
            if not _may_go_on(error):
                raise
            if not go_on:
                way = "--from-start or --from-now" if isinstance(error, AnotherHistory) else "--go-on"
                return complain(f"{error.detail} To go on, follow with {way}.", FAILED)
            screen.note(error.detail)


def _may_go_on(error: TidingsError) -> bool:
    from tidings.client import Expired, Hole

    return isinstance(error, Expired | Hole | AnotherHistory)


class Silence:
    """Says once that a server is away, however often it was asked, and once that it answers again."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._is_told = False

    def tell(self, error: TidingsError) -> None:
        """It failed once more."""
        if not self._is_told:
            self._screen.note(f"{error.detail} Trying again ...")
        self._is_told = True

    def end(self) -> None:
        """It has answered."""
        if self._is_told:
            self._screen.note("The server answers again.")
        self._is_told = False
