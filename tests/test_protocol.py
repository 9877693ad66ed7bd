"""The wire below HTTP libraries: what is too long, malformed, slow or unusual is answered as the contract says."""

import json
import re
import socket
from collections.abc import Iterator

import pytest

from tests.server import DEADLINE_S, ServerProcess

URI_MAX = 2000
HEADERS_MAX = 3000
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
OK = b'{"status":"ok"}'
SIGN_UP = b'{"username":"Ann"}'


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with small limits."""
    limits = ("--uri-max-bytes", str(URI_MAX), "--headers-max-bytes", str(HEADERS_MAX))
    bodies = ("--body-max-bytes", "4096", "--message-max-bytes", "4096")
    with ServerProcess.start(tmp_path_factory.mktemp("small"), *limits, *bodies) as server:
        yield server


@pytest.fixture
def wire(small: ServerProcess) -> Iterator[socket.socket]:
    """A connection to it, without a client library."""
    with connect(small) as connection:
        yield connection


def connect(server: ServerProcess) -> socket.socket:
    """A bare connection."""
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), DEADLINE_S)


def until_closed(wire: socket.socket) -> bytes:
    """All that comes until the server closes."""
    came = b""
    while piece := wire.recv(65_536):
        came += piece
    return came


def asked(wire: socket.socket, request: bytes) -> bytes:
    """What comes for a request after which the server closes the connection."""
    wire.sendall(request)
    return until_closed(wire)


def problem(answers: bytes) -> tuple[int, str]:
    """Status and code of the one answer that came, which must be a problem and announce the connection's end."""
    head, _, body = answers.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert b"content-type: application/problem+json" in lines
    assert b"connection: close" in lines
    assert f"content-length: {len(body)}".encode() in lines
    told = json.loads(body)
    assert head.startswith(f"HTTP/1.1 {told['status']} ".encode())
    assert told["type"] == "about:blank"
    assert told["title"]
    assert told["retry"] is False
    return told["status"], told["code"]


def target(length: int) -> bytes:
    """A request for a target of a length."""
    path = b"/healthz?x="
    return b"GET " + path + b"x" * (length - len(path)) + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def test_a_target_at_its_limit_is_served(wire: socket.socket) -> None:
    """Path and query may be as long as the setting says."""
    assert asked(wire, target(URI_MAX)).endswith(OK)


@pytest.mark.parametrize("length", [URI_MAX + 1, 500_000])
def test_a_longer_target_is_refused(wire: socket.socket, length: int) -> None:
    """A byte more, or as much as comes in many chunks, is 414."""
    assert problem(asked(wire, target(length))) == (414, "uri_too_long")


def test_a_target_without_end_is_refused(wire: socket.socket) -> None:
    """It is not kept until it ends, if it ever does."""
    assert problem(asked(wire, b"GET /" + b"x" * 10_000)) == (414, "uri_too_long")


def test_headers_at_their_limit_are_served(wire: socket.socket) -> None:
    """All headers together may be as long as the setting says."""
    assert asked(wire, GET + b"Connection: close\r\nX: " + b"x" * (HEADERS_MAX - 100) + b"\r\n\r\n").endswith(OK)


@pytest.mark.parametrize(
    "headers",
    [b"X: " + b"x" * HEADERS_MAX + b"\r\n\r\n", b"X: y\r\n" * 1000 + b"\r\n", b"X: " + b"x" * 300_000 + b"\r\n\r\n"],
    ids=["one", "many", "chunks"],
)
def test_longer_headers_are_refused(wire: socket.socket, headers: bytes) -> None:
    """One long header, many short ones, and one that comes in many chunks are 431."""
    assert problem(asked(wire, GET + headers)) == (431, "headers_too_large")


def test_headers_without_end_are_refused(wire: socket.socket) -> None:
    """What never ends is refused once it is over the limit."""
    wire.sendall(GET + b"X: ")
    assert problem(asked(wire, b"x" * (URI_MAX + HEADERS_MAX + 1))) == (431, "headers_too_large")


