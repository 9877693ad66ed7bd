"""Several worker processes on one store and one socket: the supervisor starts them, replaces them and ends them.

It serves nothing itself. It resembles uvicorn's own supervisor, but waits for events instead of looking twice a second,
knows when to give up, keeps to the grace time, and is not outlived by its workers.
"""

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from tidings.board import Board
from tidings.config import Settings
from tidings.errors import StartError
from tidings.listening import announce, listen
from tidings.log import set_up, settle, tell
from tidings.store import Uncounted, open_store

FAILED = 1
STEADY_S = 1.0  # who served so long before it ended did not fail at starting
STRIKES_MAX = 10  # failures in a row after which a server with nobody left to serve gives up: after some 20 s
PAUSE_MAX_S = 5.0
ROOMS_PATH_MAX = 60  # characters: the whole path of a Unix socket has room for 107

log = logging.getLogger("tidings.supervisor")
spawn = get_context("spawn")


@dataclass(frozen=True)
class Post:
    """What a worker needs; `life` reads end-of-file when the supervisor is gone, which alone holds its other end."""

    settings: Settings
    run: int
    rooms: Path
    board: Board
    listener: socket.socket
    life: Connection


@dataclass
class Worker:
    """A serving process; `ready` tells when it accepts (None), or why it can't (a line)."""

    process: SpawnProcess
    ready: Connection
    seat: int
    serving_since: float | None = None
    reason: str = ""

    def hear(self) -> None:
        """Take in what it told, if it told anything."""
        if self.ready.closed or not self.ready.poll():
            return
        with suppress(EOFError):
            told = self.ready.recv()
            if told is None:
                self.serving_since = time.monotonic()
            else:
                self.reason = told
        self.ready.close()


class Patience:
    """How long to wait before a worker that ended is replaced: not at all, until they fail one after the other."""

    def __init__(self) -> None:
        self.strikes = 0

    def pause_s(self, served_s: float) -> float:
        """The seconds to wait after one that served so long."""
        self.strikes = 0 if served_s >= STEADY_S else self.strikes + 1
        return min(PAUSE_MAX_S, 0.1 * 2 ** (self.strikes - 2)) if self.strikes > 1 else 0.0


class Supervisor:
    """The workers of one server, from their start to their end."""

    def __init__(self, post: Post, life: Connection) -> None:
        self._post = post
        self._life = life  # held, never written to: it closes when this process ends, however it ends
        self._workers: list[Worker] = []
        self._due: list[float] = []
        self._patience = Patience()
        self._is_announced = False
        self._signals: list[int] = []
        self._wakeup, self._woken = socket.socketpair()

    def run(self) -> int:
        """Serve until told to end; gives the exit code. Raises StartError if the workers can't start."""
        self._catch_signals()
        try:
            for _ in range(self._post.settings.workers):
                self._start()
            while not self._signals and not self._is_hopeless():
                self._look()
            gave_up = not self._signals
            if gave_up:
                text = "%(count)d workers failed one after the other; giving up"
                tell(log, logging.ERROR, "gave_up", text, count=self._patience.strikes)
        finally:
            ended_well = self._end_all()
        return 0 if ended_well and not gave_up else FAILED

    def _catch_signals(self) -> None:
        self._wakeup.setblocking(False)
        self._woken.setblocking(False)
        signal.set_wakeup_fd(self._woken.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: self._signals.append(number))

    def _start(self) -> None:
        seat = min(set(range(self._post.settings.workers)) - {worker.seat for worker in self._workers})
        heard, told = spawn.Pipe(duplex=False)
        process = spawn.Process(target=work, args=(self._post, told, seat))
        # A worker inherits the mask: Ctrl-C reaches the whole group, but it is the supervisor that ends its workers.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        told.close()
        self._workers.append(Worker(process, heard, seat))

    def _look(self) -> None:
        """Wait until something happened, and do what it calls for."""
        pause = max(0.0, min(self._due) - time.monotonic()) if self._due else None
        self._wait(pause)
        for worker in list(self._workers):
            worker.hear()
            if not worker.process.is_alive():
                worker.hear()
                self._replace(worker)
        now = time.monotonic()
        for due in [due for due in self._due if due <= now]:
            self._due.remove(due)
            self._start()
        if not self._is_announced and all(worker.serving_since for worker in self._workers):
            announce(self._post.settings, self._post.listener)
            self._is_announced = True

    def _wait(self, within_s: float | None) -> bool:
        """Wait for a worker's word or end, or a signal; gives False if neither came in time."""
        watched = [worker.process.sentinel for worker in self._workers]
        told = [worker.ready for worker in self._workers if not worker.ready.closed]
        happened = wait([*watched, *told, self._wakeup], within_s)
        if self._wakeup in happened:
            self._wakeup.recv(64)
        return bool(happened)

    def _replace(self, worker: Worker) -> None:
        """Bury a worker that ended, and have another one started."""
        self._bury(worker)
        how = worker.reason or f"exit code {worker.process.exitcode}"
        if not self._is_announced:
            raise StartError(worker.reason or f"a worker ended before it was ready ({how})")
        served_s = time.monotonic() - worker.serving_since if worker.serving_since else 0.0
        pause = self._patience.pause_s(served_s)
        self._due.append(time.monotonic() + pause)
        text = "worker %(worker)d ended (%(how)s); another starts in %(pause_s).1f s"
        tell(log, logging.WARNING, "worker_ended", text, worker=worker.process.pid, how=how, pause_s=round(pause, 3))

    def _bury(self, worker: Worker) -> None:
        from tidings.metrics import forget_worker

        worker.process.join()
        worker.ready.close()
        self._workers.remove(worker)
        self._post.board.leave(worker.seat)
        forget_worker(os.environ["PROMETHEUS_MULTIPROC_DIR"], worker.process.pid or 0)

    def _is_hopeless(self) -> bool:
        return self._patience.strikes >= STRIKES_MAX and not any(worker.serving_since for worker in self._workers)

    def _end_all(self) -> bool:
        """SIGTERM to all, SIGKILL to whoever is left after the grace time; gives whether none had to be forced."""
        self._post.listener.close()
        began, told_by = time.monotonic(), signal.Signals(self._signals[0]).name if self._signals else ""
        if self._is_announced:
            tell(log, logging.INFO, "stopping", "stopping, told by %(signal)s", signal=told_by or "nobody")
        for worker in self._workers:
            worker.process.terminate()
        ended_well = True
        deadline = time.monotonic() + self._post.settings.grace_s
        while self._workers:
            in_time = self._wait(max(0.0, deadline - time.monotonic()))
            if not in_time or self._signals.count(signal.SIGINT) > 1:
                late = ", ".join(str(worker.process.pid) for worker in self._workers)
                tell(log, logging.ERROR, "killed", "not finished, and ended now: workers %(workers)s", workers=late)
                for worker in self._workers:
                    worker.process.kill()
                    worker.process.join()
            for worker in list(self._workers):
                worker.hear()
                if not worker.process.is_alive():
                    self._workers.remove(worker)
                    # A worker that was still starting knows no SIGTERM yet, and had nothing to finish.
                    ended_well &= worker.process.exitcode in (0, -signal.SIGTERM)
        if self._is_announced:
            seconds = round(time.monotonic() - began, 3)
            tell(
                log,
                logging.INFO,
                "stop",
                "stopped in %(seconds).1f s",
                signal=told_by,
                seconds=seconds,
                clean=ended_well,
            )
        settle()
        return ended_well


