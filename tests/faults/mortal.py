"""A server that is killed and comes back on the same data and port."""

import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from tests.server import ServerProcess, store_url
from tidings.store.upkeep import examine


class Mortal:
    """Runs a server as a context manager; `kill` and `restart` it at will. At the end doctor must find a file sound."""

    def __init__(self, data: Path, *flags: str, env: Mapping[str, str] | None = None) -> None:
        self._data = data
        self._flags = flags
        self._env = env
        self._is_file = "--store" not in flags
        self._past_errors = ""
        self.process = ServerProcess.start(data, *flags, env=env)
        self._port = str(urlsplit(self.process.url).port)

    @property
    def errors(self) -> str:
        """What it said on stderr, in all its lives."""
        return self._past_errors + self.process.errors

    @property
    def url(self) -> str:
        """Where it listens, in every life."""
        return self.process.url

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def end(self) -> None:
        """SIGTERM; it must end well."""
        assert self.process.terminate() == 0, self.process.errors

    def restart(self) -> None:
        """Start it again after it was killed or ended."""
        self._past_errors += self.process.errors
        self.process = ServerProcess.start(self._data, *self._flags, "--port", self._port, env=self._env)

    def stillborn(self, after_s: float) -> None:
        """Start a server on the data, and kill it so long after, ready or not."""
        command = [sys.executable, "-m", "tidings", "serve", "--port", "0", "--store", store_url(self._data)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        threading.Event().wait(after_s)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def __enter__(self) -> "Mortal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.__exit__(kind, error, trace)
        if error is None and self._is_file:
            assert examine(store_url(self._data), lambda name: None).findings == ()
