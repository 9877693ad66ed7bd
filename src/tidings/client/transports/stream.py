"""A stream, whatever carries it: read ahead by a task, a page's worth at most, and watched for silence.

While that much waits to be taken, nothing more is read from the connection, so the server knows; a stream that was
dropped by who took from it ends by itself.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from tidings.client.pages import Page
from tidings.client.refusals import Unreachable
from tidings.client.transports import Broken, Unfit
from tidings.client.wire import Wire

SILENT_S = 2 * 25.0  # two heartbeats of a server, unless it is set otherwise
SILENT_MAX_S = 2 * 3_600.0  # two of the longest heartbeats that a server can be set to

Pages = AsyncGenerator[Page, None]


@dataclass
class Patience:
    """How long a stream may be silent: until the first that it says, and from then on.

    The second is twice the usual heartbeat, and doubles when it was too short: so a server's own is found out.
    """

    first_s: float
    silent_s: float = field(default_factory=lambda: SILENT_S)

    def double(self) -> None:
        """Wait longer next time."""
        self.silent_s = min(2 * self.silent_s, SILENT_MAX_S)


class Stream:
    """A flow of pages that a task reads, which `keep` is given; `limit` wait at most, and are taken together as one."""

    def __init__(
        self, pages: Pages, limit: int, patience: Patience, keep: Callable[[asyncio.Task[None]], None]
    ) -> None:
        self._limit = limit
        self._queue: asyncio.Queue[Page | Exception] = asyncio.Queue(limit)
        self._kept: Page | Exception | None = None
        self._has_begun = False
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(_read(pages, self._queue, patience))  # which holds no `self`: see __del__
        keep(self._task)

    async def next(self) -> Page:
        """What is there, or the next that comes. Raises Unfit, Broken, and what the server refused."""
        item = self._kept or await self._queue.get()
        self._kept = None
        if not isinstance(item, Page):
            self._kept = item
            raise item
        if self._has_begun and not item.expired:  # the first alone: behind it, there is a cursor for certain
            item = self._with_what_is_there(item)
        self._has_begun = True
        return item

    def close(self) -> None:
        """End it."""
        self._task.cancel()

    def __del__(self) -> None:
        if not self._task.done() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)

    def _with_what_is_there(self, page: Page) -> Page:
        messages = [*page.messages]
        cursor = page.cursor
        while len(messages) < self._limit and not self._queue.empty():
            item = self._queue.get_nowait()
            if not isinstance(item, Page) or item.expired:
                self._kept = item
                break
            messages += item.messages
            cursor = item.cursor
        return Page(tuple(messages), cursor)


class Streaming:
    """A transport by streams; `pages` opens one at a cursor."""

    def __init__(self, name: str, pages: Callable[[str | None], Pages], wire: Wire, limit: int) -> None:
        self.name = name
        self._pages = pages
        self._limit = limit
        self._patience = Patience(wire.retries.answer_s)
        self._keep = wire.keep

    def open(self, cursor: str | None) -> Stream:
        """All after a cursor."""
        return Stream(self._pages(cursor), self._limit, self._patience, self._keep)


async def _read(pages: Pages, queue: "asyncio.Queue[Page | Exception]", patience: Patience) -> None:
    """Take from a connection into a queue, and at the end why it is one."""
    has_begun = False
    end: Exception
    try:
        async with aclosing(pages):
            while True:
                async with asyncio.timeout(patience.silent_s if has_begun else patience.first_s):
                    page = await anext(pages)
                has_begun = True
                await queue.put(page)
    except StopAsyncIteration:
        end = Broken("The stream ended.")
    except TimeoutError:
        end = Broken("The stream fell silent.")
        if has_begun:
            patience.double()
    except asyncio.CancelledError:  # the client is closed, or nobody takes from the queue any more
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(RuntimeError("the client was closed"))
        raise
    except Exception as error:  # whoever takes from the queue raises it
        end = error
    if isinstance(end, Broken) and not end.is_told and not has_begun:
        end = Unfit(Unreachable(str(end)))
    await queue.put(end)
