"""Fixtures over every backend; a test module asks for them by `pytest_plugins = "tests.opened"`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.backends import LOGGED, PLACES, WRITTEN, LoggedPlace, Place, sign_up
from tests.nodes import NEVER_S, Served, join, memory_of, served
from tests.redis_nodes import Cluster
from tests.wires import LocalWires, RedisWires, Wires
from tidings.feed.local import LocalFeed
from tidings.store import LoggedStore, Store


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The event loop that the server runs on."""
    return "asyncio", {"use_uvloop": True}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test runs on every store; marked `logged`, on those that keep their own news; `written`, on moto, too."""
    if "place" in metafunc.fixturenames:
        marked = {"logged": LOGGED, "written": WRITTEN}
        places = next((marked[m.name] for m in metafunc.definition.iter_markers() if m.name in marked), PLACES)
        metafunc.parametrize("place", places, indirect=True)


@pytest.fixture
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """An empty place for a store, of every kind."""
    made = WRITTEN[request.param](tmp_path)
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
async def alone(store: LoggedStore) -> AsyncIterator[Served]:
    """The one process of its server."""
    feed, memory = LocalFeed(store, None, NEVER_S), memory_of(store)
    await feed.start(0, memory)
    yield served(store, feed, memory)
    await feed.close()


@pytest.fixture
async def worker(place: LoggedPlace, store: LoggedStore, wires: Wires) -> Served:
    """One of two processes."""
    return await join(place, store, wires)
