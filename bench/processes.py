"""The processes of a bench: servers pinned to one core, the load pinned to another."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Self, TypeVar

import msgspec

from bench.audience import Act, Done, Heard
from bench.load import Measured, Plan, Told, cpu_s

T = TypeVar("T")

READY = re.compile(r"istening on http://127\.0\.0\.1:(\d+)$")
START_S = 60.0
END_S = 30.0


class Failed(Exception):
    """A scene can't go on; the text says why."""


class Lacking(Exception):
    """A scene is left out; the text says what the machine has not."""


class Cores(msgspec.Struct, frozen=True):
    """Which core is whose."""

    server: int
    load: int
    backends: int


def two_cores() -> Cores:
    """The first core for the server, the last for the load, the second for what nodes share, if it is another one.

    Raises Failed if there is only one.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise Failed("a bench takes two cores: one for the server, one for the load")
    return Cores(cores[0], cores[-1], cores[1])


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """What is started within stays on that core; with None, it goes where it likes."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before if core is None else {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Output:
    """What a process printed so far, a line each, read by a thread so that no pipe ever fills."""

    def __init__(self, stream: IO[str]) -> None:
        self.lines: list[str] = []
        self._stream = stream
        self._is_complete = False
        self._news = threading.Condition()
        threading.Thread(target=self._drain, daemon=True).start()

    def find(self, pattern: re.Pattern[str], within_s: float) -> re.Match[str] | None:
        """The first line that matches; None once nothing more can come, or at the deadline."""
        with self._news:
            self._news.wait_for(lambda: self._find(pattern) or self._is_complete, within_s)
            return self._find(pattern)

    def _find(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        return next((found for found in map(pattern.search, self.lines) if found), None)

    def _drain(self) -> None:
        with self._stream:
            for line in self._stream:
                with self._news:
                    self.lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._is_complete = True
            self._news.notify_all()


class Server:
    """A running server: its port, the processes that serve, what it prints."""

    def __init__(self, process: "subprocess.Popen[str]", output: Output, port: int) -> None:
        self._process = process
        self._output = output
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    @property
    def workers(self) -> list[int]:
        """The children of the process; none of a single process."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return [int(pid) for pid in children.split() if b"resource_tracker" not in _command(int(pid))]

    @property
    def pids(self) -> list[int]:
        """The process and its workers: all whose CPU time counts."""
        return [self._process.pid, *self.workers]

    @property
    def lines(self) -> int:
        """How many lines it has printed so far, on stdout and stderr."""
        return len(self._output.lines)

    @property
    def cpu_s(self) -> float:
        """Its CPU time so far, in seconds."""
        return cpu_s(self.pids)

    def memory(self, *fields: str) -> int:
        """The sum of fields of /proc/PID/status (VmRSS, VmHWM, RssAnon) over its processes, in bytes."""
        found = [
            int(value)
            for pid in self.pids
            for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
            if name in fields
        ]
        return sum(found) * 1024

    def forget_peak(self) -> None:
        """Let VmHWM begin anew at what is resident now (proc(5), clear_refs)."""
        for pid in self.pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Within, it is there and does nothing (SIGSTOP)."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """SIGTERM, and wait. Raises Failed if it does not end well, or had ended before."""
        if self._process.poll() is not None:
            raise Failed(f"a server ended by itself, with exit code {self._process.returncode}; {self._last_words()}")
        code = self.stop()
        if code not in (0, -15):
            raise Failed(f"a server ended with exit code {code}; {self._last_words()}")

    def stop(self) -> int | None:
        """SIGTERM, then SIGKILL; gives the exit code, None if it had to be killed."""
        self._process.terminate()
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return None

    def _last_words(self) -> str:
        return f"its last words: {self._output.lines[-3:]}"


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@contextmanager
def serving(core: int | None, command: Sequence[str]) -> Iterator[Server]:
    """A server on a core (None: any), from its ready line to its end. Raises Failed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TIDINGS_")}
    with pinned(core):
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean
        )
    assert process.stdout is not None
    output = Output(process.stdout)
    try:
        ready = output.find(READY, START_S)
        if ready is None:
            raise Failed(f"{' '.join(command[-3:])} did not start: {output.lines[-3:]}")
        server = Server(process, output, int(ready[1]))
        yield server
    except BaseException:
        Server(process, output, 0).stop()  # what went wrong first is what is told
        raise
    server.end()


def tidings(core: int | None, data: Path, *flags: str) -> AbstractContextManager[Server]:
    """A Tidings server with its data in a directory."""
    return tidings_on(core, f"sqlite:///{data.absolute()}/tidings.db", *flags)


def tidings_on(core: int | None, store: str, *flags: str) -> AbstractContextManager[Server]:
    """A Tidings server on a store."""
    return serving(core, [sys.executable, "-m", "tidings", "serve", "--port", "0", "--store", store, *flags])


def bare(core: int, kind: str, size: int) -> AbstractContextManager[Server]:
    """A bare ASGI app that answers so many bytes."""
    return serving(core, [sys.executable, "-m", "bench.bare", kind, str(size)])


class Answering:
    """A process that answers each line of JSON with another; as a context manager it ends with the bench."""

    module = ""

    def __init__(self, core: int | None) -> None:
        with pinned(core):
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )

    def ask(self, what: msgspec.Struct, kind: type[T]) -> T:
        """Have something done, and what is said of it. Raises Failed if the process ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(msgspec.json.encode(what) + b"\n")
            self._process.stdin.flush()
            return msgspec.json.decode(self._process.stdout.readline(), type=kind)
        except (BrokenPipeError, msgspec.DecodeError):
            raise Failed(f"{self.module} ended, with exit code {self._process.wait(END_S)}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(END_S)


class Load(Answering):
    """The load's process."""

    module = "bench.load"

    def run(self, plan: Plan) -> Measured:
        """Run one round. Raises Failed with what the load complained of."""
        told = self.ask(plan, Told)
        if told.measured is None:
            raise Failed(told.wrong)
        return told.measured


class Audience(Answering):
    """The audience's process."""

    module = "bench.audience"

    def play(self, act: Act) -> Heard:
        """Play one act. Raises Failed with what was wrong."""
        done = self.ask(act, Done)
        if done.wrong:
            raise Failed(done.wrong)
        return done.heard
