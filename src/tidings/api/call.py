"""A call: one request on its way to its handler, and the endpoint that brings it there and answers."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec
from starlette.types import Receive, Scope, Send

from tidings.api.replies import BrokenOff, ClientGone, Reply, broken_off, disconnected, fault, problem, unread
from tidings.config import Settings
from tidings.errors import MethodNotAllowed, StoreUnavailable, TidingsError
from tidings.live import Streams
from tidings.metrics import Metrics
from tidings.service import Services

T = TypeVar("T")

WAIT = "tidings.wait_s"  # in the scope: how long a call was asked to wait for news


@dataclass(frozen=True, slots=True)
class Shared:
    """What every handler may use, one a process."""

    services: Services
    settings: Settings
    metrics: Metrics
    openapi: bytes
    streams: Streams


class Call(msgspec.Struct, frozen=True):
    """One request: the raw ASGI scope, its body still unread, and the route it came by."""

    scope: Scope
    receive: Receive
    route: str
    shared: Shared

    @property
    def services(self) -> Services:
        """What is allowed, and what happens."""
        return self.shared.services

    @property
    def settings(self) -> Settings:
        """The limits, and the rest."""
        return self.shared.settings

    def path(self, name: str) -> str:
        """A part of the path, unquoted."""
        value: str = self.scope["path_params"][name]
        return value

    async def while_connected(self, work: Awaitable[T], wait_s: float) -> T:
        """The result of work that may wait `wait_s` seconds for news, which is not slow.

        When the client leaves first, the work is cancelled and ClientGone raised.
        """
        self.scope[WAIT] = wait_s
        ours = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(disconnected(self.receive))
        try:
            await asyncio.wait((ours, gone), return_when=asyncio.FIRST_COMPLETED)
            if ours.done():
                return ours.result()
            raise ClientGone
        finally:
            gone.cancel()
            if ours.cancel():
                await asyncio.gather(ours, return_exceptions=True)


class Streamed(Protocol):
    """An answer that is made while it is sent."""

    status: int

    async def send(self, scope: Scope, receive: Receive, send: Send, stall_s: float) -> None:
        """Send it; see `tidings.api.replies.Stream` for what it raises."""


Handler = Callable[[Call], Awaitable[Reply | Streamed]]


class Endpoint:
    """One path as an ASGI callable: method to handler, errors to replies, all of it counted.

    Without Starlette's Request and Response, which cost a third of a send.
    """

    def __init__(self, route: str, handlers: Mapping[str, Handler], shared: Shared) -> None:
        self._route = route
        self._handlers = dict(handlers)
        if "GET" in handlers:
            self._handlers["HEAD"] = handlers["GET"]
        self._allow = ", ".join(sorted(self._handlers))
        self._shared = shared

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        status, stall_s = "gone", self._shared.settings.keep_alive_s
        try:
            answer = await self._answer(Call(scope, receive, self._route, self._shared))
            status = "broken"
            await (
                answer.send(send, stall_s) if isinstance(answer, Reply) else answer.send(scope, receive, send, stall_s)
            )
            status = str(answer.status)
        except ClientGone:
            status = "gone"
        except Exception as error:
            broken_off(f"{scope['method']} {self._route}", error)
            raise BrokenOff from None  # the server closes the connection: no well-formed short body
        finally:
            seconds, waited_s = time.perf_counter() - started, scope.get(WAIT, 0.0)
            self._shared.metrics.answered(self._route, scope["method"], status, seconds, waited_s)

    async def _answer(self, call: Call) -> Reply | Streamed:
        method = call.scope["method"]
        handler = self._handlers.get(method)
        if handler is None:
            refusal = MethodNotAllowed("method_not_allowed", f"Here one may {self._allow}.")
            return problem(refusal, ((b"allow", self._allow.encode()),))
        try:
            return await handler(call)
        except TidingsError as error:
            if isinstance(error, StoreUnavailable) and method != "POST":
                unread(f"{method} {self._route}", error)
            return problem(error)
        except ClientGone:
            raise
        except Exception as error:
            return fault(f"{method} {self._route}", error)


async def refuse(error: TidingsError, route: str, shared: Shared, scope: Scope, send: Send) -> None:
    """Answer a request that has no endpoint; `route` is what it is counted under."""
    shared.metrics.answered(route, scope["method"], str(error.status), 0.0)
    await problem(error).send(send, shared.settings.keep_alive_s)
