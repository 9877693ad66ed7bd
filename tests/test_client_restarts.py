"""Clients on a server that stops and comes back: all come as told, and each message is given once, however it comes."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from tests.api_client import Api
from tests.followed import cast
from tests.scene import Between, scene
from tests.server import ServerProcess, until
from tidings import Client, TidingsError, Unreachable
from tidings.client import Following
from tidings.client.calls import Way
from tidings.model import Message

READERS = 100  # people, each with as many devices as the server lets them have:
DEVICES: tuple[Way, ...] = ("sse", "websocket") * 5
COMEBACK_S = 50.0


def are_all_there(url: str) -> None:
    """Wait until each device has its stream."""
    with Api(url) as api:
        until(lambda: api.counted("tidings_streams") == READERS * len(DEVICES), COMEBACK_S)


async def said(waiting: Sequence["asyncio.Task[Message]"]) -> Counter[str]:
    """What each was given."""
    return Counter(message.message for message in await asyncio.gather(*waiting))


async def _next(following: Following) -> Message:
    return await anext(following)


@scene
async def test_a_thousand_that_are_sent_away_come_back(tmp_path: Path) -> None:
    """At SIGTERM a thousand streams are told when to come back, and do: the new server refuses none, and each device
    is given what was sent meanwhile, and what is sent then."""
    failures: list[TidingsError] = []
    server = await asyncio.to_thread(ServerProcess.start, tmp_path, "--workers", "2")
    port = server.url.rpartition(":")[2]
    try:
        async with AsyncExitStack() as stack:
            tidings, ann, _, group = await stack.enter_async_context(cast(server.url))
            readers = [(await tidings.create_user(f"reader {n}")).user_id for n in range(READERS)]
            for reader in readers:
                await tidings.add_member(group, reader)
            clients = {way: await stack.enter_async_context(Client(server.url)) for way in DEVICES}
            followers = [
                clients[way].follow(reader, "now", transport=way, tell=failures.append)
                for reader in readers
                for way in DEVICES
            ]
            waiting = [asyncio.create_task(_next(following)) for following in followers]
            await asyncio.to_thread(are_all_there, server.url)
            assert await asyncio.to_thread(server.terminate) == 0
            assert server.complaints == ""
            server = await asyncio.to_thread(ServerProcess.start, tmp_path, "--workers", "2", "--port", port)
            await tidings.send_to_group(ann, group, "meanwhile")
            assert await said(waiting) == Counter({"meanwhile": len(followers)})
            waiting = [asyncio.create_task(_next(following)) for following in followers]
            await asyncio.to_thread(are_all_there, server.url)
            await tidings.send_to_group(ann, group, "then")
            assert await said(waiting) == Counter({"then": len(followers)})
        assert server.complaints == ""
        assert [error for error in failures if not isinstance(error, Unreachable)] == []
    finally:
        server.kill()


class Narrow(Between):
    """A proxy that lets some kinds of requests to a server pass, and hangs up on those whose paths end in `refused`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.refused: tuple[str, ...] = ()
        self.last = ""  # the end of the last path that passed

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            from_server, to_server = await asyncio.open_connection(self.upstream.hostname, self.upstream.port)
            answers = asyncio.ensure_future(_answer(from_server, writer))
            with suppress(OSError):
                while (piece := await reader.read(65_536)) and self._passes(piece):
                    to_server.write(piece)
            answers.cancel()
            to_server.transport.abort()
        writer.transport.abort()

    def _passes(self, piece: bytes) -> bool:
        if not piece.startswith(b"GET /v1/messages/"):
            return True
        end = piece.split(b" ", 2)[1].partition(b"?")[0].rpartition(b"/")[2].decode()
        if end in self.refused:
            return False
        self.last = end
        return True


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65_536):
            writer.write(piece)
    writer.transport.abort()


@scene
async def test_whatever_way_is_left_each_message_comes_once(tmp_path: Path) -> None:
    """The server is killed again and again, and each time a better way to it is closed: WebSocket, then events; by
    whatever is left Bob is given each message once, in order."""
    server = await asyncio.to_thread(ServerProcess.start, tmp_path)
    port = server.url.rpartition(":")[2]
    got: list[str] = []

    async def follow(following: Following, most: int) -> None:
        while len(got) < most:
            got.append((await anext(following)).message)

    try:
        async with (
            cast(server.url) as (tidings, ann, bob, hikers),
            Narrow(server.url) as narrow,
            Client(narrow.url) as far,
        ):
            following = far.follow(bob, "now")
            waiting = asyncio.ensure_future(follow(following, 10))
            for refused, used in [((), "live"), (("live",), "stream"), (("live", "stream"), bob)]:
                narrow.refused = refused
                if refused:
                    server.kill()
                    server = await asyncio.to_thread(ServerProcess.start, tmp_path, "--port", port)
                    waiting = asyncio.ensure_future(follow(following, len(got) + 10))
                while narrow.last != used:
                    await tidings.read(ann)  # until Bob is there
                for number in range(10):
                    await tidings.send_to_group(ann, hikers, f"{used} {number}")
                await waiting
            assert got == [f"{used} {number}" for used in ("live", "stream", bob) for number in range(10)]
    finally:
        server.kill()
