"""How it is put together: tail, directory and services over the store and feed that `backends.py` opens.

`App` is the ASGI callable; `api/hot.py` answers polls without news, the routes all else; the protocol
gets its short ways from it (`find_response`, `sends`, `sockets`).
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack

from starlette.types import Receive, Scope, Send

from tidings.api.hot import HotPolls
from tidings.api.limits import Guard
from tidings.api.sends import Sends
from tidings.api.wire import Headers
from tidings.backends import Worker, open_backends
from tidings.config import Settings
from tidings.directory import Directory
from tidings.errors import StartError, TidingsError
from tidings.live import Streams
from tidings.live.websocket import Sockets
from tidings.metrics import Metrics
from tidings.model import Batch
from tidings.routes import build
from tidings.service import Groups, Messages, Node, Services, Users
from tidings.tail import Tail

FLUSH_S = 1.0  # how old another worker's counts may be in a scrape


class Memory:
    """The feed's listener: the directory first, so that who is woken by the tail finds it right.

    `learn` is told of each batch before.
    """

    def __init__(self, directory: Directory, tail: Tail, learn: Callable[[Batch], None] | None = None) -> None:
        self._directory = directory
        self._tail = tail
        self._learn = learn

    @property
    def is_awaited(self) -> bool:
        """Whether a call waits for news."""
        return self._tail.is_awaited

    def apply(self, batch: Batch) -> None:
        """Take all changes of a batch."""
        if self._learn is not None:
            self._learn(batch)
        self._directory.apply(batch)
        self._tail.apply(batch)

    def reset(self, position: int, latest: int | None = None) -> None:
        """Forget everything."""
        self._directory.reset(position, latest)
        self._tail.reset(position, latest)


async def assemble(settings: Settings, metrics: Metrics, worker: Worker | None, stack: AsyncExitStack) -> Services:
    """Open every part; `stack` closes them. Raises StartError."""
    ends = await open_backends(settings, metrics, worker, stack)
    store, feed = ends.store, ends.feed
    tail = Tail(settings.tail_window_s, settings.tail_max_bytes)
    ends.attach(tail)
    directory = Directory(store, settings.directory_max_users, settings.directory_max_heads)
    await feed.start(ends.after, Memory(directory, tail, ends.learn))
    node = Node(settings, store, feed, tail, directory)
    messages = Messages(node, metrics.hot, metrics.cold)
    metrics.observe_with(
        lambda: {
            "tidings_tail_messages": tail.messages,
            "tidings_tail_bytes": tail.bytes,
            "tidings_directory_users": directory.users,
            "tidings_directory_heads": directory.heads_held,
            "tidings_waits": messages.waits,
            "tidings_writes_waiting": store.waiting,
        }
    )
    return Services(node, Users(node), Groups(node), messages)


class App:
    """One process's ASGI application; `worker` says which of several it is.

    After a start that failed, `failure` says why.
    """

    def __init__(self, settings: Settings, worker: Worker | None = None) -> None:
        self._settings = settings
        self._worker = worker
        counts_dir = os.environ.get("PROMETHEUS_MULTIPROC_DIR") if worker else None
        self._metrics = Metrics(counts_dir, settings.slow_call_s)
        self._services: Services
        self._answer: HotPolls
        self._sends: Sends
        self._sockets: Sockets
        self.failure: StartError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a call, or the server's own start and end (ASGI lifespan)."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._answer(scope, receive, send)

    def find_response(self, target: bytes, headers: Headers, common: Headers) -> bytes | None:
        """The whole response to a GET that is a hot poll, for the protocol; None if it is anything else."""
        return self._answer.find_response(target, headers, common)

    @property
    def sends(self) -> Sends:
        """Plain sends, for the protocol."""
        return self._sends

    @property
    def sockets(self) -> Sockets:
        """WebSockets, for the protocol."""
        return self._sockets

    def count_pause(self, generation: int, seconds: float) -> None:
        """Count a pause of the garbage collector."""
        self._metrics.pause(generation, seconds)

    def drain(self) -> None:
        """Let those who wait go, because the server stops."""
        self._services.node.tail.drain()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with AsyncExitStack() as stack:
            try:
                await self._open(stack)
            except (StartError, TidingsError) as error:
                self.failure = error if isinstance(error, StartError) else self._unreadable(error)
                await send({"type": "lifespan.startup.failed", "message": str(self.failure)})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    def _unreadable(self, error: TidingsError) -> StartError:
        return StartError(f"{self._settings.store}: {error} Restore a backup, or move it away to begin anew.")

    async def _open(self, stack: AsyncExitStack) -> None:
        self._services = await assemble(self._settings, self._metrics, self._worker, stack)
        streams = Streams(self._services.messages, self._services.node)
        self._metrics.observe_with(lambda: {"tidings_streams": streams.open})
        routes = build(self._services, self._settings, self._metrics, streams)
        messages, guard = self._services.messages, Guard(self._settings)
        self._answer = HotPolls(routes, messages, guard, self._metrics, self._settings.uri_max_bytes)
        self._sends = Sends(messages, guard, self._settings, self._metrics)
        self._sockets = Sockets(messages, streams, guard, self._settings, self._metrics)
        keeper = asyncio.create_task(self._keep_house(streams), name="tidings-house")
        stack.callback(keeper.cancel)

    async def _keep_house(self, streams: Streams) -> None:
        """Now and then: let old messages go, and leave the counts where another worker's scrape finds them."""
        while True:
            await asyncio.sleep(FLUSH_S)
            streams.look_again()
            self._services.node.tail.evict()
            self._metrics.flush()


def create_app(settings: Settings, worker: Worker | None = None) -> App:
    """The application of one process."""
    return App(settings, worker)
