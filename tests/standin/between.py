"""What stands between a node and the server of its tables, and does to their talk what a test says."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import aiohttp
from aiohttp import web

Json = dict[str, Any]


class Talk:
    """One call: its operation (`PutItem`), its request, which a fault may change, and what is to become of it."""

    def __init__(self, operation: str, request: Json) -> None:
        self.operation = operation
        self.request = request
        self.is_lost = False  # the request never arrives
        self.is_unanswered = False  # it is done, and nobody is told
        self.refusal: Json | None = None  # what is answered in its place
        self.status = 400  # with that
        self.is_done = False  # and all the same it is done
        self.change: Callable[[Json], None] = lambda _: None  # of the answer
        self.first: Awaitable[object] | None = None  # what happens before it arrives

    def refuse(self, code: str, **more: Any) -> None:
        """Answer with this error, and do nothing."""
        self.refusal = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": code, **more}


class Between:
    """A door of its own to a server; `fault` is shown each call, `seen` has the operations in order."""

    def __init__(self, endpoint: str) -> None:
        self.fault: Callable[[Talk], None] = lambda _: None
        self.seen: list[str] = []
        self.ahead_s: float | None = None  # so much is the server's clock said to be ahead
        self.url = ""
        self._endpoint = endpoint
        self._session: aiohttp.ClientSession

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Between"]:
        """Serve on a free port."""
        app = web.Application(client_max_size=1 << 25)
        app.router.add_route("*", "/{any:.*}", self._pass)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            self.url = f"http://{host}:{port}"
            async with aiohttp.ClientSession() as self._session:
                yield self
        finally:
            await runner.cleanup()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        talk = Talk(request.headers["X-Amz-Target"].rpartition(".")[2], json.loads(await request.read()))
        self.seen.append(talk.operation)
        self.fault(talk)
        if talk.first is not None:
            await talk.first
        if talk.refusal is not None and not talk.is_done:
            return web.json_response(talk.refusal, status=talk.status, content_type="application/x-amz-json-1.0")
        if not talk.is_lost:
            body = json.dumps(talk.request).encode()
            headers = {
                name: request.headers[name]
                for name in ("X-Amz-Target", "Content-Type", "Authorization", "X-Amz-Date")
                if name in request.headers
            }
            async with self._session.post(self._endpoint, data=body, headers=headers) as response:
                answer = json.loads(await response.read())
        if talk.is_lost or talk.is_unanswered:
            if request.transport is not None:  # else whoever asked has gone
                request.transport.close()
            await asyncio.sleep(0)
            raise web.HTTPServiceUnavailable
        if talk.refusal is not None:
            return web.json_response(talk.refusal, status=talk.status, content_type="application/x-amz-json-1.0")
        if response.status == 200:
            talk.change(answer)
        date = {} if self.ahead_s is None else {"Date": formatdate(time.time() + self.ahead_s, usegmt=True)}
        kind = "application/x-amz-json-1.0"
        return web.json_response(answer, status=response.status, content_type=kind, headers=date)


def times(count: int, what: Callable[[Talk], None], *operations: str) -> Callable[[Talk], None]:
    """Do something to the first so many calls of these operations."""
    left = count

    def fault(talk: Talk) -> None:
        nonlocal left
        if left and talk.operation in operations:
            left -= 1
            what(talk)

    return fault


def lose(talk: Talk) -> None:
    """The request never arrives."""
    talk.is_lost = True


def hush(talk: Talk) -> None:
    """It is done, and nobody is told."""
    talk.is_unanswered = True


def throttle(talk: Talk) -> None:
    """There is no capacity left."""
    talk.refuse("ProvisionedThroughputExceededException")


def clash(talk: Talk) -> None:
    """Another transaction is about the same items."""
    reasons = [{"Code": "TransactionConflict", "Message": "busy"} for _ in talk.request["TransactItems"]]
    talk.refuse("TransactionCanceledException", CancellationReasons=reasons)


def fail(talk: Talk) -> None:
    """It is done, and the server says that it failed."""
    talk.refuse("InternalServerError")
    talk.status, talk.is_done = 500, True


def hush_and_forget(talk: Talk) -> None:
    """It is done, nobody is told, and the server does not know it again when it is repeated."""
    hush(talk)
    talk.request.pop("ClientRequestToken", None)
