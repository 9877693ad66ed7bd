"""A real redis-server of the test's own: on a free port of the loopback, without persistence, ended by its pid."""

import atexit
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.server import until

URL = os.environ.get("TIDINGS_TEST_REDIS", "")  # another server, for the tests that need not stop it


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """One server process; restarted, it comes back at the same address."""

    def __init__(self, directory: Path, *more: str) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            pytest.skip("no redis-server is installed")
        self._command = [program, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(directory)]
        self._more = more
        self._log = directory / "redis.log"
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self, env: Mapping[str, str] | None = None) -> None:
        """Begin, empty but for what `more` has it keep; `env` is added to the environment."""
        with self._log.open("ab") as log:
            command = [*self._command, "--port", str(self.port), *self._more]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(env or {})})
        atexit.register(self.kill)  # whatever becomes of the test
        until(self._answers, what=f"the redis-server at {self.port} does not answer")

    def call(self, *command: Any) -> Any:
        """Somebody with a shell."""
        with redis.Redis(port=self.port, socket_timeout=5.0, retry=Retry(NoBackoff(), 0)) as client:
            return client.execute_command(*command)

    def keys(self, name: str) -> list[bytes]:
        """The keys of that name, whichever store they belong to."""
        return list(self.call("KEYS", f"tidings:*:{name}"))

    def stop(self) -> None:
        """Hang: the connections stay, nothing is answered."""
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        """End at once."""
        if self._process is not None:
            self._send(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _send(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _answers(self) -> bool:
        try:
            return bool(self.call("PING"))
        except redis.AuthenticationError:
            return True
        except redis.ConnectionError:
            return False

    def __enter__(self) -> "RedisServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
