"""A foreign server that streams what a test has written down, as events and over a WebSocket, and answers polls."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from tidings.client.transports.websocket import PROTOCOL

Json = dict[str, Any]

CUT: Json = {"type": "cut"}  # the connection is lost
HANG: Json = {"type": "hang"}  # nothing more comes
STREAMS = {"stream": "sse", "live": "websocket"}


def message(seq: int, *, to: str = "bob", name: str = "") -> Json:
    """A message as the wire has it."""
    return {
        "senderId": "ann",
        "message": f"{to} {seq}",
        "recipientId": to,
        "timestamp": str(seq),
        "messageId": name or f"message-{to}-{seq}",
        "seq": seq,
    }


def told(seq: int, **other: str) -> Json:
    """The frame of a message; the cursor behind it is `c` and its seq."""
    return {"type": "message", "cursor": f"c{seq}", "message": message(seq, **other)}


def beat(cursor: str) -> Json:
    """The frame of a heartbeat."""
    return {"type": "heartbeat", "cursor": cursor}


def closed(code: str, *, retry: bool = True, after: float = 0.0, close: int = 1012) -> Json:
    """How a stream is ended: as a WebSocket closes with `close`."""
    return {"type": "closed", "code": code, "retry": retry, "after": after, "close": close}


class Streamer:
    """Answers with one script for each stream that is opened (the last again and again), and `poll`'s pages to polls.

    `refuse` answers in another way than with a stream, by the transport's name; `asked` has how each question came,
    and its cursor.
    """

    def __init__(
        self,
        *scripts: Sequence[Json],
        poll: Callable[[str | None], Json] = lambda _: {"messages": [], "cursor": "c0"},
        refuse: dict[str, web.Response] | None = None,
    ) -> None:
        self._scripts = list(scripts)
        self._poll = poll
        self.refuse = refuse or {}
        self.asked: list[tuple[str, str | None]] = []
        self.written = 0

    def ways(self) -> list[str]:
        """How it was asked, one after the other."""
        return [way for way, _ in self.asked]

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/v1/users/"):
            return web.json_response({"userId": "bob", "username": "bob", "groups": [], "blocks": []})
        way = STREAMS.get(request.path.rpartition("/")[2], "poll")
        cursor = request.query.get("cursor")
        self.asked.append((way, cursor))
        if way in self.refuse:
            refusal = self.refuse[way]
            return web.Response(status=refusal.status, body=refusal.body, content_type=refusal.content_type)
        if way == "poll":
            return web.json_response(self._poll(cursor))
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        return await (self._events if way == "sse" else self._frames)(request, script)

    async def _events(self, request: web.Request, script: Sequence[Json]) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for frame in script:
            if frame["type"] == "cut":
                assert request.transport
                request.transport.abort()
                return answer
            if frame["type"] == "hang":
                await asyncio.Event().wait()
            await answer.write(_event(frame))
            self.written += 1
        return answer

    async def _frames(self, request: web.Request, script: Sequence[Json]) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=(PROTOCOL,))
        await socket.prepare(request)
        reading = asyncio.ensure_future(socket.receive())  # answers pings, and the closing
        for frame in script:
            if frame["type"] == "cut":
                assert request.transport
                request.transport.abort()
                break
            if frame["type"] == "hang":
                await reading
            if frame["type"] == "closed":
                reason = {"code": frame["code"], "retry": frame["retry"], "after": frame["after"]}
                await socket.close(code=frame["close"], message=json.dumps(reason).encode())
                break
            await socket.send_str(json.dumps(frame))
            self.written += 1
        reading.cancel()
        return socket


def _event(frame: Json) -> bytes:
    lines = [f"event: {frame['type']}"]
    if "cursor" in frame:
        lines.append(f"id: {frame['cursor']}")
    if frame["type"] == "closed":
        lines.append(f"retry: {round(1000 * frame['after'])}")
    lines.append(f"data: {json.dumps(frame.get('message', frame))}")
    return "".join(f"{line}\n" for line in [*lines, ""]).encode()
