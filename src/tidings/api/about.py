"""What the server says of itself: that it is up, whether it is ready, what it counted, what can be asked of it."""

import base64
import hashlib
import re
from pathlib import Path

import msgspec

from tidings.api.call import Call
from tidings.api.operation import operation
from tidings.api.replies import SAFE, Reply, reply
from tidings.metrics import CONTENT_TYPE


class Status(msgspec.Struct):
    """How the server is."""

    status: str


@operation("root", "That somebody is there", answer=Status, example=Status("ok"))
async def root(call: Call) -> Reply:
    """Answer programs; browsers get the console, later."""
    return reply(Status("ok"))


@operation("isAlive", "Whether the process answers", answer=Status, example=Status("ok"))
async def healthz(call: Call) -> Reply:
    """Be alive."""
    return reply(Status("ok"))


@operation(
    "isReady",
    "Whether this server should get calls",
    answer=Status,
    example=Status("ready"),
    codes=("shutting_down", "store_unavailable", "feed_unavailable"),
)
async def readyz(call: Call) -> Reply:
    """Be ready, or say why not."""
    call.services.is_ready()
    return reply(Status("ready"))


@operation(
    "scrape",
    "What all workers counted, for Prometheus",
    answer=str,
    example="tidings_commit_batch_size_sum 1.0\n",
    media="text/plain",
)
async def metrics(call: Call) -> Reply:
    """Give the counts."""
    return Reply(call.shared.metrics.scrape(), headers=((b"content-type", CONTENT_TYPE), *SAFE))


@operation("describe", "This description (OpenAPI 3.1)", answer=dict, example={"openapi": "3.1.0"})
async def openapi(call: Call) -> Reply:
    """Give the description."""
    return Reply(call.shared.openapi)


@operation(
    "docs",
    "This description as a page for people",
    answer=str,
    example="<!doctype html>...",
    media="text/html",
)
async def docs(call: Call) -> Reply:
    """Give the page."""
    return DOCS


def _page(html: bytes) -> Reply:
    """A page that may run its own script and style, and may call this server; nothing else, from nowhere."""

    def hashed(tag: bytes) -> bytes:
        inside = re.search(b"<%b>(.*?)</%b>" % (tag, tag), html, re.DOTALL)
        return base64.b64encode(hashlib.sha256(inside[1] if inside else b"").digest())

    policy = (
        b"default-src 'none'; script-src 'sha256-%b'; style-src 'sha256-%b'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'" % (hashed(b"script"), hashed(b"style"))
    )
    content_type = (b"content-type", b"text/html; charset=utf-8")
    return Reply(html, headers=(content_type, (b"content-security-policy", policy), *SAFE))


DOCS = _page(Path(__file__).with_name("docs.html").read_bytes())
