"""Workers share their connections out evenly, and none is stranded with a worker that is stopped, dies or ends."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.seats import held
from tests.server import DEADLINE_S, ServerProcess, until
from tests.test_protocol import connect

ASKED = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server with two workers that the test may end."""
    with ServerProcess.start(tmp_path, "--workers", "2") as server:
        yield server


def asked(server: ServerProcess, stack: ExitStack, number: int) -> list[socket.socket]:
    """So many more connections at once, each of them served."""
    wires = [stack.enter_context(connect(server)) for _ in range(number)]
    for wire in wires:
        wire.sendall(ASKED)
    for wire in wires:
        said = b""
        while not said.endswith(b'{"status":"ok"}'):
            said += wire.recv(1000)
            assert said.startswith(b"HTTP/1.1 200")
    return wires


def test_both_hold_as_many(pair: ServerProcess) -> None:
    """Connections that come one by one or all at once are shared out: neither worker holds half as many again."""
    with ExitStack() as stack:
        for number in (*[1] * 20, 60, 200):
            asked(pair, stack, number)
        fewer, more = sorted(held(pair))
        assert fewer + more == 280
        assert more < 1.5 * fewer


def test_a_stopped_worker_keeps_nobody_waiting(pair: ServerProcess) -> None:
    """While one worker is stopped every new connection is served by the other, however many they are."""
    stopped, _ = pair.worker_pids()
    with ExitStack() as stack:
        asked(pair, stack, 10)
        os.kill(stopped, signal.SIGSTOP)
        try:
            asked(pair, stack, 300)
        finally:
            os.kill(stopped, signal.SIGCONT)
        asked(pair, stack, 10)


def test_a_new_worker_takes_what_the_old_one_lost(pair: ServerProcess) -> None:
    """A worker is killed: its clients come again, and most of them are served by the one in its place."""
    with ExitStack() as stack:
        wires = asked(pair, stack, 40)
        killed, other = pair.worker_pids()
        os.kill(killed, signal.SIGKILL)
        pair.wait_for_error(rf"worker {killed} ended")
        until(lambda: len(pair.worker_pids()) == 2)
        lost = [wire for wire in wires if is_closed(wire)]
        assert lost
        until(lambda: serves(pair, other))
        for _ in range(3):  # of one crowd, who is not scheduled in time takes less than its share
            asked(pair, stack, 60)
        counts = dict(zip(pair.worker_pids(), held(pair), strict=True))
        assert counts.pop(other) < 1.5 * sum(counts.values())


def serves(server: ServerProcess, other: int) -> bool:
    """Whether the new worker serves by now: it takes a connection, which is not kept; the other would hold them all."""
    with ExitStack() as stack:
        asked(server, stack, 1)
        return any(count for pid, count in zip(server.worker_pids(), held(server), strict=True) if pid != other)


def is_closed(wire: socket.socket) -> bool:
    """Whether the other end is gone, without waiting to see."""
    wire.setblocking(False)
    try:
        return wire.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    finally:
        wire.settimeout(DEADLINE_S)


def test_connections_end_with_their_workers(pair: ServerProcess) -> None:
    """At SIGTERM idle connections of both workers are closed, and the server ends at once and cleanly."""
    with ExitStack() as stack:
        wires = asked(pair, stack, 20)
        assert pair.terminate() == 0
        assert all(wire.recv(1) == b"" for wire in wires)
        assert pair.complaints == ""
