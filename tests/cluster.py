"""Several nodes on one store and one feed: each a real process, over real tables and a real redis-server."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.api_client import Api
from tests.backends import forget
from tests.redis_server import RedisServer
from tests.server import ServerProcess, until
from tests.standin import endpoint
from tidings.store.dynamodb.address import address_of
from tidings.store.dynamodb.setup import prepare


class Nodes:
    """Nodes of one cluster; where a node reaches its store and feed may be changed by `doors`."""

    def __init__(self, store: str, redis: RedisServer, processes: list[ServerProcess]) -> None:
        self.store = store
        self.redis = redis
        self.processes = processes

    @property
    def urls(self) -> list[str]:
        """Where each of them listens."""
        return [process.url for process in self.processes]


def api_of(serving: ServerProcess | Nodes) -> Api:
    """A client of a server; of nodes, of all in turn."""
    return Api(*(serving.urls if isinstance(serving, Nodes) else [serving.url]))


@contextmanager
def tables(*, make: bool = True) -> Iterator[str]:
    """The --store of new tables, deleted at the end; they may be made by somebody else."""
    store = f"dynamodb://eu-central-1/t-{secrets.token_hex(6)}?endpoint={endpoint()}"
    if make:
        asyncio.run(prepare(address_of(store), store))
    yield store
    asyncio.run(forget(address_of(store)))


@contextmanager
def nodes(directory: Path, *flags: str, count: int = 2) -> Iterator[Nodes]:
    """So many nodes, ready, that hear each other."""
    with tables() as store, RedisServer(directory) as redis, ExitStack() as stack:
        processes = [
            stack.enter_context(
                ServerProcess.start(directory, "--store", store, "--feed", redis.url, *flags),
            )
            for _ in range(count)
        ]
        for process in processes:
            until(lambda url=process.url: httpx.get(f"{url}/readyz").status_code == 200)  # type: ignore[misc]
        yield Nodes(store, redis, processes)
