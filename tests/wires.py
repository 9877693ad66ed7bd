"""Every way that feeds are connected, for the contract suites; a new feed is one more `Wires`, named in `WIRES`."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.redis_server import URL, RedisServer
from tidings.board import Board
from tidings.feed import Feed, Listener
from tidings.feed.local import LocalFeed
from tidings.feed.redis import RedisFeed
from tidings.feed.redis.bounds import WIDE, Bounds
from tidings.feed.wakes import Wakes
from tidings.store import LoggedStore, Store


class Wires(Protocol):
    """What lies between the feeds of one store's nodes. What is started here is closed at the end of the test."""

    async def start(self, store: Any, listener: Listener, look_s: float, *, after: int = 0) -> Feed:
        """A started feed, as one more node on that store."""

    async def leave(self, feed: Feed) -> None:
        """Close what was started here."""


_SEATS_MAX = 64


class LocalWires:
    """A directory of sockets, as the processes of one server share it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "wakes"
        self._directory.mkdir()
        self._board = Board(_SEATS_MAX)
        self._seats = count()
        self._started: list[Feed] = []

    async def start(self, store: LoggedStore, listener: Listener, look_s: float, *, after: int = 0) -> Feed:
        wakes = Wakes(str(self._directory), self._board, next(self._seats))
        feed = LocalFeed(store, wakes, look_s)
        self._started.append(feed)
        await feed.start(after, listener)
        return feed

    async def leave(self, feed: Feed) -> None:
        self._started.remove(feed)
        await feed.close()

    def cut(self) -> None:
        for path in self._directory.iterdir():
            path.unlink()

    async def close(self) -> None:
        for feed in self._started[:]:
            await self.leave(feed)


class HeldFloor:
    """A floor as every store keeps one, in memory; raised from outside, the server's clock is behind it."""

    def __init__(self) -> None:
        self.at = 0

    async def floor(self) -> int:
        return self.at

    async def raise_floor(self, to: int) -> None:
        self.at = max(self.at, to)


class CountedFeed:
    """What a feed counts, to be looked at."""

    def __init__(self) -> None:
        self.lags: list[float] = []
        self.turns: list[str] = []
        self.resets: list[str] = []
        self.lost = 0
        self.anew = 0
        self.settling = 0

    def feed_lag(self, seconds: float) -> None:
        self.lags.append(seconds)

    def feed_turn(self, why: str) -> None:
        self.turns.append(why)

    def feed_reset(self, why: str) -> None:
        self.resets.append(why)

    def feed_lost(self) -> None:
        self.lost += 1

    def stamps_anew(self, count: int) -> None:
        self.anew += count

    def settling_wait(self) -> None:
        self.settling += 1


class RedisWires:
    """A redis-server of the test's own, or the one that TIDINGS_TEST_REDIS names."""

    def __init__(self, directory: Path, *more: str) -> None:
        self._server = None if URL and not more else RedisServer(directory, *more)
        self.floor = HeldFloor()
        self._started: list[Feed] = []

    async def start(self, store: Store, listener: Listener, look_s: float, *, after: int = 0) -> Feed:
        return await self.start_with(store.generation, listener, CountedFeed(), WIDE, after)

    async def start_with(
        self, generation: int, listener: Listener, counts: CountedFeed, bounds: Bounds, after: int = 0
    ) -> RedisFeed:
        """A started feed, with what only tests of this feed look at and change."""
        feed = RedisFeed(self.server.url if self._server else URL, generation, self.floor, counts, bounds)
        self._started.append(feed)
        await feed.start(after, listener)
        return feed

    async def leave(self, feed: Feed) -> None:
        self._started.remove(feed)
        await feed.close()

    def waiting(self, feed: RedisFeed) -> int:
        """How many wait there until something is settled."""
        return len(feed._talks.settling._waiting)

    @property
    def server(self) -> RedisServer:
        """To do what a server suffers."""
        if self._server is None:
            pytest.skip("TIDINGS_TEST_REDIS names a server that is not the test's to stop")
        return self._server

    async def close(self) -> None:
        for feed in self._started[:]:
            await self.leave(feed)
        if self._server is not None:
            self._server.kill()


WIRES: dict[str, Callable[[Path], LocalWires | RedisWires]] = {"local": LocalWires, "redis": RedisWires}