def run(settings: Settings) -> int:
    """Serve with several workers until told to end; gives the exit code. Raises StartError."""
    set_up(settings.log_format, settings.log_level)
    listener = listen(settings)
    with _rooms() as rooms, asyncio.Runner() as runner:
        store = runner.run(open_store(settings, Uncounted()))
        try:
            board = Board(settings.workers)
            store.share(board)
            life, held = spawn.Pipe(duplex=False)
            return Supervisor(Post(settings, store.run, rooms, board, listener, life), held).run()
        finally:
            runner.run(store.close())


@contextmanager
def _rooms() -> Iterator[Path]:
    """A private directory for the workers' wake-up sockets and counts, removed at the end."""
    rooms = tempfile.mkdtemp(prefix="tidings-")
    if len(rooms) > ROOMS_PATH_MAX:
        os.rmdir(rooms)
        rooms = tempfile.mkdtemp(prefix="tidings-", dir="/tmp")  # as private, and short
    try:
        for room in ("wake", "metrics"):
            os.mkdir(os.path.join(rooms, room))
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = os.path.join(rooms, "metrics")
        yield Path(rooms)
    finally:
        shutil.rmtree(rooms, ignore_errors=True)


def work(post: Post, told: Connection, seat: int) -> None:
    """A worker process's whole life."""
    _take_turns(post.settings.workers)
    threading.Thread(target=_end_with_supervisor, args=(post,), daemon=True).start()
    set_up(post.settings.log_format, post.settings.log_level)
    from tidings import backends
    from tidings.server import serve  # only a worker needs what is behind it

    try:
        worker = backends.Worker(post.run, seat, post.board, str(post.rooms / "wake"))
        code = serve(post.settings, post.listener, lambda: told.send(None), worker)
    except StartError as error:
        told.send(str(error))
        code = FAILED
    sys.exit(code)


def _take_turns(workers: int) -> None:
    """Where workers outnumber the cores, let one that wakes not break into another's turn, and each find cold caches.

    As batch tasks they do not preempt one another (sched(7)).
    """
    if sys.platform == "linux" and workers > len(os.sched_getaffinity(0)):
        with suppress(PermissionError):  # a sandbox may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _end_with_supervisor(post: Post) -> None:
    """End at once when the supervisor is gone: nobody would replace us, and we would hold the store's lock."""
    post.life.poll(None)
    shutil.rmtree(post.rooms, ignore_errors=True)
    os._exit(FAILED)
