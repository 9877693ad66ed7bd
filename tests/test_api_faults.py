"""Faults of ours, at the endpoint itself: no client can bring them about, so each is planted in a handler."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from tidings.api.call import Call, Endpoint, Handler, Shared
from tidings.api.replies import BrokenOff, Reply, Stream
from tidings.config import Settings
from tidings.errors import Unavailable
from tidings.metrics import Metrics

SECRET = "what ann wrote to bob"


async def break_down(call: Call) -> Reply:
    raise ValueError(SECRET)


async def be_overloaded(call: Call) -> Reply:
    raise Unavailable("overloaded", "Too much.", retry_s=2)


async def break_off(call: Call) -> Stream:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b'{"messages":['
        raise ValueError(SECRET)

    return Stream(chunks())


class Spoken:
    """An ASGI server's two ends: what was sent, and a client that asks once and then listens."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self._asked = False

    async def receive(self) -> Any:
        if self._asked:
            await asyncio.Event().wait()
        self._asked = True
        return {"type": "http.request", "body": b""}

    async def send(self, message: Any) -> None:
        self.sent.append(message)


def ask(handler: Handler) -> tuple[Spoken, Metrics]:
    metrics, spoken = Metrics(), Spoken()
    nothing = cast(Any, None)
    shared = Shared(services=nothing, settings=Settings(), metrics=metrics, openapi=b"", streams=nothing)
    endpoint = Endpoint("/faulty", {"GET": handler}, shared)
    scope = {"type": "http", "method": "GET", "headers": [], "query_string": b""}
    asyncio.run(endpoint(scope, spoken.receive, spoken.send))
    return spoken, metrics


def test_an_unexpected_error_is_a_500_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The client learns that it was our fault; the log where and of what kind; nobody reads what the message said."""
    spoken, metrics = ask(break_down)
    start, body = spoken.sent
    assert start["status"] == 500
    assert json.loads(body["body"])["code"] == "internal"
    assert "ValueError" in caplog.text
    assert "in break_down" in caplog.text
    assert SECRET not in caplog.text + str(spoken.sent)
    assert 'route="/faulty",status="500"} 1.0' in metrics.scrape().decode()


def test_a_refusal_that_may_pass_says_when_to_come_back(caplog: pytest.LogCaptureFixture) -> None:
    """Retry-After is whole seconds, at least what the error asks for and at most half as much again."""
    for _ in range(20):
        spoken, _ = ask(be_overloaded)
        headers = dict(spoken.sent[0]["headers"])
        assert spoken.sent[0]["status"] == 503
        assert 2 <= int(headers[b"retry-after"]) <= 3
    assert caplog.text == ""


def test_a_stream_that_fails_is_never_finished(caplog: pytest.LogCaptureFixture) -> None:
    """What was sent stays unfinished and the server is told to cut the connection; the text stays out of the log."""
    caplog.set_level(logging.ERROR)
    with pytest.raises(BrokenOff) as broken:
        ask(break_off)
    assert broken.value.__cause__ is None
    assert "GET /faulty broke off: ValueError" in caplog.text
    assert SECRET not in caplog.text
