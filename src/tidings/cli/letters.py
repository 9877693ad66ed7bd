"""Messages on a screen: who wrote them, where to, and when."""

import asyncio
import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tidings.cli.screen import Screen, styled
from tidings.cli.visible import visible
from tidings.errors import TidingsError
from tidings.model import Message

if TYPE_CHECKING:
    from tidings.client import Client

NAME_WAIT_S = 2.0  # names are a courtesy: nobody waits long for one
NAMES_PAUSE_S = 30.0
NAMES_MAX = 1_000  # remembered at a time
ASKED_MAX = 10  # at a time
WHEN_CHARS = 12
WHO_CHARS = 26
WHO_ALONE_CHARS = 18  # where it is not said whom they wrote to
NARROW_CHARS = 72  # a terminal with fewer has no room for three columns: texts stand below who wrote them
INDENT_CHARS = 4
ID_CHARS = 4


class Letters:
    """Prints messages as one user sees them; for people with names, which it asks the server for.

    All are said `within` one conversation, or (if that is empty) each says where to.
    """

    def __init__(self, tidings: "Client", screen: Screen, user_id: str, within: str = "") -> None:
        self._tidings = tidings
        self._screen = screen
        self._user_id = user_id
        self._within = within
        self._names: dict[str, str] = {user_id: "me"}
        self._may_ask = asyncio.Semaphore(ASKED_MAX)
        self._ask_again_at = 0.0  # by the loop's clock

    async def print(self, messages: Sequence[Message]) -> None:
        """Print messages, a line or more each."""
        if self._screen.as_json:
            for message in messages:
                self._screen.json(message)
        elif self._screen.is_for_people:
            await self._learn_names(messages)
            for message in messages:
                self._show(message)
        else:
            for message in messages:
                when = _instant(message.timestamp)
                stamp = when.isoformat(timespec="milliseconds") if when else message.timestamp
                self._screen.fields(stamp, message.sender_id, message.recipient_id, message.message)

    def _show(self, message: Message) -> None:
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        when = styled(short(message.timestamp), "dim")
        style = "dim" if message.sender_id == self._user_id else "bold"
        text = Text(
            "\n".join(visible(line) for line in message.message.replace("\t", "    ").split("\n")), overflow="fold"
        )
        if (width := self._screen.console.width) < NARROW_CHARS:
            self._screen.show(Text("  ").join([when, styled(self._who(message, width - len(when) - 2), style)]))
            self._screen.show(Padding(text, (0, 0, 0, INDENT_CHARS)))  # so that no line of it looks like one of ours
            return
        grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
        who_chars = WHO_ALONE_CHARS if self._within else WHO_CHARS
        grid.add_column(width=WHEN_CHARS, no_wrap=True)
        grid.add_column(width=who_chars, overflow="ellipsis", no_wrap=True)
        grid.add_column(ratio=1, overflow="fold")
        grid.add_row(when, styled(self._who(message, who_chars), style), text)
        self._screen.show(grid)

    def _who(self, message: Message, cells: int) -> str:
        """Who wrote it, and where to if that is not understood, in so many cells: names give way, ends of ids never."""
        parties = [self._name(message.sender_id)]
        if message.recipient_id not in (self._user_id, self._within):
            parties.append(self._name(message.recipient_id))
        ends = [end for _, end in parties]
        names = _fitted([visible(name) for name, _ in parties], cells - len(" → ".join(ends)))
        return " → ".join(name + end for name, end in zip(names, ends, strict=True))

    def _name(self, identity: str) -> tuple[str, str]:
        """A name, and the end of the id, since several may be called alike; one's own is `me`, without."""
        name = self._names.get(identity)
        if identity == self._user_id:
            return name or identity, ""
        end = visible(identity[-ID_CHARS:])
        return (identity[:-ID_CHARS], end) if name is None else (name, f" #{end}")

    async def _learn_names(self, messages: Sequence[Message]) -> None:
        ids = {message.sender_id for message in messages}
        ids |= {message.recipient_id for message in messages if message.sent}
        rooms = {message.recipient_id for message in messages if not message.sent}
        if len(self._names) > NAMES_MAX:
            self._names = {self._user_id: "me"}
        if asyncio.get_running_loop().time() < self._ask_again_at:
            return
        if rooms - {*self._names}:
            await self._learn_rooms()
        await asyncio.gather(*(self._learn(user_id) for user_id in ids - {*self._names}))

    async def _learn(self, user_id: str) -> None:
        try:
            async with self._may_ask, asyncio.timeout(NAME_WAIT_S):
                self._names[user_id] = (await self._tidings.user(user_id)).username
        except (TidingsError, TimeoutError):
            self._give_up_names()

    async def _learn_rooms(self) -> None:
        try:
            async with asyncio.timeout(NAME_WAIT_S):
                me = await self._tidings.user(self._user_id)
        except (TidingsError, TimeoutError):
            self._give_up_names()
            return
        self._names.update({group.group_id: group.group_name for group in me.groups})

    def _give_up_names(self) -> None:
        """For a while ids stand for names: who reads should not wait for each."""
        self._ask_again_at = asyncio.get_running_loop().time() + NAMES_PAUSE_S


def _fitted(names: list[str], cells: int) -> list[str]:
    """Names cut to so many cells of a terminal together, the longest first; what is cut ends with dots."""
    from rich.cells import cell_len, set_cell_size

    fitted, lengths = [*names], [cell_len(name) for name in names]
    while sum(lengths) > cells and max(lengths) > 1:
        at = lengths.index(max(lengths))
        fitted[at] = set_cell_size(names[at], lengths[at] - 2) + "…"
        lengths[at] -= 1
    return fitted


def short(timestamp: str) -> str:
    """When a message was sent, in the reader's own time, as short as can be understood today."""
    when = _instant(timestamp)
    if when is None:
        return timestamp
    today = datetime.datetime.now().astimezone()
    if when.date() == today.date():
        return when.strftime("%H:%M:%S")
    return when.strftime("%d %b %H:%M" if when.year == today.year else "%Y-%m-%d")


def _instant(timestamp: str) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromtimestamp(int(timestamp) / 1000).astimezone()
    except (ValueError, OverflowError, OSError):  # no number, or a year that calendars don't have
        return None
