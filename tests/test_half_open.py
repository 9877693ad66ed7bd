"""Clients that vanish without a word, as a phone without signal does: their streams end by the heartbeats."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.api_client import Api
from tests.server import ServerProcess, until

LISTENER = """
import socket, sys
wire = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
wire.sendall(sys.argv[3].encode().decode("unicode_escape").encode())
received = b""
while b"heartbeat" not in received:
    received += wire.recv(65536)
print("listening", flush=True)
sys.stdin.read()
"""


class Cable:
    """Another host, by a network namespace and a cable that can be pulled (ip-netns(8), veth(4))."""

    def __init__(self) -> None:
        number = os.getpid() % 16_384
        self.host = f"tidings-{number}"
        self._ours, self._theirs = f"tid{number}a", f"tid{number}b"
        net = f"10.{200 + number // 4096}.{number // 16 % 256}"
        first = number % 16 * 4
        self.address = f"{net}.{first + 1}"
        self._run("netns", "add", self.host)
        self._run("link", "add", self._ours, "type", "veth", "peer", "name", self._theirs, "netns", self.host)
        self._run("addr", "add", f"{self.address}/30", "dev", self._ours)
        self._run("link", "set", self._ours, "up")
        self._run("-n", self.host, "addr", "add", f"{net}.{first + 2}/30", "dev", self._theirs)
        self._run("-n", self.host, "link", "set", self._theirs, "up")

    def pull(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self._run("-n", self.host, "link", "set", self._theirs, "down")

    def close(self) -> None:
        with suppress(subprocess.CalledProcessError):
            self._run("link", "del", self._ours)
        self._run("netns", "del", self.host)

    def _run(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def cable() -> Iterator[Cable]:
    """A cable to another host; skipped where none can be made."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("needs ip (Debian: iproute2), and root for a network namespace")
    try:
        made = Cable()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace can be made here: {error.stderr.decode().strip()}")
    yield made
    made.close()


STREAM = r"GET /v1/messages/{user}/stream HTTP/1.1\r\nHost: {host}\r\n\r\n"
SOCKET = (
    r"GET /v1/messages/{user}/live HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    r"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    r"Sec-WebSocket-Protocol: tidings.v1\r\n\r\n"
)


@pytest.mark.parametrize("request_", [STREAM, SOCKET], ids=["events", "socket"])
def test_who_vanishes_is_let_go(tmp_path: Path, cable: Cable, request_: str) -> None:
    """The cable is pulled: nothing tells the server so but that its heartbeats are not answered."""
    flags = ("--host", "0.0.0.0", "--heartbeat-s", "0.3", "--keep-alive-s", "2")
    with ServerProcess.start(tmp_path, *flags) as server:
        port = server.url.rpartition(":")[2]
        with Api(f"http://127.0.0.1:{port}") as api:
            request = request_.format(user=api.user("ann"), host=cable.address)
            command = [sys.executable, "-c", LISTENER, cable.address, port, request]
            with subprocess.Popen(
                ["ip", "netns", "exec", cable.host, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            ) as listener:
                assert listener.stdout is not None
                assert listener.stdout.readline() == b"listening\n"
                assert api.counted("tidings_streams") == 1
                cable.pull()
                until(lambda: api.counted("tidings_streams") == 0)
                listener.kill()
