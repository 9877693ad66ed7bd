"""`make cluster` as a process of a test's own: `with Clustered.start(directory) as cluster`."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest

from tests.pages import ROOT
from tests.server import DEADLINE_S, Output, alive
from tools.cluster import parts
from tools.cluster.keeping import Failed

MARK = "CLUSTER_OF_TEST"  # in the environment of all that descends from it
STARTED_S = 90.0  # in which several processes start one after the other, that take three seconds on an idle machine
ROW = re.compile(r"^  (\S+) +pid (\d+) *(http://\S+)?$", re.MULTILINE)
ADDRESS = re.compile(r"nodes behind one address: (\S+)\n(?:.*\n)*Ctrl-C ends all of it", re.MULTILINE)


class Clustered:
    """A running cluster: `url` is the balancer's, `nodes` are those of its nodes, `pids` those of all parts by name."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self._mark = str(directory)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tools.cluster", "--port", "0", "--logs", str(directory / "logs"), *flags],
            cwd=ROOT,
            env={**{k: v for k, v in os.environ.items() if not k.startswith("TIDINGS_")}, MARK: self._mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        assert self.process.stderr
        self.output, self.errors = Output(self.process.stdout), Output(self.process.stderr)
        self.url = ""
        self.pids: dict[str, int] = {}
        self.nodes: list[str] = []

    @classmethod
    def start(cls, directory: Path, *flags: str) -> "Clustered":
        """Start it and wait until it says that it is ready; skips the test where its programs are not installed."""
        skip_without_programs()
        cluster = cls(directory, *flags)
        found = cluster.output.find(ADDRESS, STARTED_S)
        if found is None:
            cluster.process.kill()
            cluster.errors.ended(DEADLINE_S)
            raise AssertionError(cluster.output.text + cluster.errors.text)
        cluster.url = found[1]
        for name, pid, url in ROW.findall(cluster.output.text):
            cluster.pids[name] = int(pid)
            cluster.nodes += [url] if url else []
        return cluster

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until it says so."""
        found = self.output.find(re.compile(pattern, re.MULTILINE), DEADLINE_S)
        assert found, self.output.text
        return found

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        code = self.process.wait(2 * DEADLINE_S)
        self.output.ended(DEADLINE_S)
        self.errors.ended(DEADLINE_S)
        return code

    def left(self) -> dict[int, str]:
        """What runs of all that it started, and what that started; itself, too."""
        return dict(self._descendants())

    def _descendants(self) -> Iterator[tuple[int, str]]:
        mark = f"{MARK}={self._mark}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                is_ours = mark in (process / "environ").read_bytes().split(b"\0")
                is_ours |= (process / "cwd").readlink().is_relative_to(self._mark)  # redis writes over the former
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has ended, or is somebody else's
                continue
            if is_ours and alive(int(process.name)):
                yield int(process.name), command

    def __enter__(self) -> "Clustered":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in self.left():  # only after a test that failed
            os.kill(pid, signal.SIGKILL)


def skip_without_programs() -> None:
    """Skip the test where a balancer or the feed's server is not installed."""
    try:
        parts.find_programs(needs_feed=True)
    except Failed as error:
        pytest.skip(str(error))
