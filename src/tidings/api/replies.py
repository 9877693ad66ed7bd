"""What leaves: JSON, streams, and problem+json, into which errors are translated here and nowhere else."""

import asyncio
import logging
import math
import secrets
import traceback
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from http import HTTPStatus

import msgspec
from starlette.types import Receive, Scope, Send

from tidings.errors import Internal, StoreUnavailable, TidingsError, UpgradeRequired
from tidings.log import FRAMES_MAX, places, tell

log = logging.getLogger("tidings.api")
_encode = msgspec.json.Encoder().encode

Headers = tuple[tuple[bytes, bytes], ...]

# Answers are somebody's mail: no cache keeps them, no page embeds them, no browser guesses a type for them.
SAFE: Headers = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
JSON: Headers = ((b"content-type", b"application/json"), *SAFE)
PROBLEM: Headers = ((b"content-type", b"application/problem+json"), *SAFE)

UPGRADE: Headers = ((b"upgrade", b"websocket"), (b"connection", b"upgrade"), (b"sec-websocket-version", b"13"))

PIECE = 262_144  # bytes handed to the server at once: what a reader who stops reading leaves in its buffers


class ClientGone(Exception):
    """The client closed the connection; nobody is there to answer."""


class BrokenOff(Exception):
    """An answer failed half-way: the connection is cut, so that nobody takes what came for the whole."""


class Reply(msgspec.Struct):
    """A whole answer, with its length."""

    body: bytes
    status: int = 200
    headers: Headers = JSON

    async def send(self, send: Send, stall_s: float) -> None:
        """Send it; the server leaves the body out for HEAD. Raises TimeoutError as a stream does."""
        headers = [*self.headers, (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        if len(self.body) <= PIECE:
            await send({"type": "http.response.body", "body": self.body})
            return
        for start in range(0, len(self.body), PIECE):
            await _send_in_time(send, self.body[start : start + PIECE], stall_s)
        await _send_in_time(send, b"", stall_s, is_last=True)


@dataclass(slots=True)
class Stream:
    """An answer of unknown length, made while it is sent: memory holds one chunk of it.

    Raises ClientGone when the client leaves, TimeoutError when it takes nothing for `stall_s` seconds, and what
    `chunks` raises. None of them may be answered any more.
    """

    chunks: AsyncGenerator[bytes, None]
    status: int = 200
    headers: Headers = JSON

    async def send(self, scope: Scope, receive: Receive, send: Send, stall_s: float) -> None:
        """Send chunk by chunk, as fast as the client reads."""
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            await send({"type": "http.response.start", "status": self.status, "headers": list(self.headers)})
            if scope["method"] != "HEAD":
                async for chunk in self.chunks:
                    await self._send_chunk(chunk, gone, send, stall_s)
            await _send_in_time(send, b"", stall_s, is_last=True)
        finally:
            gone.cancel()
            await self.chunks.aclose()

    async def _send_chunk(self, chunk: bytes, gone: asyncio.Future[None], send: Send, stall_s: float) -> None:
        for start in range(0, len(chunk), PIECE):
            if gone.done():
                raise ClientGone
            await _send_in_time(send, chunk[start : start + PIECE], stall_s)


async def _send_in_time(send: Send, piece: bytes, stall_s: float, *, is_last: bool = False) -> None:
    async with asyncio.timeout(stall_s):
        await send({"type": "http.response.body", "body": piece, "more_body": not is_last})


class Problem(msgspec.Struct, frozen=True):
    """An error (RFC 9457): `code` is stable, `retry` says whether the same request may succeed later."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retry: bool


def reply(value: object) -> Reply:
    """A 200 with the value as JSON."""
    return Reply(_encode(value))


def problem(error: TidingsError, headers: Headers = ()) -> Reply:
    """The one translation of our errors to HTTP."""
    if error.retry_s is not None:
        headers = (*headers, (b"retry-after", b"%d" % jittered(error.retry_s)))
    if isinstance(error, UpgradeRequired):
        headers = (*headers, *UPGRADE)
    return Reply(msgspec.json.encode(shown(error)), error.status, (*PROBLEM, *headers))


def shown(error: TidingsError) -> Problem:
    """What is said of an error."""
    return Problem("about:blank", error.title, error.status, error.detail, error.code, error.retry_s is not None)


def jittered(wait_s: float) -> int:
    """Whole seconds to wait, at least one: up to half as long again, so that those refused together don't come back so.

    Up or down by chance, since of what waits a second nearly all would be told two.
    """
    return max(1, math.floor(wait_s * (1 + secrets.randbelow(501) / 1000) + secrets.randbelow(1000) / 1000))


def fault(what: str, error: Exception) -> Reply:
    """The answer to a fault of ours; the log gets where and what kind, never the values, which may be messages."""
    return problem(internal(what, error))


def internal(what: str, error: Exception) -> Internal:
    """A fault of ours, once it is logged."""
    _tell_fault(what, "failed with", error)
    return Internal("internal", HTTPStatus.INTERNAL_SERVER_ERROR.description)


def unread(what: str, error: StoreUnavailable) -> None:
    """Log that the store could not be read; that it takes no writes, it says itself, once."""
    kind = type(error.__cause__ or error).__name__
    text = "%(what)s could not be read: %(code)s, %(kind)s"
    tell(log, logging.ERROR, "fault", text, what=what, code=error.code, kind=kind)


def broken_off(what: str, error: Exception) -> None:
    """Log why an answer failed half-way: our code for it, or as a fault."""
    if isinstance(error, TidingsError):
        tell(log, logging.ERROR, "broken_off", "%(what)s broke off: %(code)s", what=what, code=error.code)
    elif isinstance(error, TimeoutError):
        text = "%(what)s broke off: the client stopped reading"
        tell(log, logging.WARNING, "broken_off", text, what=what, code="slow_reader")
    else:
        _tell_fault(what, "broke off:", error)


def _tell_fault(what: str, how: str, error: Exception) -> None:
    frames = "".join(traceback.format_tb(error.__traceback__, -FRAMES_MAX))
    text = f"%(what)s {how} %(kind)s"
    log.error(
        text + "\n%(traceback)s",
        {"what": what, "kind": type(error).__name__, "traceback": frames},
        extra={
            "event": "fault",
            "fields": {"what": what, "kind": type(error).__name__, "frames": places(error)},
        },
    )


async def disconnected(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
