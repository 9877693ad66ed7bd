"""`tidings chat`."""

import asyncio
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from tidings.cli.asking import URL, Server, UserId, ask
from tidings.cli.follow import By, Silence, Transport
from tidings.cli.screen import Screen
from tidings.errors import AnotherHistory, TidingsError
from tidings.model import Message

if TYPE_CHECKING:
    from tidings.cli.letters import Letters
    from tidings.cli.lines import Lines
    from tidings.client import Client

UNSENT_MAX = 100  # lines that wait to be sent: then the next one is not taken yet
AGAIN_S = 1.0  # between two tries to send, each of which has lasted a while
AGAIN_MAX_S = 60.0
SHOWN_WAIT_S = 5.0  # at the end, for one's own last words to come back

With = Annotated[str, typer.Option("--with", metavar="OTHER", help="Talk to this user.", show_default=False)]
InGroup = Annotated[str, typer.Option("--group", metavar="GROUP", help="Talk in this group.", show_default=False)]


def chat(
    user_id: UserId,
    other_id: With = "",
    group_id: InGroup = "",
    transport: By = Transport.AUTO,
    server: Server = URL,
) -> int:
    """Talk to somebody, or in a group: each line that you type is sent, and what is said from now on is shown.

    Ctrl-D ends it, once everything was sent. Your own words are shown when everybody can read them, in the order that
    everybody sees.
    """
    if bool(other_id) == bool(group_id):
        raise typer.BadParameter("give either --with or --group: whom to talk to")

    async def work(tidings: "Client", screen: Screen) -> int:
        me = await tidings.user(user_id)  # a wrong id, or no server, is said before anything is waited for
        if group_id:
            name = (await tidings.group(group_id, user_id)).group_name
        else:
            name = (await tidings.user(other_id)).username
        return await _Talk(tidings, screen, user_id, other_id, group_id, transport).run(me.username, name)

    return ask(server, False, work)


class _Talk:
    """One conversation: what is typed goes out, in order; what comes is shown."""

    def __init__(
        self, tidings: "Client", screen: Screen, user_id: str, other_id: str, group_id: str, transport: Transport
    ) -> None:
        self._tidings = tidings
        self._screen = screen
        self._user_id = user_id
        self._other_id = other_id
        self._group_id = group_id
        self._transport = transport
        self._silence = Silence(screen)
        self._unsent: asyncio.Queue[str] = asyncio.Queue(UNSENT_MAX)
        self._is_said = asyncio.Event()  # nothing more is typed
        self._has_begun = asyncio.Event()
        self._unshown: set[str] = set()  # ids of what was sent and did not come back yet
        self._early: set[str] = set()  # ids of what came back before its sending was answered
        self._is_all_shown = asyncio.Event()
        self._is_sending = False
        self._has_failed = False

    async def run(self, me: str, name: str) -> int:
        from tidings.cli.letters import Letters
        from tidings.cli.lines import Lines

        lines = Lines(me)
        letters = Letters(self._tidings, self._screen, self._user_id, self._group_id or self._other_id)
        with lines.beside():
            if lines.is_typed:
                where = "Talking in " if self._group_id else "Talking with "
                self._screen.say(where, name, "; Ctrl-D ends it")
            tasks = [asyncio.ensure_future(work) for work in (self._show(letters), self._send(), self._talk(lines))]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # what can't be outlasted is raised here; else it is the end of what was typed
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._give_up_unsent()
        return int(self._has_failed)

    async def _talk(self, lines: "Lines") -> None:
        """Take what is typed, to its end, and wait until it was sent and shown."""
        await self._has_begun.wait()  # so that an answer to the first line can't be missed
        async for line in lines:
            if line.strip():
                await self._unsent.put(line)
        self._is_said.set()
        await self._unsent.join()
        await self._wait_for_own_words()

    async def _send(self) -> None:
        while True:
            text = await self._unsent.get()
            self._is_sending = True
            try:
                message = await self._deliver(text)
                if message.message_id not in self._early:
                    self._unshown.add(message.message_id)
            except TidingsError as error:
                self._has_failed = True
                is_open = error.retry_s is not None  # it may have been taken, and the answer lost
                self._screen.note(f"{'perhaps ' * is_open}not sent: {text} ({error.detail or error.code})")
                if is_open:
                    self._give_up_unsent()  # what was typed behind it would only wait as long
            except asyncio.CancelledError:
                self._screen.note(f"perhaps not sent: {text}")
                raise
            finally:
                self._is_sending = False
                self._early.clear()
                self._unsent.task_done()

    async def _deliver(self, text: str) -> Message:
        """Send it; again and again, under one key, while nobody answers and the talk goes on. Raises TidingsError."""
        key = secrets.token_hex(16)
        is_told = False
        while True:
            try:
                if self._group_id:
                    return await self._tidings.send_to_group(self._user_id, self._group_id, text, key=key)
                return await self._tidings.send(self._user_id, self._other_id, text, key=key)
            except TidingsError as error:
                if error.retry_s is None or self._is_said.is_set():
                    raise
                if not is_told:
                    self._screen.note(f"not sent yet: {text} ({error.detail or error.code}) Trying again ...")
                is_told = True
                pause_s = min(max(error.retry_s, AGAIN_S), AGAIN_MAX_S)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_said.wait(), pause_s)

    def _give_up_unsent(self) -> None:
        while not self._unsent.empty():
            self._has_failed = True
            self._screen.note(f"not sent: {self._unsent.get_nowait()}")
            self._unsent.task_done()

    async def _show(self, letters: "Letters") -> None:
        """Show what comes, from now on, and say what is missing."""
        from tidings.client import Expired, Hole

        def save(_: str) -> None:
            self._silence.end()
            self._has_begun.set()

        while True:
            following = self._tidings.follow(
                self._user_id,
                "now",
                save=save,
                tell=self._silence.tell,
                with_sent=True,
                transport=self._transport.value,
            )
            try:
                while True:
                    try:
                        async for message in following:
                            self._silence.end()
                            if self._is_ours(message):
                                await letters.print([message])
                                self._tick_off(message)
                    except (Expired, Hole) as gap:
                        self._screen.note(gap.detail)
            except AnotherHistory as error:
                self._screen.note(error.detail)

    def _is_ours(self, message: Message) -> bool:
        """Whether it belongs to this conversation."""
        if self._group_id:
            return message.recipient_id == self._group_id
        if message.sent:
            return message.recipient_id == self._other_id != self._user_id
        return (message.sender_id, message.recipient_id) == (self._other_id, self._user_id)

    def _tick_off(self, message: Message) -> None:
        if message.sender_id != self._user_id:
            return
        if message.message_id in self._unshown:
            self._unshown.remove(message.message_id)
            self._is_all_shown.set()
        elif self._is_sending:
            self._early.add(message.message_id)

    async def _wait_for_own_words(self) -> None:
        try:
            async with asyncio.timeout(SHOWN_WAIT_S):
                while self._unshown:
                    self._is_all_shown.clear()
                    await self._is_all_shown.wait()
        except TimeoutError:
            self._screen.note("sent, and not shown, since it did not come back yet")
