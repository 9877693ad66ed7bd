"""A door to the tables in a thread of its own, for tests that are not async: it says what came through."""

import asyncio
import threading
from collections import Counter
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from tests.server import DEADLINE_S
from tests.standin.between import Between, Talk


class Heard:
    """A context manager; `url` is where it listens. What nodes ask of their own accord is left out."""

    url: str

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._calls: list[str] = []
        self._opened: Future[str] = Future()
        self._loop: asyncio.AbstractEventLoop
        self._over: asyncio.Event
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def take(self) -> Counter[str]:
        """The calls by operation, with how many items each asks for or writes, if that can be more than one."""
        calls, self._calls = self._calls, []
        return Counter(calls)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with Between(self._endpoint).open() as between:
            between.fault = self._hear
            self._opened.set_result(between.url)
            await self._over.wait()

    def _hear(self, talk: Talk) -> None:
        if talk.request.get("Key", {}).get("pk") == {"S": "store"}:
            return  # whether the store is open, and the clock's floor
        several = talk.request.get("TransactItems", ())
        for wanted in talk.request.get("RequestItems", {}).values():
            several = wanted["Keys"]
        self._calls.append(f"{talk.operation} of {len(several)}" if several else talk.operation)

    def __enter__(self) -> Self:
        self._thread.start()
        self.url = self._opened.result(DEADLINE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(DEADLINE_S)
