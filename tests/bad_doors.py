"""The rows of the table of bad input that are refused before anything of a call is read, whatever it calls."""

from collections.abc import Iterator
from dataclasses import replace

from tests.bad_input import Row


def door_rows(good: Row) -> Iterator[Row]:
    """Foreign pages and hosts, and what is too long."""
    form = b"Content-Type: application/x-www-form-urlencoded"
    plain = b"Content-Type: text/plain"
    for origin in (b"https://evil.example", b"null", b"http://localhost:1"):
        for kind in (form, plain):
            headers = (b"Origin: " + origin, kind)
            yield replace(
                good,
                name=f"origin {origin.decode()} {kind[14:25].decode()}",
                status=403,
                code="foreign_origin",
                headers=headers,
            )
    for site in (b"cross-site", b"same-site"):
        headers = (b"Sec-Fetch-Site: " + site, b"Sec-Fetch-Dest: empty")
        yield replace(good, name=site.decode(), status=403, code="foreign_origin", headers=headers)
    for name, host in (
        ("foreign host", b"Host: evil.example\r\n"),
        ("no host", b""),
        ("empty host", b"Host:\r\n"),
        ("two hosts", b"Host: localhost\r\nHost: evil.example\r\n"),
        ("one host twice", b"Host: localhost\r\nHost: localhost\r\n"),
    ):
        yield replace(good, name=name, status=403, code="foreign_host", host=host)
    origins = (b"Origin: http://localhost", b"Origin: http://localhost")
    yield replace(good, name="one origin twice", status=403, code="foreign_host", headers=origins)
    joint = b"&" if b"?" in good.target else b"?"
    longer = good.target + joint + b"x=" + b"x" * 16_384
    yield replace(good, name="long target", status=414, code="uri_too_long", target=longer, ends=True)
    long_header = (b"X-Long: " + b"x" * 33_000,)
    yield replace(good, name="long header", status=431, code="headers_too_large", headers=long_header, ends=True)
    many = tuple(b"X-%d: x" % n for n in range(4000))
    yield replace(good, name="many headers", status=431, code="headers_too_large", headers=many, ends=True)


def unwanted_body_rows(good: Row) -> Iterator[Row]:
    """A body over the limit where none is wanted: it is not read either."""
    head = b"GET %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
    for name, more in (("", b""), (", asked for", b"Expect: 100-continue\r\n")):
        raw = head % (good.target, 1 << 40) + more + b"\r\n"
        yield replace(good, name=f"over-long body{name}", status=413, code="body_too_large", raw=raw, ends=True)
