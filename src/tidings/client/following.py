"""Following a user's messages: each once, in order, from one cursor to the next, whatever fails meanwhile."""

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol, Self

from tidings.client.pages import Page
from tidings.client.refusals import Expired, Hole, NotUnderstood
from tidings.client.seqs import SENT, Seqs
from tidings.client.wire import pause
from tidings.errors import AnotherHistory, Malformed, TidingsError
from tidings.model import Message, UserShown

Save = Callable[[str], object]  # what it gives is awaited, if it can be
Tell = Callable[[TidingsError], None]

EARLY_S = 1.0  # a poll that should wait, and came back sooner than this with nothing, is not asked again at once
LOOKS_MAX = 5  # at a page that shows a hole, while memberships change between the looks


class Calls(Protocol):
    """What following needs of a client."""

    async def read(self, user_id: str, *, cursor: str | None, limit: int, wait_s: float, with_sent: bool) -> Page:
        """One page."""

    async def user(self, user_id: str) -> UserShown:
        """A user with the groups of now."""


class Following:
    """An asynchronous iterator over a user's messages, that never ends by itself.

    Asking for the next message says that the one before was handled: once that is so of all messages of an answer,
    its cursor is saved. So whoever crashes is given the messages since the last save again, and knows them by
    `messageId`; none is left out. A call that was cancelled lost nothing: ask again.

    Raised, each once, and to iterate again means to go on knowingly:

    - Expired: messages are not kept any more; then come the oldest that are.
    - Hole: a mailbox skips; asked again, the server gave the same. Then come the messages behind the hole.
    - AnotherHistory: the server's store was put back to an older copy; then comes everything, from the beginning.

    Every other TidingsError is raised at each try: no such user, a cursor that is none.
    """

    def __init__(
        self,
        calls: Calls,
        user_id: str,
        cursor: str | None,
        *,
        save: Save | None,
        tell: Tell | None,
        with_sent: bool,
        wait_s: float,
        limit: int,
        give_up_s: float | None,
    ) -> None:
        self._calls = calls
        self._user_id = user_id
        self._cursor = cursor or None
        self._save = save
        self._tell = tell
        self._with_sent = with_sent
        self._wait_s = wait_s
        self._limit = limit
        self._give_up_s = give_up_s
        self._seqs = Seqs(is_whole=not cursor)
        self._ready: deque[Message | TidingsError] = deque()
        self._next_cursor: str | None = None  # of the answer whose messages are being handed over
        self._is_asking = False
        self._failures = 0  # in a row
        self._empties = 0  # likewise, of answers that came back too soon with nothing
        self._answered_at: float | None = None

    @property
    def cursor(self) -> str | None:
        """Everything before it was handled; None while that is nothing."""
        return self._cursor

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        if self._is_asking:
            raise RuntimeError("one task at a time follows; each next message means that the last one was handled")
        self._is_asking = True
        try:
            while not self._ready:
                await self._settle()
                await self._fetch()
            item = self._ready.popleft()
        finally:
            self._is_asking = False
        if isinstance(item, TidingsError):
            raise item
        return item

    async def _settle(self) -> None:
        """Save the cursor behind all that was handled."""
        if self._next_cursor is None:
            return
        if self._save is not None and self._next_cursor != self._cursor:
            saving = self._save(self._next_cursor)
            if inspect.isawaitable(saving):
                await saving
        self._cursor, self._next_cursor = self._next_cursor, None

    async def _fetch(self) -> None:
        """Ask once; afterwards something is ready, or it is time to ask again."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self._answered_at is None:
            self._answered_at = began
        try:
            answer = await self._ask()
        except AnotherHistory:
            self._cursor = None
            self._seqs = Seqs(is_whole=True)
            raise
        except Malformed as error:
            if not self._can_ask_for_less(error.code):
                raise
            return
        except TidingsError as error:
            self._failures += 1
            silent_s = loop.time() - self._answered_at
            if error.retry_s is None or (self._give_up_s is not None and silent_s >= self._give_up_s):
                raise
            if self._tell is not None:
                self._tell(error)
            await asyncio.sleep(pause(self._failures, error.retry_s))
            return
        self._failures = 0
        self._answered_at = loop.time()
        page = self._take(*answer) if answer is not None else Page(())
        if page.messages or page.more or self._cursor == "now" or loop.time() - began >= EARLY_S:
            self._empties = 0
        else:
            self._empties += 1
            await asyncio.sleep(min(pause(self._empties, 0.0), EARLY_S))

    def _can_ask_for_less(self, code: str) -> bool:
        """Whether a server that is set to shorter pages or waits than usual may take the question now."""
        if code == "bad_limit" and self._limit > 1:
            self._limit //= 2
            return True
        if code == "bad_wait" and self._wait_s > 0:
            self._wait_s = self._wait_s / 2 if self._wait_s > 1 else 0.0
            return True
        return False

    def _take(self, page: Page, joined: Mapping[str, int]) -> Page:
        if page.expired:
            self._ready.append(Expired())
            self._ready.extend(self._seqs.take(page.messages, may_jump=True))
        else:
            self._ready.extend(self._seqs.take(page.messages, joined))
        self._next_cursor = page.cursor
        return page

    async def _ask(self) -> tuple[Page, Mapping[str, int]] | None:
        """An answer, asked for again where it shows a hole; then with the heads at joining that explain or prove it.

        None while memberships change too fast to tell: nothing was taken, so asking again loses nothing.
        """
        page = await self._read(self._wait_s)
        if not self._holes(page, {}):
            return page, {}
        joined = await self._joined()
        for _ in range(LOOKS_MAX):
            page = await self._read(0.0)
            before, joined = joined, await self._joined()
            steady = {group: head for group, head in joined.items() if before.get(group) == head}
            if all(self._is_proof(hole, steady) for hole in self._holes(page, steady)):
                return page, steady
        return None

    def _holes(self, page: Page, joined: Mapping[str, int]) -> list[Hole]:
        if page.expired:
            return []
        return [item for item in self._seqs.copy().take(page.messages, joined) if isinstance(item, Hole)]

    def _is_proof(self, hole: Hole, steady: Mapping[str, int]) -> bool:
        """Whether no coming and going explains it: a head at joining that was the same before and after.

        A group that was left both before and after proves nothing: its reader came and went between.
        """
        return hole.mailbox in (SENT, self._user_id) or hole.mailbox in steady

    async def _read(self, wait_s: float) -> Page:
        page = await self._calls.read(
            self._user_id, cursor=self._cursor, limit=self._limit, wait_s=wait_s, with_sent=self._with_sent
        )
        if not page.cursor:
            raise NotUnderstood("The answer has no cursor.")
        return page

    async def _joined(self) -> Mapping[str, int]:
        return {group.group_id: group.joined_seq for group in (await self._calls.user(self._user_id)).groups}
