"""Who waits is woken wherever their connection is held: by who sent, or by a look where the wake was lost."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.api_client import Api
from tests.seats import at
from tests.server import ServerProcess, until
from tests.sockets import handshake
from tidings.config import Settings

SELDOM_S = 10.0  # the longest that a server can be told to wait between two looks
WOKEN_S = 5.0  # for what takes milliseconds: far less than a long-poll here waits, and a stream's heartbeat
WAIT_S = 50
ROUNDS = 6  # each within WOKEN_S, so that looks that are so seldom could help with a few of them at most

QUESTIONS = {
    "long-poll": "GET /v1/messages/{user}?cursor={cursor}&wait=" + str(WAIT_S) + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "sse": "GET /v1/messages/{user}/stream?cursor={cursor} HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "websocket": handshake("{user}", query="?cursor={cursor}").decode(),
}

# Put into a server by its own installation: a worker dies at a moment that can't be hit from outside, if told so by a
# file, which is removed first: the one in its place lives.
DEATH = """
import os, signal, sys
if "--multiprocessing-fork" in sys.orig_argv:
    from tidings.board import Board
    from tidings.feed.wakes import Wakes

    def die():
        if os.path.exists({order!r}):
            os.unlink({order!r})
            os.kill(os.getpid(), signal.SIGKILL)

    def dying(owner, name):
        real = getattr(owner, name)
        def first_dies(*given):
            die()
            return real(*given)
        setattr(owner, name, first_dies)

    if {moment!r} == "committed":
        shown = Board.committed
        Board.committed = property(shown.fget, lambda board, position: (die(), shown.fset(board, position)))
    else:
        dying(Wakes, {moment!r})
"""
MOMENTS = {
    "before others can know of the commit": "committed",
    "before it wakes anybody": "wake",
    "when it has taken whom to wake": "_addresses",
}


class Reader(NamedTuple):
    """Somebody who waits at a worker."""

    wire: socket.socket
    user: str

    def is_told(self, text: str) -> None:
        """Wait for a text, not long."""
        self.wire.settimeout(WOKEN_S)
        said = b""
        while text.encode() not in said:
            piece = self.wire.recv(65_536)
            assert piece, f"it ended behind {said!r}"
            said += piece


def waits(server: ServerProcess, api: Api, stack: ExitStack, pid: int, transport: str) -> Reader:
    """A reader who waits at a worker by now; with the other one nobody does."""
    user = api.user("bob")
    asked = QUESTIONS[transport].format(user=user, cursor=api.poll(user)["cursor"])
    wire = at(server, pid, stack)
    until(lambda: transport != "long-poll" or api.counted("tidings_waits") == 0)
    wire.sendall(asked.encode())
    reader = Reader(wire, user)
    if transport == "long-poll":
        until(lambda: api.counted("tidings_waits") == 1)
    else:
        reader.is_told("heartbeat")
    return reader


def send(wire: socket.socket, sender: str, receiver: str, text: str) -> bytes:
    """A send over a certain connection; what is answered."""
    body = json.dumps({"senderId": sender, "receiverId": receiver, "message": text}).encode()
    head = f"POST /v1/messages/send?type=private HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    wire.sendall(head.encode() + body)
    answer: bytes = wire.recv(65_536)
    return answer


def is_lost(wire: socket.socket, sender: str, receiver: str, text: str) -> bool:
    """A send, and whether the connection ended without an answer."""
    try:
        return send(wire, sender, receiver, text) == b""
    except ConnectionResetError:
        return True


@contextmanager
def two_workers(data: Path, *flags: str, env: dict[str, str] | None = None) -> Iterator[tuple[ServerProcess, Api]]:
    with ServerProcess.start(data, "--workers", "2", *flags, env=env) as server, Api(server.url) as api:
        yield server, api


@pytest.mark.parametrize("transport", QUESTIONS)
def test_a_reader_is_woken_at_any_worker(tmp_path: Path, transport: str) -> None:
    """Ann sends at one worker, Bob waits at another, which by itself would look for news too seldom to help."""
    with (
        two_workers(tmp_path, "--feed-look-s", str(SELDOM_S)) as (server, api),
        ExitStack() as stack,
    ):
        ann = api.user("ann")
        for turn in range(ROUNDS):
            here, there = server.worker_pids()[:: 1 if turn % 2 else -1]
            reader = waits(server, api, stack, there, transport)
            assert send(at(server, here, stack), ann, reader.user, f"word {turn}").startswith(b"HTTP/1.1 200")
            reader.is_told(f"word {turn}")


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_lost_wake_is_made_up(tmp_path: Path, moment: str) -> None:
    """Ann's worker is killed behind the commit of her message, before it woke Bob's: he is given it all the same."""
    assert Settings().feed_look_s <= 0.1
    order = tmp_path / "die"
    (tmp_path / "sitecustomize.py").write_text(DEATH.format(order=str(order), moment=moment))
    with (
        two_workers(tmp_path, env={"PYTHONPATH": str(tmp_path)}) as (server, api),
        ExitStack() as stack,
    ):
        ann = api.user("ann")
        here, there = server.worker_pids()
        for reader in [waits(server, api, stack, there, transport) for transport in QUESTIONS]:
            sender = at(server, here, stack)
            order.touch()
            assert is_lost(sender, ann, reader.user, "hello")
            reader.is_told("hello")
            server.wait_for_error(rf"worker {here} ended \(exit code -9\)")
            until(lambda: len(server.worker_pids()) == 2)
            (here,) = {*server.worker_pids()} - {there}
