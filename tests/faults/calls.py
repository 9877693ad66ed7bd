"""HTTP calls that know what can be said of their outcome: answered, refused, unknown, or surely not sent."""

import contextlib
import http.client
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from tidings.history import Outcome

TIMEOUT_S = 30.0  # far above anything but a hang
NO_EFFECT = {"overloaded", "shutting_down"}  # the 503s of a server that did not begin


class NotSent(Exception):
    """Nobody listens: the call was surely not made."""


def _never(url: str, since: float) -> bool:
    return False


@dataclass
class Target:
    """Where the server is, or nodes that are called at random; `up` is set while some is thought to be there.

    `may_hang` says whether one may have been standing still at some time since a moment of the monotonic clock, so that
    no answer proves nothing; `patience_s` is how long any is waited for.
    """

    url: str
    up: threading.Event
    others: tuple[str, ...] = ()
    may_hang: Callable[[str, float], bool] = _never
    patience_s: float = TIMEOUT_S

    @property
    def urls(self) -> tuple[str, ...]:
        """All of them."""
        return (self.url, *self.others)


@dataclass(frozen=True)
class Answer:
    """What came back, and when; `data` is the body, {} if there was none."""

    invoked: int
    answered: int
    status: int
    data: dict[str, Any]

    @property
    def outcome(self) -> Outcome:
        if self.status == 200:
            return "ok"
        return "refused" if 400 <= self.status < 500 or self.code in NO_EFFECT else "unknown"

    @property
    def code(self) -> str:
        return str(self.data.get("code", "")) if self.status != 200 else ""


class Line:
    """One client's connection, made anew after each failure and, with probability `fresh`, before any call."""

    def __init__(self, target: Target, rng: random.Random, fresh: float = 0.0) -> None:
        self._target = target
        self._rng = rng
        self._fresh = fresh
        self._connection: http.client.HTTPConnection | None = None
        self._url = target.url

    def get(self, path: str, **query: object) -> Answer:
        """GET; a parameter that is None is left out."""
        wanted = {name: value for name, value in query.items() if value is not None}
        return self._call("GET", f"{path}?{urlencode(wanted)}" if wanted else path, None, "")

    def post(self, path: str, body: dict[str, str], key: str = "") -> Answer:
        """POST a JSON body."""
        return self._call("POST", path, json.dumps(body).encode(), key)

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.renew()

    def hang_up(self, path: str, body: bytes | None = None) -> Answer:
        """Make a call, and break the connection without waiting for the answer."""
        connection = self._connected()
        invoked = time.monotonic_ns()
        with contextlib.suppress(OSError):
            connection.request("GET" if body is None else "POST", path, body)
        self.renew()
        return Answer(invoked, time.monotonic_ns(), 0, {})

    def renew(self) -> None:
        """Let the next call use a new connection: maybe another worker's."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _call(self, method: str, path: str, body: bytes | None, key: str) -> Answer:
        if self._rng.random() < self._fresh:
            self.renew()
        connection = self._connected()
        headers = {"Content-Type": "application/json"} if body else {}
        if key:
            headers["Idempotency-Key"] = key.replace(" ", "-")
        invoked = time.monotonic_ns()
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read()
            status, data = response.status, json.loads(text or b"{}")
        except TimeoutError:
            self.renew()
            if not self._target.may_hang(self._url, invoked / 1e9):
                raise
            status, data = 0, {}
        except (OSError, http.client.HTTPException, ValueError):
            self.renew()
            status, data = 0, {}
        else:
            if response.will_close:
                self.renew()
        return Answer(invoked, time.monotonic_ns(), status, data)

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            self._url = self._rng.choice(self._target.urls)
            parts = urlsplit(self._url)
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=self._target.patience_s)
            try:
                connection.connect()
            except OSError as error:
                raise NotSent(str(error)) from None
            self._connection = connection
        return self._connection


def line_to(url: str, *, fresh: float = 0.0, seed: int = 1) -> Line:
    """A line to a server that stays; use it as a context manager."""
    target = Target(url, threading.Event())
    target.up.set()
    return Line(target, random.Random(seed), fresh)
