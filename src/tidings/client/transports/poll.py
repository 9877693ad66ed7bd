"""Long-polls: news from any server, through any proxy."""

import asyncio
from typing import Protocol

from tidings.client.pages import Page
from tidings.client.refusals import NotUnderstood
from tidings.client.wire import pause
from tidings.errors import Malformed

EARLY_S = 1.0  # a poll that should wait, and came back sooner than this with nothing, is not asked again at once


class Read(Protocol):
    """What polling needs of a client."""

    async def read(self, user_id: str, *, cursor: str | None, limit: int, wait_s: float, with_sent: bool) -> Page:
        """One page."""


class Polling:
    """A transport that asks anew for each page."""

    name = "poll"

    def __init__(self, client: Read, user_id: str, *, with_sent: bool, limit: int, wait_s: float) -> None:
        self._client = client
        self._user_id = user_id
        self._with_sent = with_sent
        self._limit = limit
        self._wait_s = wait_s
        self._empties = 0  # in a row, answers that came back too soon with nothing

    def open(self, cursor: str | None) -> "Poll":
        """All after a cursor."""
        return Poll(self, cursor)

    async def ask(self, cursor: str | None, *, may_wait: bool = True) -> Page:
        """One page after a cursor. Raises TidingsError."""
        if self._empties and may_wait:
            await asyncio.sleep(min(pause(self._empties, 0.0), EARLY_S))
        began = asyncio.get_running_loop().time()
        page = await self._read(cursor, may_wait)
        if not page.cursor:
            raise NotUnderstood("The answer has no cursor.")
        is_early = asyncio.get_running_loop().time() - began < EARLY_S
        if may_wait:
            self._empties = self._empties + 1 if is_early and not page.messages and not page.more else 0
        if cursor == "now":
            self._empties = 0
        return page

    async def _read(self, cursor: str | None, may_wait: bool) -> Page:
        while True:
            wait_s = self._wait_s if may_wait else 0.0
            try:
                return await self._client.read(
                    self._user_id, cursor=cursor, limit=self._limit, wait_s=wait_s, with_sent=self._with_sent
                )
            except Malformed as error:
                if not self._can_ask_for_less(error.code):
                    raise

    def _can_ask_for_less(self, code: str) -> bool:
        """Whether a server that is set to shorter pages or waits than usual may take the question now."""
        if code == "bad_limit" and self._limit > 1:
            self._limit //= 2
            return True
        if code == "bad_wait" and self._wait_s > 0:
            self._wait_s = self._wait_s / 2 if self._wait_s > 1 else 0.0
            return True
        return False


class Poll:
    """Page after page."""

    def __init__(self, polling: Polling, cursor: str | None) -> None:
        self._polling = polling
        self._cursor = cursor

    async def next(self) -> Page:
        """Ask, and wait for news."""
        page = await self._polling.ask(self._cursor)
        self._cursor = page.cursor
        return page

    def close(self) -> None:
        """Nothing is held between two pages."""
