"""Those who follow: a `tidings.Client` that reads for each of the crowd, recorded as reads by cursor."""

import asyncio
import random
import threading
import time
import traceback
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from tests.faults.crowd import Crowd
from tests.faults.recorder import Recorder
from tests.followed import WAYS
from tests.server import until
from tidings import Client, Retries, TidingsError
from tidings.client.calls import Way
from tidings.history import Reading
from tidings.model import Message

LIMITS = (1, 3, 20, 100)
END = "the end"  # the last word to each user: nothing is sent to them after it
DEADLINE_S = 90.0  # for hundreds of them, beside other tests
ENDS = 2  # the second is asked for after the first was given: so after all that was acknowledged before


class Follower:
    """Follows one user for ever; with probability `dies` at a message, its program dies, and goes on where it was.

    What counts as given is what was handled before a cursor was saved: whoever keeps both together gets each once.
    """

    def __init__(self, recorder: Recorder, name: str, user: str, seed: int, *, sent: bool, dies: float) -> None:
        self.name = name
        self.user = user
        self.given = 0
        self.ends = 0
        self.deaths = 0
        self.outlasted = 0
        self.ways: set[Way] = set()
        self._recorder = recorder
        self._rng = random.Random(f"{seed} {name}")
        self._sent = sent
        self._dies = dies
        self._cursor = ""
        self._asked = 0
        self._handled: list[Message] = []
        self._is_streamed = False

    async def run(self, *servers: Client) -> None:
        """Follow until cancelled, in each life at any of the servers; whatever it raises is noted as wrong."""
        try:
            while True:
                await self._live(self._rng.choice(servers))
        except Exception:
            self._recorder.wrong.append(f"{self.name}: {traceback.format_exc()}")

    async def _live(self, tidings: Client) -> None:
        self._handled.clear()
        self._asked = time.monotonic_ns()
        following = tidings.follow(
            self.user,
            self._cursor,
            save=self._save,
            tell=self._outlast,
            with_sent=self._sent,
            wait_s=self._rng.choice((0.3, 5.0)),
            limit=self._rng.choice(LIMITS),
            transport=self._way(),
        )
        async for message in following:
            self._handled.append(message)
            if self._rng.random() < self._dies:
                self.deaths += 1
                return

    def _way(self) -> Way:
        """By any of the transports, another one in the next life."""
        way = self._rng.choice(WAYS)
        self._is_streamed = way != "poll"
        self.ways.add(way)
        return way

    def _outlast(self, _: TidingsError) -> None:
        self.outlasted += 1

    def _save(self, cursor: str) -> None:
        ends = sum(message.message.startswith(END) for message in self._handled)
        now = time.monotonic_ns()
        event = Reading(
            invoked=self._asked,
            answered=now,
            reader=self.user,
            chain=self.name,
            cursor=self._cursor,
            sent=self._sent,
            messages=list(self._handled),
            given=cursor,
            more=not ends,
            streamed=self._is_streamed,
        )
        self._recorder.events.append(event)
        self.given += len(self._handled)
        self.ends += ends
        self._handled.clear()
        self._cursor, self._asked = cursor, now


class Followers:
    """So many pairs for each of the crowd, in a loop of a thread of their own: one goes on, one dies now and then.

    With `url`, every fourth pair reads there: through a proxy that cuts. Of several nodes, all read at all.
    """

    def __init__(self, crowd: Crowd, seed: int, *, pairs: int = 1, url: str = "") -> None:
        self._crowd = crowd
        self._urls = (*[crowd.target.url] * 3, url or crowd.target.url)
        if crowd.target.others:
            self._urls = crowd.target.urls
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="followers", daemon=True)
        self.everyone = [
            Follower(crowd.recorder, f"{name} {pair} {what}", user, seed, sent=sent, dies=dies)
            for pair in range(pairs)
            for name, user in crowd.users.items()
            for what, sent, dies in (("follows", False, 0.0), ("follows and dies", True, 0.02))
        ]

    def __enter__(self) -> "Followers":
        self._thread.start()
        self._soon(self._run())
        return self

    def __exit__(self, *_: object) -> None:
        self._soon(self._stop()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def finish(self) -> None:
        """The crowd has ended: tell everyone, and wait until they were given that."""
        for number in range(1, ENDS + 1):
            for user in self._crowd.users.values():
                until(partial(self._tell, user, f"{END} {number}"), what="the end could not be told")
            until(partial(self._was_given, number), DEADLINE_S, "somebody was not given the end")

    def _tell(self, user: str, text: str) -> bool:
        sending = self._crowd.recorder.send(self._crowd.line, user, user, text, True, f"{user} {text}")
        return sending.outcome == "ok"

    def _was_given(self, number: int) -> bool:
        return bool(self._crowd.recorder.wrong) or all(follower.ends == number for follower in self.everyone)

    async def _run(self) -> None:
        self._task = asyncio.current_task()
        once = Retries(attempts_max=1)  # so that following itself is what outlasts the faults
        async with AsyncExitStack() as stack:
            most = 3 * len(self.everyone)  # a look at a hole takes one besides, and who died may not be gone yet
            clients = [
                await stack.enter_async_context(Client(url, retries=once, connections_max=most)) for url in self._urls
            ]
            await asyncio.gather(
                *(follower.run(*self._servers(n, clients)) for n, follower in enumerate(self.everyone))
            )

    def _servers(self, number: int, clients: Sequence[Client]) -> Sequence[Client]:
        return clients if self._crowd.target.others else (clients[number // 8 % len(clients)],)

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _soon(self, work: Coroutine[Any, Any, None]) -> "Future[None]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)
