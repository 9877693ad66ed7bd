"""A real Tidings server, as a process of its own: `from tests.server import ServerProcess, StartFailed, until`."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

READY = re.compile(r"^Tidings is listening on (http://\S+)$", re.MULTILINE)
DEADLINE_S = 20.0  # for anything that takes well under a second on an idle machine


class StartFailed(Exception):
    """The server ended, or was given up, before it was ready: what it said on stderr, and its exit code (None)."""

    def __init__(self, stderr: str, code: int | None) -> None:
        super().__init__(f"exit code {code}: {stderr}")
        self.stderr = stderr
        self.code = code


def until(predicate: Callable[[], object], within_s: float = DEADLINE_S, what: str = "") -> None:
    """Return as soon as the predicate holds; fails the test at the deadline."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while not predicate():
        assert time.monotonic() < deadline, what or f"not within {within_s} s: {predicate}"
        pause.wait(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs (one that ended and was not yet waited for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    """The running child processes of a process, oldest first."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid and fields[0] not in "ZX":
            found.append((int(fields[19]), int(stat.parent.name)))
    return [child for _, child in sorted(found)]


def memory(pid: int, field: str = "VmRSS") -> int:
    """A field of /proc/PID/status in bytes: what a process has resident now, or (VmHWM) had at most."""
    (kilobytes,) = re.findall(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(kilobytes) * 1024


class Output:
    """What a process printed so far, read by a thread so that no pipe ever fills."""

    def __init__(self, stream: IO[str]) -> None:
        self.text = ""
        self._complete = False
        self._stream = stream
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        with self._stream:
            for line in self._stream:
                with self._news:
                    self.text += line
                    self._news.notify_all()
        with self._news:
            self._complete = True
            self._news.notify_all()

    def find(self, pattern: re.Pattern[str], within_s: float) -> re.Match[str] | None:
        """Wait for a match; None once nothing more can come, or at the deadline."""
        with self._news:
            self._news.wait_for(lambda: pattern.search(self.text) or self._complete, within_s)
            return pattern.search(self.text)

    def ended(self, within_s: float) -> bool:
        """Wait until every process that could write here is gone."""
        self._thread.join(within_s)
        return not self._thread.is_alive()


class ServerProcess:
    """A server started by `start`; as a context manager it is ended at the end, by its pid."""

    def __init__(self, process: subprocess.Popen[str], data: Path) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.data = data
        self.pid = process.pid
        self.url = ""
        self._process = process
        self._stdout = Output(process.stdout)
        self._stderr = Output(process.stderr)

    @classmethod
    def start(
        cls, data: Path, *flags: str, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> "ServerProcess":
        """Serve `data`/tidings.db on a free port (later flags win) and wait until it is ready, or raise StartFailed.

        `prefix` is a command in front (faketime, prlimit); it must exec the server, so that `pid` is the server's.
        """
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TIDINGS_")}
        serve = [sys.executable, "-m", "tidings", "serve", "--port", "0", "--store", store_url(data)]
        process = subprocess.Popen(
            [*prefix, *serve, *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**clean, **(env or {})},
        )
        server = cls(process, data)
        ready = server._stdout.find(READY, DEADLINE_S)
        if ready is None:
            if server.is_running():
                process.kill()
            code = process.wait()
            server._stderr.ended(DEADLINE_S)
            raise StartFailed(server.errors, code if code >= 0 else None)
        server.url = ready[1]
        return server

    @property
    def output(self) -> str:
        """What it printed on stdout so far."""
        return self._stdout.text

    @property
    def errors(self) -> str:
        """What it printed on stderr so far."""
        return self._stderr.text

    @property
    def complaints(self) -> str:
        """What of that is more than news: not the lines on its start and stop."""
        return "".join(line for line in self.errors.splitlines(keepends=True) if " INFO " not in line)

    def wait_for_error(self, pattern: str, within_s: float = DEADLINE_S) -> str:
        """Wait until stderr has a match of a pattern, and give it."""
        match = self._stderr.find(re.compile(pattern), within_s)
        assert match, f"no {pattern!r} on stderr, but: {self.errors!r}"
        return match[0]

    def is_running(self) -> bool:
        """Whether the server process (with several workers, their supervisor) has not ended."""
        return self._process.poll() is None

    def worker_pids(self) -> list[int]:
        """The children that serve, oldest first; none if the server is a single process."""
        return [pid for pid in children(self.pid) if "spawn_main" in _command(pid)]

    def kill(self) -> None:
        """SIGKILL the server process; returns when it is gone, and its workers, which must end by themselves."""
        self._process.kill()
        self._process.wait()
        self._expect_nobody()

    def signal(self, number: int) -> None:
        """Send a signal to the server process."""
        self._process.send_signal(number)

    def wait(self, within_s: float = DEADLINE_S) -> int:
        """The exit code, once the server and its workers are gone."""
        code = self._process.wait(within_s)
        self._expect_nobody()
        return code

    def terminate(self, within_s: float = 2 * DEADLINE_S) -> int:
        """SIGTERM, and the exit code once the server and its workers are gone."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait(within_s)

    def _expect_nobody(self) -> None:
        gone = self._stdout.ended(DEADLINE_S) and self._stderr.ended(DEADLINE_S)
        assert gone, "processes of a server that ended live on, holding its output open"

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_running():
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._expect_nobody()


def store_url(data: Path) -> str:
    """The --store of a server whose data directory is `data`."""
    return f"sqlite:///{data.absolute()}/tidings.db"


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""
