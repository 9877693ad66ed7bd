"""The processes of a bench: servers pinned to one core, the load pinned to another."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from bench.load import Measured, Plan

READY = re.compile(r"istening on http://127\.0\.0\.1:(\d+)$")
END_S = 30.0


class Failed(Exception):
    """The bench can't go on; the text says why."""


class Cores(msgspec.Struct, frozen=True):
    """Which core is whose."""

    server: int
    load: int


def two_cores() -> Cores:
    """The first core for the server, the last for the load. Raises Failed if there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise Failed("a bench takes two cores: one for the server, one for the load")
    return Cores(cores[0], cores[-1])


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """What is started within stays on that core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Server:
    """A running server: its port, and the processes that serve."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self._process = process
        self.port = port

    @property
    def pids(self) -> list[int]:
        """The process and its children: all whose CPU time counts."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return [self._process.pid, *map(int, children.split())]

    def end(self) -> None:
        """SIGTERM, and wait. Raises Failed if it does not end well, or had ended before."""
        if self._process.poll() is not None:
            raise Failed(f"a server ended by itself, with exit code {self._process.returncode}")
        self._process.terminate()
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise Failed("a server did not end") from None
        if code not in (0, -15):
            raise Failed(f"a server ended with exit code {code}")


@contextmanager
def serving(core: int, module: str, *arguments: str) -> Iterator[Server]:
    """`python -m module` on a core, from its ready line to its end. Raises Failed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TIDINGS_")}
    with pinned(core):
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True, env=clean
        )
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            ready = READY.search(line.rstrip())
            if ready is not None:
                break
        else:
            raise Failed(f"{module} did not start")
        server = Server(process, int(ready[1]))
        try:
            yield server
        finally:
            server.end()


def tidings(core: int, data: Path, *flags: str) -> AbstractContextManager[Server]:
    """A Tidings server with its data in a directory."""
    store = f"sqlite:///{data.absolute()}/tidings.db"
    return serving(core, "tidings", "serve", "--port", "0", "--store", store, *flags)


def bare(core: int, kind: str, size: int) -> AbstractContextManager[Server]:
    """A bare ASGI app that answers so many bytes."""
    return serving(core, "bench.bare", kind, str(size))


def load(core: int, plan: Plan) -> Measured:
    """Run one round of load. Raises Failed with what the load complained of."""
    with pinned(core):
        done = subprocess.run(
            [sys.executable, "-m", "bench.load"], input=msgspec.json.encode(plan), capture_output=True, check=False
        )
    if done.returncode:
        raise Failed(done.stderr.decode().strip() or f"the load ended with exit code {done.returncode}")
    return msgspec.json.decode(done.stdout, type=Measured)
