"""Fixtures over every backend; a test module asks for them by `pytest_plugins = "tests.opened"`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.backends import PLACES, LocalWires, Place, RedisWires, Wires, sign_up
from tests.nodes import NEVER_S, Served, join, memory_of, served
from tests.redis_nodes import Cluster
from tidings.feed.local import LocalFeed
from tidings.store import Store


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The event loop that the server runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(params=PLACES)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """An empty place for a store, of every kind."""
    made = PLACES[request.param](tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def wires(place: Place, tmp_path: Path) -> AsyncIterator[LocalWires]:
    """What connects the processes of one server; made after `place`, so that feeds end before their stores."""
    made = LocalWires(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Nodes of nothing but a feed, on a redis-server of the test's own."""
    wires = RedisWires(tmp_path)
    yield Cluster(wires)
    await wires.close()


@pytest.fixture
async def store(place: Place) -> Store:
    """A new store, served."""
    return await place.serve()


@pytest.fixture
async def ann(store: Store) -> str:
    return await sign_up(store, "ann")


@pytest.fixture
async def bob(store: Store) -> str:
    return await sign_up(store, "bob")


@pytest.fixture
async def carol(store: Store) -> str:
    return await sign_up(store, "carol")


@pytest.fixture
async def eve(store: Store) -> str:
    return await sign_up(store, "eve")


@pytest.fixture
async def alone(store: Store) -> AsyncIterator[Served]:
    """The one process of its server."""
    feed, memory = LocalFeed(store, None, NEVER_S), memory_of(store)
    await feed.start(0, memory)
    yield served(store, feed, memory)
    await feed.close()


@pytest.fixture
async def worker(place: Place, store: Store, wires: Wires) -> Served:
    """One of two processes."""
    return await join(place, store, wires)
