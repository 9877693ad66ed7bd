"""Several workers behind one supervisor: replaced when they die, gone when it is gone, and ended as one."""

import os
import re
import signal
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server import DEADLINE_S, ServerProcess, StartFailed, alive, until
from tidings.supervisor import PAUSE_MAX_S, STEADY_S, STRIKES_MAX, Patience


@pytest.fixture
def rooms() -> Iterator[Path]:
    """Where the server makes its private directory; pytest's own temporary paths are too long for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as made:
        yield Path(made)


@pytest.fixture
def pair(tmp_path: Path, rooms: Path) -> Iterator[ServerProcess]:
    """A server with two workers that the test may end."""
    with ServerProcess.start(tmp_path, "--workers", "2", env={"TMPDIR": str(rooms)}) as server:
        yield server


def sign_up(server: ServerProcess, name: str) -> str:
    """Create a user over a connection of its own; gives the id."""
    answer = httpx.post(f"{server.url}/v1/users/create", json={"username": name}, timeout=DEADLINE_S)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["userId"])


def test_both_serve_when_it_says_so(pair: ServerProcess) -> None:
    """Once the server says that it listens, both workers are there, and what one took both know."""
    assert len(pair.worker_pids()) == 2
    ann = sign_up(pair, "ann")
    for _ in range(8):
        assert httpx.get(f"{pair.url}/v1/users/{ann}").json()["username"] == "ann"


@pytest.mark.parametrize("cores", [1, 2])
def test_workers_that_share_a_core_take_turns(tmp_path: Path, rooms: Path, cores: int) -> None:
    """Two workers on one core are scheduled so that none breaks into the other's turn; with a core each, as usual."""
    mine = sorted(os.sched_getaffinity(0))[:cores]
    pinned = ("taskset", "-c", ",".join(map(str, mine)))
    with ServerProcess.start(tmp_path, "--workers", "2", env={"TMPDIR": str(rooms)}, prefix=pinned) as server:
        policies = {os.sched_getscheduler(pid) for pid in server.worker_pids()}
    assert policies == {os.SCHED_BATCH if len(mine) < 2 else os.SCHED_OTHER}


def test_a_killed_worker_is_replaced(pair: ServerProcess) -> None:
    """One worker is killed: the server serves on, another takes its place, and the log says so in a line."""
    ann = sign_up(pair, "ann")
    killed, other = pair.worker_pids()
    os.kill(killed, signal.SIGKILL)
    pair.wait_for_error(rf"worker {killed} ended \(exit code -9\); another starts in 0.0 s")
    until(lambda: len(pair.worker_pids()) == 2 and killed not in pair.worker_pids())
    assert other in pair.worker_pids()
    for _ in range(8):
        assert httpx.get(f"{pair.url}/v1/users/{ann}", timeout=DEADLINE_S).status_code == 200


def test_workers_do_not_outlive_their_supervisor(pair: ServerProcess, tmp_path: Path, rooms: Path) -> None:
    """The supervisor is killed: its workers, a replaced one too, end by themselves, and a new server finds all kept."""
    assert len(list(rooms.iterdir())) == 1
    ann = sign_up(pair, "ann")
    killed, other = pair.worker_pids()
    os.kill(killed, signal.SIGKILL)
    until(lambda: len(pair.worker_pids()) == 2 and killed not in pair.worker_pids())
    replaced = [pid for pid in pair.worker_pids() if pid != other]
    pair.kill()
    assert not any(alive(pid) for pid in [other, *replaced])
    assert list(rooms.iterdir()) == []
    with ServerProcess.start(tmp_path, "--workers", "2") as server:
        assert httpx.get(f"{server.url}/v1/users/{ann}").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_end_as_one(pair: ServerProcess, rooms: Path, number: int) -> None:
    """At SIGTERM or Ctrl-C all workers end, nothing is left behind, and nothing is worth a line in the log."""
    assert len(list(rooms.iterdir())) == 1
    pair.signal(number)
    assert pair.wait() == 0
    assert list(rooms.iterdir()) == []
    assert pair.complaints == ""


def test_a_worker_that_hangs_is_ended_in_time(tmp_path: Path) -> None:
    """A worker that does not answer SIGTERM, here because it is stopped, is killed after the grace time."""
    with ServerProcess.start(tmp_path, "--workers", "2", "--grace-s", "2") as server:
        stopped = server.worker_pids()[0]
        os.kill(stopped, signal.SIGSTOP)
        assert server.terminate() == 1
        assert re.search(rf"ended now: workers .*\b{stopped}\b", server.errors)


def test_a_worker_that_keeps_failing_is_tried_again_more_slowly(pair: ServerProcess) -> None:
    """Another server's start is put into the store by hand: new workers refuse, again and again, until it is gone."""
    with sqlite3.connect(pair.data / "tidings.db") as db:
        db.execute("INSERT INTO run (id, first) SELECT 1, position + 1 FROM clock")
    os.kill(pair.worker_pids()[0], signal.SIGKILL)
    for pause in ("0.0", "0.0", "0.1", "0.2", "0.4"):
        pair.wait_for_error(rf"ended \(.+\); another starts in {pause} s")
    assert sign_up(pair, "ann")
    with sqlite3.connect(pair.data / "tidings.db") as db:
        db.execute("DELETE FROM run WHERE id = 1")
    db.close()
    until(lambda: len(pair.worker_pids()) == 2)


def test_patience_ends() -> None:
    """A worker that served is replaced at once; one that fails at starting is tried at growing intervals."""
    patience = Patience()
    assert [patience.pause_s(STEADY_S) for _ in range(100)] == [0.0] * 100
    pauses = [patience.pause_s(0.0) for _ in range(STRIKES_MAX)]
    assert pauses == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, PAUSE_MAX_S, PAUSE_MAX_S, PAUSE_MAX_S]
    assert patience.strikes == STRIKES_MAX
    assert patience.pause_s(STEADY_S) == 0.0
    assert patience.strikes == 0


def test_a_worker_that_can_not_start_fails_the_start(tmp_path: Path) -> None:
    """Workers that end before they are ready, here with a broken installation, are no server: one line says so."""
    broken = "import os, sys\nif '--multiprocessing-fork' in sys.orig_argv:\n    os._exit(7)\n"
    (tmp_path / "sitecustomize.py").write_text(broken)
    with pytest.raises(StartFailed) as failed:
        ServerProcess.start(tmp_path, "--workers", "2", env={"PYTHONPATH": str(tmp_path)})
    assert failed.value.code == 1
    assert failed.value.stderr == "tidings: a worker ended before it was ready (exit code 7)\n"
