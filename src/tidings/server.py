"""One serving process: says when it is ready, and at SIGTERM answers what is in flight before it ends."""

import asyncio
import logging
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from tidings.accepting import Acceptor, Connections
from tidings.api.replies import BrokenOff
from tidings.app import App, create_app
from tidings.backends import Worker
from tidings.config import Settings
from tidings.errors import StartError
from tidings.garbage import collect_rarely
from tidings.listening import announce, listen
from tidings.log import set_up, settle, tell, watch
from tidings.protocol import bounded_by

FAILED = 1
FORCED = 128 + signal.SIGINT

# Of the grace time, so much is for requests in flight, the rest for the store to finish its writes.
IN_FLIGHT = 0.8
DATE_S = 1.0

log = logging.getLogger("tidings.server")


def run(settings: Settings) -> int:
    """Serve in this process until told to end; gives the exit code. Raises StartError."""
    set_up(settings.log_format, settings.log_level)
    listener = listen(settings)
    return serve(settings, listener, lambda: announce(settings, listener))


def serve(
    settings: Settings,
    listener: socket.socket,
    on_ready: Callable[[], None],
    worker: Worker | None = None,
) -> int:
    """Serve on a socket until SIGTERM or SIGINT; gives the exit code. Raises StartError if the application can't."""
    allow_many_connections()
    app = create_app(settings, worker)
    logging.getLogger("uvicorn.error").addFilter(Quiet(app))
    Server(settings, app, on_ready, worker).run([listener])
    return 0


def allow_many_connections() -> None:
    """Take as many file descriptors as we may: the usual soft limit of 1,024 is far below `waits_max`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Quiet(logging.Filter):
    """Keeps from uvicorn's log what is told elsewhere: why the start failed, and answers that were broken off."""

    def __init__(self, app: App) -> None:
        super().__init__()
        self._app = app

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is news."""
        error = record.exc_info[1] if record.exc_info else None
        return self._app.failure is None and not isinstance(error, (BrokenOff, asyncio.CancelledError))


class Server(uvicorn.Server):
    """uvicorn's server around the application, with our word at the start and our end."""

    def __init__(self, settings: Settings, app: App, on_ready: Callable[[], None], worker: Worker | None) -> None:
        config = uvicorn.Config(
            lambda: app,
            factory=True,
            loop="uvloop",
            http=bounded_by(settings),
            ws="none",
            lifespan="on",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=settings.keep_alive_s,  # type: ignore[arg-type]  # goes to call_later, as it is
            timeout_graceful_shutdown=settings.grace_s * IN_FLIGHT,  # type: ignore[arg-type]  # goes to wait_for
        )
        super().__init__(config)
        self._app = app
        self._grace_s = settings.grace_s
        self._level = logging.INFO if settings.workers == 1 else logging.DEBUG  # the supervisor speaks for its workers
        self._on_ready = on_ready
        self._told_by = ""
        self._connections_cut = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._awake = asyncio.Event()
        self._worker = worker
        self._acceptor: Acceptor | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, accept, and say so. Raises what kept the application from starting."""
        self._loop = asyncio.get_running_loop()
        try:
            await super().startup([] if self._worker else sockets)
        except SystemExit:
            raise self._app.failure or StartError("the application did not start") from None
        watch(asyncio.get_running_loop())
        collect_rarely(self._app.count_pause)
        if self._worker is not None and sockets:
            self._share_out(sockets[0], self._worker)
        self._on_ready()

    def _share_out(self, listener: socket.socket, worker: Worker) -> None:
        """Accept as one of several workers."""
        config, state = self.config, self.server_state
        protocol: Any = config.http_protocol_class
        self._acceptor = Acceptor(
            listener,
            worker.board,
            worker.seat,
            lambda: protocol(config=config, server_state=state, app_state=self.lifespan.state),
        )
        state.connections = Connections(self._acceptor.lost)
        self._acceptor.start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end at the first SIGTERM or SIGINT; end at once at SIGINT thereafter."""
        if self.should_exit and sig == signal.SIGINT:
            os._exit(FORCED)
        self._told_by = signal.Signals(sig).name
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._awake.set)

    async def main_loop(self) -> None:
        """Set the date of the answers once a second, until told to end; uvicorn's own wakes ten times as often."""
        while not await self.on_tick(0):
            timer = asyncio.get_running_loop().call_later(DATE_S, self._awake.set)
            await self._awake.wait()
            timer.cancel()
            self._awake.clear()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let those who wait answer, accept no more, finish what is in flight, then the application; all in time."""
        began, told_by = time.monotonic(), self._told_by
        tell(log, self._level, "stopping", "stopping, told by %(signal)s", signal=told_by)
        overdue = threading.Timer(self._grace_s, self._give_up)
        overdue.daemon = True
        overdue.start()
        cut = asyncio.get_running_loop().call_later(self._grace_s * IN_FLIGHT * 0.9, self._cut)
        if self._acceptor is not None:
            await self._acceptor.stop()
        self._app.drain()
        await super().shutdown(sockets)
        cut.cancel()
        overdue.cancel()
        text = "stopped in %(seconds).1f s; %(cut)d connections were cut"
        seconds = round(time.monotonic() - began, 3)
        tell(log, self._level, "stop", text, signal=told_by, seconds=seconds, cut=self._connections_cut)
        settle()

    def _cut(self) -> None:
        # uvicorn would cancel what is left and answer it with a 500; a closed connection is the truth.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
            self._connections_cut += 1

    def _give_up(self) -> None:
        text = "not finished within the %(grace_s)g s of --grace-s; ending now"
        tell(log, logging.ERROR, "killed", text, grace_s=self._grace_s)
        settle()
        os._exit(FAILED)
