"""Server-Sent Events (WHATWG HTML, 9.2): a session written to its connection as text/event-stream.

Every event with an id is a place to resume from: a browser sends the last one as `Last-Event-ID` by itself. The head
goes the way of all answers, and events straight to the transport, since a task for each would cost as much again.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from starlette.types import Receive, Scope, Send

from tidings.api.replies import SAFE, ClientGone, Headers
from tidings.live.session import Ending, Event, Session
from tidings.live.streams import Streams

CONNECTION = "tidings.connection"  # in the scope: whose transport is written to
RETRY_MS = 1_000  # after a connection that just broke; EventSource's own default is several seconds
_HEADERS: Headers = ((b"content-type", b"text/event-stream"), *SAFE, (b"x-accel-buffering", b"no"))  # the last: nginx


class Carrier(Protocol):
    """Who is told what becomes of a connection that carries a stream."""

    def paused(self) -> None:
        """The client does not take what was written."""

    def resumed(self) -> None:
        """It has."""

    def gone(self) -> None:
        """The connection is lost."""


class _Closed(msgspec.Struct):
    code: str
    detail: str
    retry: bool


class EventStream:
    """The outlet and the carrier of one session; as an answer, it is sent like any other."""

    __slots__ = ("_connection", "_headers", "_session", "_stall_s", "_stalled", "_streams")
    status = 200

    def __init__(self, streams: Streams, session: Session, headers: Headers) -> None:
        self._streams = streams
        self._session = session
        self._headers = headers
        self._stalled: asyncio.TimerHandle | None = None
        self._stall_s = 0.0
        self._connection: Any  # the protocol: its transport, its flow, and whose carrier this is

    async def send(self, scope: Scope, receive: Receive, send: Send, stall_s: float) -> None:
        """Carry the session to its end. Raises ClientGone, and TimeoutError for a client that takes nothing."""
        with self._session:
            await self._send(scope, send, stall_s)

    async def _send(self, scope: Scope, send: Send, stall_s: float) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, *self._headers]})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        self._connection, self._stall_s = scope[CONNECTION], stall_s
        if self._connection.transport.is_closing():  # it left before there was anybody to tell
            raise ClientGone
        self._connection.carry(self)
        # A client that vanished says nothing: what is not even acknowledged for so long ends the connection (tcp(7)).
        # One that is there and does not read is cut before, with a word in the log.
        self._connection.transport.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(2 * stall_s * 1000)
        )
        self._write(b"retry: %d\n\n" % RETRY_MS)
        try:
            with self._streams.beating(self._session):
                ending = await self._session.run(self)
        finally:
            self._connection.carrier = None
            self._stop_stalling()
        if self._connection.transport.is_closing():
            return  # its reader has left, which is how a stream ends well
        self._close(ending)
        if ending.code == "slow_reader":
            raise TimeoutError
        await send({"type": "http.response.body", "body": b""})

    @property
    def is_full(self) -> bool:
        """Whether the client has not taken what was written."""
        return bool(self._connection.flow.write_paused)

    def write(self, events: Sequence[Event]) -> None:
        """Messages, oldest first."""
        parts = [b"id: %b\nevent: message\ndata: %b\n\n" % (event.cursor.encode(), event.encoded) for event in events]
        self._write(b"".join(parts))

    def heartbeat(self, cursor: str) -> None:
        """Nothing new: the cursor so far."""
        self._write(b'id: %b\nevent: heartbeat\ndata: {"cursor":"%b"}\n\n' % (cursor.encode(), cursor.encode()))

    def expired(self) -> None:
        """Some messages before those that follow are not kept any more."""
        self._write(b'event: expired\ndata: {"expired":true}\n\n')

    def paused(self) -> None:
        """The client does not take what was written: it is waited for, but not for ever."""
        self._stalled = asyncio.get_running_loop().call_later(self._stall_s, self._session.give_up)

    def resumed(self) -> None:
        """It has."""
        self._stop_stalling()
        self._session.resume()

    def gone(self) -> None:
        """The connection is lost."""
        self._session.end()

    def _stop_stalling(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _close(self, ending: Ending) -> None:
        """The last event: why, and when to come back; a browser tries that even where it may not."""
        closed = msgspec.json.encode(_Closed(ending.code, ending.detail, ending.retry_s is not None))
        retry = b"retry: %d\n" % (RETRY_MS // 2 + round(ending.retry_s * 1000)) if ending.retry_s is not None else b""
        self._write(b"%bevent: closed\ndata: %b\n\n" % (retry, closed))

    def _write(self, text: bytes) -> None:
        transport = self._connection.transport
        if not transport.is_closing():
            transport.write(b"%x\r\n%b\r\n" % (len(text), text))
