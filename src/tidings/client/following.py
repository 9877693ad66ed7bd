"""Following a user's messages: each once, in order, from one cursor to the next, whatever fails meanwhile."""

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol, Self

from tidings.client.pages import Page
from tidings.client.refusals import Expired, Hole
from tidings.client.seqs import SENT, Seqs
from tidings.client.transports import Broken
from tidings.client.wire import pause
from tidings.errors import AnotherHistory, TidingsError
from tidings.model import Message, UserShown

Save = Callable[[str], object]  # what it gives is awaited, if it can be
Tell = Callable[[TidingsError], None]

LOOKS_MAX = 5  # at a page that shows a hole, while memberships change between the looks


class News(Protocol):
    """What comes, in whatever way."""

    async def next(self, cursor: str | None) -> Page:
        """The next page after a cursor; a call that was cancelled lost nothing. Raises TidingsError."""

    def close(self) -> None:
        """Let go of what is open: the next page is asked for anew."""


class Asking(Protocol):
    """Asking for a page of now."""

    async def ask(self, cursor: str | None) -> Page:
        """What is after a cursor, at once."""


class Calls(NamedTuple):
    """What following asks a server itself: the user followed, and what really is after a cursor."""

    user: Callable[[], Awaitable[UserShown]]
    looks: Asking


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
        news: News,
        user_id: str,
        cursor: str | None,
        *,
        save: Save | None,
        tell: Tell | None,
        give_up_s: float | None,
    ) -> None:
        self._calls = calls
        self._news = news
        self._user_id = user_id
        self._cursor = cursor or None
        self._save = save
        self._tell = tell
        self._give_up_s = give_up_s
        self._seqs = Seqs(is_whole=not cursor)
        self._ready: deque[Message | TidingsError] = deque()
        self._next_cursor: str | None = None  # of the answer whose messages are being handed over
        self._is_asking = False
        self._failures = 0  # in a row
        self._failing_since = 0.0
        self._fruitless = 0  # in a row, looks at holes that gave nothing

    @property
    def cursor(self) -> str | None:
        """Everything before it was handled; None while that is nothing."""
        return self._cursor

    async def aclose(self) -> None:
        """Let go of the stream, if there is one; dropping the last reference does so, too. Going on opens it anew."""
        self._news.close()

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
        began = asyncio.get_running_loop().time()
        try:
            page = await self._news.next(self._cursor)
            is_doubtful = page.expired or bool(self._seqs.holes(page.messages))
            if is_doubtful:
                self._news.close()
            answer = await self._look() if is_doubtful else (page, {})
        except AnotherHistory:
            self._cursor = None
            self._seqs = Seqs(is_whole=True)
            raise
        except Broken as broken:  # nothing is wrong, if it can be opened again
            await asyncio.sleep(broken.retry_s or 0.0)
        except TidingsError as error:
            await self._outlast(error, began)
        else:
            self._failures = 0
            if answer is not None:
                self._take(*answer)
            if is_doubtful and not self._ready:  # a stream that is doubted again and again is asked ever less often
                self._fruitless += 1
                await asyncio.sleep(pause(self._fruitless, 0.0))
            elif is_doubtful:
                self._fruitless = 0

    async def _outlast(self, error: TidingsError, began: float) -> None:
        if not self._failures:
            self._failing_since = began
        self._failures += 1
        silent_s = asyncio.get_running_loop().time() - self._failing_since
        if error.retry_s is None or (self._give_up_s is not None and silent_s >= self._give_up_s):
            raise error
        if self._tell is not None:
            self._tell(error)
        await asyncio.sleep(pause(self._failures, error.retry_s))

    def _take(self, page: Page, joined: Mapping[str, int]) -> None:
        if page.expired:
            self._ready.append(Expired())
            self._ready.extend(self._seqs.take(page.messages, may_jump=True))
        else:
            self._ready.extend(self._seqs.take(page.messages, joined))
        self._next_cursor = page.cursor

    async def _look(self) -> tuple[Page, Mapping[str, int]] | None:
        """What really is after the cursor, asked for by itself, and the heads at joining that explain or prove a hole.

        None while memberships change too fast to tell: nothing was taken, so asking again loses nothing.
        """
        joined = await self._joined()
        for _ in range(LOOKS_MAX):
            page = await self._calls.looks.ask(self._cursor)
            before, joined = joined, await self._joined()
            steady = {group: head for group, head in joined.items() if before.get(group) == head}
            if page.expired or all(self._is_proof(hole, steady) for hole in self._seqs.holes(page.messages, steady)):
                return page, steady
        return None

    def _is_proof(self, hole: Hole, steady: Mapping[str, int]) -> bool:
        """Whether no coming and going explains it: a head at joining that was the same before and after.

        A group that was left both before and after proves nothing: its reader came and went between.
        """
        return hole.mailbox in (SENT, self._user_id) or hole.mailbox in steady

    async def _joined(self) -> Mapping[str, int]:
        return {group.group_id: group.joined_seq for group in (await self._calls.user()).groups}
