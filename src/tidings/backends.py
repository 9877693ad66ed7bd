"""The store and the feed that the settings name, opened together: on one machine the store is its own feed."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from tidings.board import Board
from tidings.config import Settings
from tidings.errors import no_driver
from tidings.feed import Feed
from tidings.feed.local import LocalFeed
from tidings.feed.wakes import Wakes
from tidings.metrics import Metrics
from tidings.metrics.shared import SharedMetrics
from tidings.model import Batch
from tidings.store import Store, open_store
from tidings.tail import Tail

REBUILT = 20_000  # changes that a starting tail takes from the store or the feed at most: 0.2 s


@dataclass(frozen=True)
class Worker:
    """What makes a process one of several: the run they share, its seat among them, their board and wake-up sockets."""

    run: int
    seat: int
    board: Board
    wake_dir: str


@dataclass(frozen=True)
class Backends:
    """A store, a feed to be started, and the position `after` which the tail begins.

    `learn` is to be given what the feed tells, `attach` the tail that holds it.
    """

    store: Store
    feed: Feed
    after: int
    learn: Callable[[Batch], None] | None = None
    attach: Callable[[Tail], None] = lambda tail: None


async def open_backends(settings: Settings, metrics: Metrics, worker: Worker | None, stack: AsyncExitStack) -> Backends:
    """Open both; `stack` closes them, the feed first. Raises StartError."""
    if settings.is_embedded:
        return await _embedded(settings, metrics, worker, stack)
    return await _shared(settings, metrics, stack)


async def _embedded(settings: Settings, metrics: Metrics, worker: Worker | None, stack: AsyncExitStack) -> Backends:
    """A file, and the news that it keeps."""
    run, board = (worker.run, worker.board) if worker else (None, None)
    store = await open_store(settings, metrics, run, board)
    stack.push_async_callback(store.close)
    wakes = Wakes(worker.wake_dir, worker.board, worker.seat) if worker else None
    feed = LocalFeed(store, wakes, settings.feed_look_s, metrics.freshness_check)
    stack.push_async_callback(feed.close)
    return Backends(store, feed, await store.recent(int(settings.tail_window_s * 1000), REBUILT))


async def _shared(settings: Settings, metrics: Metrics, stack: AsyncExitStack) -> Backends:
    """Tables and a stream, which other nodes share. Each needs the other: the floor of its clock, and its stamps."""
    try:
        from tidings.feed.redis import RedisFeed  # drivers are imported only when asked for
        from tidings.store.dynamodb import DynamoStore
    except ImportError:
        raise no_driver() from None

    counts = SharedMetrics(metrics)
    store = await DynamoStore.open(settings, counts)
    stack.push_async_callback(store.close)
    feed = RedisFeed(settings.feed, store.generation, store, counts)
    stack.push_async_callback(feed.close)
    store.stamp_with(feed)
    counts.watch(lambda: feed.proof_age_s, lambda: feed.position, lambda: feed.held)

    def attach(tail: Tail) -> None:
        store.announce_with(feed.publish, tail.has_told)

    return Backends(store, feed, await feed.recent(REBUILT), store.learn, attach)
