"""The rows of the table of bad input that are no requests at all, or requests that no HTTP library would send."""

from collections.abc import Iterator

from tests.bad_input import Row

SIGN_UP = b'{"username":"dora"}'
CREATE = b"POST /v1/users/create HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = CREATE + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
WITH_LENGTH = b"Content-Length: %d\r\n" % len(SIGN_UP)

NOT_HTTP = {
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http/3.0": b"GET / HTTP/3.0\r\nHost: localhost\r\n\r\n",
    "no version": b"GET / HTTX\r\n\r\n",
    "smtp": b"HELO tidings\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "NULs": bytes(64),
    "no method of any": b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "lower case": b"get / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "proxy": b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "bytes in the target": b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "NUL in the target": b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no colon": GET + b"Nonsense\r\n\r\n",
    "space before the colon": GET + b"X : y\r\n\r\n",
    "no name": GET + b": y\r\n\r\n",
    "NUL in a header": GET + b"X: a\x00b\r\n\r\n",
    "bare CR in a header": GET + b"X: a\rb\r\n\r\n",
    "negative length": CREATE + b"Content-Length: -1\r\n\r\n",
    "length in words": CREATE + b"Content-Length: five\r\n\r\n",
    "two lengths": CREATE + WITH_LENGTH + b"Content-Length: 5\r\n\r\n" + SIGN_UP,
    "two lengths in one": CREATE + b"Content-Length: 19, 5\r\n\r\n" + SIGN_UP,
    "an endless length": CREATE + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "length and chunks": CREATE + WITH_LENGTH + b"Transfer-Encoding: chunked\r\n\r\n" + SIGN_UP,
    "chunks not last": CREATE + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + SIGN_UP,
}
BAD_CHUNKS = {
    "no size": b"zzz\r\n",
    "a negative size": b"-1\r\n",
    "an endless size": b"fffffffffffffffff\r\n",
    "more than its size": b"2\r\n{}}\r\n0\r\n\r\n",
    "no line end": b"13" + SIGN_UP,
}


def wire_rows() -> Iterator[Row]:
    """Rows of raw bytes."""
    for name, raw in NOT_HTTP.items():
        yield Row(f"not http: {name}", 400, "malformed", raw=raw, ends=True)
    for name, chunk in BAD_CHUNKS.items():
        yield Row(f"chunk of {name}", 400, "malformed", "POST /v1/users/create", raw=CHUNKED + chunk, ends=True)
    endless = CHUNKED + b"1000\r\n" + b" " * 4096 + b"\r\n"
    over = endless + (b"1000\r\n" + b" " * 4096 + b"\r\n") * 32
    yield Row("chunks without end", 413, "body_too_large", "POST /v1/users/create", "POST", raw=over, ends=True)
    yield Row("target without end", 414, "uri_too_long", raw=b"GET /" + b"x" * 100_000, ends=True)
    yield Row("headers without end", 431, "headers_too_large", raw=GET + b"X: " + b"x" * 100_000, ends=True)
    yield Row("header lines without end", 431, "headers_too_large", raw=GET + b"X: y\r\n" * 10_000, ends=True)
    yield Row("empty lines without end", 431, "headers_too_large", raw=b"\r\n" * 50_000, ends=True)
    yield Row("http/0.9", 403, "foreign_host", raw=b"GET /\r\n\r\n", ends=True)
    foreign = b"GET http://evil.example/healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    yield Row("a target of another host", 403, "foreign_host", raw=foreign)
    yield Row("http/1.0 without host", 403, "foreign_host", raw=b"GET /healthz HTTP/1.0\r\n\r\n", ends=True)
    upgrade = (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA\r\n\r\n"
    )
    foreign_page = (
        b"GET /v1/messages/<ann>/live HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n" + upgrade
    )
    yield Row("a foreign page's websocket", 403, "foreign_origin", raw=foreign_page, ends=True)
    socket = b"GET /v1/messages/<ann>/live HTTP/1.1\r\nHost: localhost\r\nSec-WebSocket-Protocol: tidings.v9\r\n"
    whole_key = upgrade.replace(b"AAAA", b"A" * 22 + b"==")
    yield Row("another subprotocol", 400, "bad_subprotocol", raw=socket + whole_key, ends=True)
    yield Row("half a websocket's key", 400, "malformed", raw=socket + upgrade, ends=True)
    yield Row("all of the server", 404, "unknown_path", raw=b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n")
