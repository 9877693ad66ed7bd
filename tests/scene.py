"""Scenes with a foreign server or a bad line in them: `@scene`, `Foreign`, `Between`, `Line`."""

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, Self
from urllib.parse import urlsplit

from aiohttp import web

P = ParamSpec("P")

DEADLINE_S = 60.0  # for a scene that takes a second or two on an idle machine


def scene(play: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A test that is a coroutine, ended at a deadline."""

    @functools.wraps(play)
    def played(*args: P.args, **named: P.kwargs) -> None:
        async def within_the_deadline() -> None:
            async with asyncio.timeout(DEADLINE_S):
                await play(*args, **named)

        asyncio.run(within_the_deadline())

    return played


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Foreign:
    """A server that is none of ours and may answer whatever it likes; `asked` has each request, its body read."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.asked: list[web.Request] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._take)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.asked.append(request)
        return await self._answer(request)


class Between:
    """Something between a client and a server that listens at `url`; what becomes of a connection is for its kind."""

    def __init__(self, url: str) -> None:
        self.upstream = urlsplit(url)
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self.carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection, from the client and to it, to its end."""
        raise NotImplementedError


class Line(Between):
    """A bad line to a server: each connection breaks after some bytes of answers, which a seed decides; `cuts` counts.

    With the first byte gone the whole answer is lost; with a later one, part of it.
    """

    def __init__(self, url: str, seed: int, bytes_max: int = 1500) -> None:
        super().__init__(url)
        self._random = random.Random(seed)
        self._bytes_max = bytes_max
        self.cuts = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(self.upstream.hostname, self.upstream.port)
        except OSError:
            writer.transport.abort()
            return
        questions = asyncio.ensure_future(_pipe(reader, to_server))
        try:
            left = self._random.randrange(self._bytes_max)
            while left:
                piece = await from_server.read(left)
                if not piece:
                    break
                writer.write(piece)
                await writer.drain()
                left -= len(piece)
            else:
                await from_server.read(1)  # the answer to what was asked last is there, and goes no further
                self.cuts += 1
        except OSError:
            pass
        finally:
            questions.cancel()
            to_server.transport.abort()
            writer.transport.abort()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65_536):
        writer.write(piece)
        await writer.drain()