def test_empty_lines_without_end_are_refused(wire: socket.socket) -> None:
    """Empty lines before a request are passed over (RFC 9112, 2.2), but not for ever."""
    assert problem(asked(wire, b"\r\n" * 100_000)) == (431, "headers_too_large")


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS handshake
        b"GET / HTTX\r\n\r\n",
        b"HELO tidings\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["tls", "version", "method", "length", "two-lengths", "proxy", "bytes"],
)
def test_what_is_not_http_is_refused(wire: socket.socket, request_: bytes) -> None:
    """Everything that the parser does not take is a 400 like all others, and the log stays quiet."""
    assert problem(asked(wire, request_)) == (400, "malformed")


def test_a_malformed_chunk_is_refused(wire: socket.socket) -> None:
    """A body that can't be read to its end is a 400, though its handler already waits for it."""
    head = b"POST /v1/users/create HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    wire.sendall(head + b"1\r\n{\r\n")
    assert problem(asked(wire, b"zzz\r\n")) == (400, "malformed")


def test_a_body_without_end_is_refused(wire: socket.socket) -> None:
    """A chunked body is cut off once it is over its limit, however small its chunks."""
    head = b"POST /v1/users/create HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert re.findall(rb"HTTP/1.1 (\d+)", asked(wire, head + b"1\r\nx\r\n" * 20_000)) == [b"413"]


def test_requests_sent_together_are_answered_in_order(wire: socket.socket) -> None:
    """Pipelined requests get their answers one after the other."""
    missing = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answers = asked(wire, GET + b"\r\n" + missing + GET + b"Connection: close\r\n\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"404", b"200"]


def test_what_came_before_a_malformed_request_is_answered(wire: socket.socket) -> None:
    """A good request, then nonsense: the good one gets its own answer, and nothing comes after it."""
    answers = asked(wire, GET + b"\r\n" + b"NONSENSE\r\n\r\n")
    assert answers.startswith(b"HTTP/1.1 200")
    assert answers.endswith(OK)


def test_an_offer_of_http_2_is_passed_over(wire: socket.socket) -> None:
    """Java's client offers h2c, with a body too: that is served over HTTP/1.1, and so is what follows."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
    length = b"Content-Length: %d\r\n\r\n" % len(SIGN_UP)
    create = b"POST /v1/users/create HTTP/1.1\r\nHost: localhost\r\n" + offer + length + SIGN_UP
    answers = asked(wire, create + GET + offer + b"\r\n" + GET + b"Connection: close\r\n\r\n")
    assert answers.count(b"HTTP/1.1 200") == 3
    assert b'"username":"Ann"' in answers


def test_a_websocket_handshake_is_an_ordinary_request(wire: socket.socket) -> None:
    """Nothing speaks WebSocket yet: a handshake is answered as the plain request it also is."""
    shake = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA\r\n\r\n"
    assert asked(wire, GET + shake + GET + b"Connection: close\r\n\r\n").count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("begun", [b"", b"GET / HT", GET, b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"])
def test_a_connection_that_does_not_get_on_is_closed(tmp_path_factory: pytest.TempPathFactory, begun: bytes) -> None:
    """Who connects and sends nothing, or never ends a request, holds no connection longer than an idle one."""
    data = tmp_path_factory.mktemp("slow")
    with ServerProcess.start(data, "--keep-alive-s", "1") as server, connect(server) as wire:
        wire.sendall(begun)
        until_closed(wire)


def test_nothing_of_this_is_logged(small: ServerProcess) -> None:
    """Whoever can connect can't fill the log: none of these refusals is worth a line."""
    with connect(small) as wire:
        assert problem(asked(wire, b"NONSENSE\r\n\r\n")) == (400, "malformed")
    assert small.complaints == ""
