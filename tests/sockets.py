"""WebSockets in tests: a client that behaves (`opened`), and one that says what it likes (`Raw`)."""

import contextlib
import json
import re
import secrets
import socket
import struct
import time
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.server import DEADLINE_S

Json = dict[str, Any]

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def opened(url: str, user_id: str, **params: str) -> ClientConnection:
    """A socket of a user on the server at an http:// URL."""
    target = f"ws{url.removeprefix('http')}/v1/messages/{user_id}/live"
    query = f"?{urlencode(params)}" if params else ""
    offered = [Subprotocol("tidings.v1")]
    return connect(target + query, subprotocols=offered, compression="deflate", open_timeout=DEADLINE_S)


def told(on: ClientConnection) -> Json:
    """What the server says next."""
    value: Json = json.loads(on.recv(DEADLINE_S))
    return value


def told_of(on: ClientConnection, *types: str) -> Json:
    """What it says next of these types."""
    while True:
        value = told(on)
        if value["type"] in types:
            return value


def texts(on: ClientConnection, count: int) -> list[str]:
    """The texts of the next messages."""
    return [told_of(on, "message")["message"]["message"] for _ in range(count)]


def asked(on: ClientConnection, **fields: object) -> Json:
    """The answer to a send."""
    on.send(json.dumps({"type": "send", **fields}))
    return told_of(on, "sent", "refused")


def rest(on: ClientConnection) -> list[Json]:
    """All that the server says until the end."""
    said = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            said.append(told(on))
    return said


def closing(on: ClientConnection) -> tuple[int, Json]:
    """How the server closes: code and reason."""
    rest(on)
    assert on.close_code is not None
    assert on.close_reason, f"it ended without a reason: {on.close_code}"
    return on.close_code, json.loads(on.close_reason)


def frame(
    payload: bytes,
    opcode: int = TEXT,
    *,
    fin: bool = True,
    reserved: int = 0,
    is_masked: bool = True,
    mask: bytes = b"",
) -> bytes:
    """One frame (RFC 6455, 5.2), well-formed or not; a mask that is not given is made up."""
    first, length = (fin << 7) | (reserved << 4) | opcode, len(payload)
    mask_bit = is_masked << 7
    if length < 126:
        head = struct.pack("!BB", first, mask_bit | length)
    elif length < 65_536:
        head = struct.pack("!BBH", first, mask_bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, length)
    if not is_masked:
        return head + payload
    mask = mask or secrets.token_bytes(4)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def handshake(user_id: str, *lines: str, query: str = "") -> bytes:
    """The head of a handshake; `lines` are headers beside, or (with the same name) instead of, those that it needs."""
    needed = {
        "host": "localhost",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "sec-websocket-protocol": "tidings.v1",
    }
    for line in lines:
        name, _, value = line.partition(": ")
        needed[name.lower()] = value
    head = "".join(f"{name}: {value}\r\n" for name, value in needed.items() if value)
    return f"GET /v1/messages/{user_id}/live{query} HTTP/1.1\r\n{head}\r\n".encode()


class Raw:
    """A connection without a library; as a context manager it is closed at the end."""

    def __init__(self, url: str, receive_buffer: int = 0) -> None:
        where = urlsplit(url)
        self.wire = socket.socket()
        if receive_buffer:
            self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.wire.settimeout(DEADLINE_S)
        self.wire.connect((where.hostname, where.port))
        self._unread = b""

    @classmethod
    def shaken(cls, url: str, user_id: str, query: str = "", **how: int) -> Self:
        """One whose handshake was accepted."""
        made = cls(url, **how)
        made.say(handshake(user_id, query=query))
        assert made.head().startswith("HTTP/1.1 101 ")
        return made

    def say(self, data: bytes) -> None:
        """Send bytes."""
        self.wire.sendall(data)

    def head(self) -> str:
        """The head of an HTTP answer."""
        while b"\r\n\r\n" not in self._unread:
            self._more()
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        return head.decode()

    def body(self, head: str) -> bytes:
        """The body of an HTTP answer, behind its head."""
        (length,) = re.findall(r"content-length: (\d+)", head.lower())
        return self._take(int(length))

    def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame."""
        first, length = self._take(2)
        assert first & 0x80, "the server sends whole messages"
        assert not length & 0x80, "a server does not mask"
        if length == 126:
            (length,) = struct.unpack("!H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._take(8))
        return first & 0x0F, self._take(length)

    def next_of(self, opcode: int) -> bytes:
        """The payload of the next frame of a kind."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            assert time.monotonic() < deadline, f"no frame of kind {opcode}"
            found, payload = self.frame()
            if found == opcode:
                return payload

    def answers(self, count: int) -> list[Json]:
        """The next answers to sends."""
        found: list[Json] = []
        while len(found) < count:
            said = json.loads(self.next_of(TEXT))
            if "ref" in said:
                found.append(said)
        return found

    def closing(self) -> tuple[int, str]:
        """Code and name in the close frame that must come, after which the server ends the connection."""
        payload = self.next_of(CLOSE)
        assert self._rest() == b""
        (code,) = struct.unpack("!H", payload[:2])
        return code, json.loads(payload[2:])["code"]

    def _rest(self) -> bytes:
        rest = self._unread
        while piece := self.wire.recv(65_536):
            rest += piece
        return rest

    def _take(self, count: int) -> bytes:
        while len(self._unread) < count:
            self._more()
        taken, self._unread = self._unread[:count], self._unread[count:]
        return taken

    def _more(self) -> None:
        piece = self.wire.recv(65_536)
        assert piece, f"the connection ended behind {self._unread!r}"
        self._unread += piece

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.wire.close()
