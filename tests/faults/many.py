"""Nodes of one cluster that come to harm: killed, stopped, cut off from their feed or their store, out of time."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import urlsplit

import httpx

from tests.api_client import counted
from tests.cluster import tables
from tests.faults.calls import Target
from tests.faults.clock import Clock
from tests.faults.door import Leads, Order
from tests.faults.doors import Doors
from tests.faults.mortal import Mortal
from tests.redis_server import RedisServer
from tests.server import StartFailed, until

T = TypeVar("T")

PATIENCE_S = 60.0  # for an answer: a poll by timestamp makes four reads and more, each of which may wait for 10 s
HOT_S = 30.0  # within so long after a fault polls are hot again
PROBES = 10  # polls in one look whether they are
FLAGS = ("--heartbeat-s", "1", "--waits-per-user-max", "1000")
SMALL = ("--tail-max-bytes", "20000", "--tail-window-s", "2")  # of one node, so that much is read from the store


class Many:
    """Three nodes, each behind two doors of its own. The first lives by `clock`; the last remembers little.

    `hears`: the doors to the store take calls apart.
    """

    def __init__(self, directory: Path, *, hears: bool = False, clock: Clock | None = None) -> None:
        self._directory = directory
        self._hears = hears
        self._clock = clock
        self._stack = ExitStack()
        self._stops: list[tuple[str, float, float]] = []  # which node stood still, from when to when
        self._anew = 0  # counted by nodes that were killed
        self._restarting = ThreadPoolExecutor()
        self._restarts: list[Future[None]] = []
        self.nodes: list[Mortal] = []

    def __enter__(self) -> Self:
        with self._stack:
            store = self._stack.enter_context(tables())
            self.redis = self._stack.enter_context(RedisServer(self._directory))
            endpoint = urlsplit(store.partition("?endpoint=")[2])
            to_redis = Leads("127.0.0.1", self.redis.port)
            to_store = Leads(endpoint.hostname or "", endpoint.port or 0, self._hears)
            self.doors = self._stack.enter_context(Doors([to_redis, to_store] * 3))
            self._prefix = store.partition("?")[0]
            with ThreadPoolExecutor() as starting:
                self.nodes = list(starting.map(self._begin, range(3)))
            self.target = Target(self.urls[0], threading.Event(), self.urls[1:], self._may_hang, PATIENCE_S)
            self.target.up.set()
            until(lambda: all(self._is_ready(url) for url in self.urls))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._restarting.shutdown()
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    @property
    def urls(self) -> tuple[str, ...]:
        """Where the nodes listen, in every life."""
        return tuple(node.url for node in self.nodes)

    @property
    def errors(self) -> str:
        """What all of them said on stderr."""
        return "".join(node.errors for node in self.nodes)

    def newcomer(self) -> Mortal:
        """One more node, that remembers nothing; a context manager."""
        return self._start(0, "newcomer")

    def kill(self, number: int) -> None:
        """SIGKILL a node."""
        self._anew += self._anew_of(self.nodes[number].url)
        self.nodes[number].kill()

    def end(self, number: int) -> None:
        """SIGTERM; it must end well."""
        self._anew += self._anew_of(self.nodes[number].url)
        self.nodes[number].end()

    @contextmanager
    def stopped(self, number: int) -> Iterator[None]:
        """A node that stands still, as if its machine slept."""
        node, begin = self.nodes[number], time.monotonic()
        self._stops.append((node.url, begin, float("inf")))
        node.process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            node.process.signal(signal.SIGCONT)
            self._stops[-1] = (node.url, begin, time.monotonic())

    def feed_door(self, number: int, **how: float | bool | str) -> Order:
        """An order for the door between a node and its feed."""
        return Order(2 * number, **how)  # type: ignore[arg-type]

    def store_door(self, number: int, **how: float | bool | str) -> Order:
        """The same of its store."""
        return Order(2 * number + 1, **how)  # type: ignore[arg-type]

    def until_hot(self, user: str) -> float:
        """Wait until polls of somebody who gets nothing are hot at every node; how many seconds that took."""
        begin = time.monotonic()
        while self._restarts:
            self._restarts.pop().result()
        for url in self.urls:
            until(lambda url=url: self._is_hot(url, user), HOT_S, f"polls at {url} stay cold")  # type: ignore[misc]
        took_s = time.monotonic() - begin
        assert took_s < HOT_S, f"polls were hot again after {took_s:.1f} s"
        return took_s

    def until_quiet(self, users: Mapping[str, str]) -> None:
        """Nobody sends any more: wait until every node shows by timestamp what it shows by cursor, as do all others."""

        def shown() -> set[tuple[int, ...]]:
            return {
                tuple(_count(url, user, query) for user in users.values())
                for url in self.urls
                for query in ({"limit": "1000"}, {"limit": "1000", "timestamp": "1"})
            }

        until(lambda: len(shown()) == 1, 60, "nodes show different things, or by timestamp others than by cursor")

    @property
    def stamps_anew(self) -> int:
        """How many messages were told under a later timestamp than they have."""
        return self._anew + sum(self._anew_of(url) for url in self.urls)

    def restart(self, number: int) -> None:
        """Start a node again that was killed or ended, as often as it takes; `until_hot` waits for it."""
        self._restarts.append(self._restarting.submit(self._restart, self.nodes[number]))

    def _begin(self, number: int) -> Mortal:
        """Start a node that is ended with all."""
        node = self._insist(lambda: self._start(number))
        return self._stack.enter_context(node)

    def _restart(self, node: Mortal) -> None:
        self._insist(node.restart)

    def _insist(self, start: Callable[[], T]) -> T:
        """Start something, as often as it takes: the node is cut off from its store, or the machine is busy."""
        deadline = time.monotonic() + HOT_S
        while True:
            try:
                return start()
            except StartFailed:
                if time.monotonic() > deadline:
                    raise

    def _start(self, number: int, name: str = "") -> Mortal:
        feed, store = self.doors.ports[2 * number : 2 * number + 2]
        data = self._directory / (name or f"node-{number}")
        data.mkdir(exist_ok=True)
        places = f"{self._prefix}?endpoint=http://127.0.0.1:{store}", f"redis://127.0.0.1:{feed}/0"
        env = self._clock.env if self._clock and not number else None
        return Mortal(data, "--store", places[0], "--feed", places[1], *FLAGS, *(SMALL if number == 2 else ()), env=env)

    def _may_hang(self, url: str, since: float) -> bool:
        return any(where == url and until >= since for where, _, until in self._stops)

    def _is_ready(self, url: str) -> bool:
        return httpx.get(f"{url}/readyz", timeout=PATIENCE_S).status_code == 200

    def _anew_of(self, url: str) -> int:
        return int(counted(httpx.get(f"{url}/metrics", timeout=PATIENCE_S).text, "tidings_stamps_anew_total"))

    def _is_hot(self, url: str, user: str) -> bool:
        """Whether of so many polls, and those of others meanwhile, nearly all are hot."""
        try:
            with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
                cursor = client.get(f"/v1/messages/{user}", params={"limit": "10"}).json()["cursor"]
                before = _polls(client.get("/metrics").text)
                for _ in range(PROBES):
                    client.get(f"/v1/messages/{user}", params={"cursor": cursor})
                after = _polls(client.get("/metrics").text)
        except (httpx.HTTPError, KeyError):
            return False
        hot, cold = (after[kind] - before[kind] for kind in ("hot", "cold"))
        return hot >= PROBES > 2 * cold


def _polls(text: str) -> dict[str, float]:
    kinds = {"hot": 0.0, "cold": 0.0}
    for kind, number in re.findall(r'^tidings_polls_total{kind="(\w+)".*} (\S+)$', text, re.MULTILINE):
        kinds[kind] += float(number)
    return kinds


def _count(url: str, user: str, query: dict[str, str]) -> int:
    """How many messages there are for a user, page after page; -1 if that can't be said now."""
    count = 0
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        while True:
            answer = client.get(f"/v1/messages/{user}", params=query)
            if answer.status_code != 200:
                return -1
            body = answer.json()
            messages = body["messages"] or []
            count += len(messages)
            if not body.get("more"):
                return count
            query = {"limit": "1000"} | (
                {"timestamp": messages[-1]["timestamp"]} if "timestamp" in query else {"cursor": body["cursor"]}
            )


def run_s(default: float) -> float:
    """How long to go on with a fault: FAULTS_S, or what is enough for CI."""
    return float(os.environ.get("FAULTS_S") or default)
