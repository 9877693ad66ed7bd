"""A bare ASGI app on the settings that Tidings gives uvicorn: what is left when a server does nothing.

`python -m bench.bare get BYTES` answers every request with that many bytes; `post BYTES` also reads the body of a send
as JSON, as Tidings does, and stores nothing. Its answers have as many headers as Tidings' own.
"""

import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
import uvicorn

FILLER = b"x"
HEADERS = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class PrivateMessage(msgspec.Struct, rename="camel"):
    """The body of a send."""

    sender_id: str
    receiver_id: str
    message: str


def getter(size: int) -> Application:
    """An application that answers `size` bytes to anything."""
    answer, headers = FILLER * size, [*HEADERS, (b"content-length", b"%d" % size)]

    async def get(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return get


def poster(size: int) -> Application:
    """An application that parses a send, stores nothing, and answers `size` bytes."""
    answer, headers = FILLER * size, [*HEADERS, (b"content-length", b"%d" % size)]
    decode = msgspec.json.Decoder(PrivateMessage).decode

    async def post(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        decode(body)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return post


def main(kind: str, size: str) -> None:
    """Serve on a free port, print it, and go on until SIGTERM."""
    app = {"get": getter, "post": poster}[kind](int(size))
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(f"Listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
