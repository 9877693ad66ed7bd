"""Two workers share a file; one is killed or stopped, or all are. What one answers binds the other at once."""

import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.crowd import Crowd
from tests.faults.mortal import Mortal
from tests.server import until

TURNS = 30
TINY = (
    "--tail-max-bytes",
    "3000",
    "--tail-window-s",
    "0.3",
    "--directory-max-users",
    "2",
    "--directory-max-heads",
    "3",
    "--index-lag-max",
    "3",
)
NARROW = (
    "--writes-waiting-max",
    "3",
    "--mailbox-waiting-max",
    "1",
    "--cold-reads-max",
    "1",
    "--cold-reads-waiting-max",
    "2",
)


@pytest.mark.slow
def test_a_worker_is_killed_or_stopped_again_and_again(tmp_path: Path, seed: int, say: Callable[[str], None]) -> None:
    """Clients hop between two workers of which a random one is killed or stopped for a while; sometimes all end."""
    rng = random.Random(seed)
    with Mortal(tmp_path, "--workers", "2") as server, Crowd(server.url, seed, fresh=0.3) as crowd:
        for turn in range(TURNS):
            crowd.go_on(rng.randint(100, 1500))
            if turn % 10 == 9:
                _end_all(server, crowd, is_gentle=turn == 19)
            elif rng.random() < 0.2:
                stop_one(server, crowd, rng)
            else:
                kill_one(server, crowd, rng)
        crowd.finish()
    counts = crowd.judged(tmp_path, "two workers", server.errors, say)
    assert counts["worker kills"] >= 15
    assert counts["kills"] == 2
    assert counts["sends acknowledged"] >= 1000
    assert counts["reads"] >= 3000
    assert counts["sends unknown"] + counts["reads cut"] >= 10, "kills must cut calls in flight"
    assert counts["messages acknowledged and never read"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "page"),
    [((*TINY, "--page-max", "7", "--page-max-chars", "20000"), 7), (NARROW, 1000), ((*TINY, *NARROW), 1000)],
    ids=["tiny memory", "narrow queues", "both"],
)
def test_tiny_limits(
    tmp_path: Path,
    seed: int,
    say: Callable[[str], None],
    flags: tuple[str, ...],
    page: int,
    request: pytest.FixtureRequest,
) -> None:
    """The same where nothing stays in memory, or hardly anything may wait: reads go cold, calls are refused."""
    rng = random.Random(seed)
    with (
        Mortal(tmp_path, "--workers", "2", *flags) as server,
        Crowd(server.url, seed, fresh=0.2, page=page, pace_s=0.01) as crowd,
    ):
        for _ in range(6):
            crowd.go_on(rng.randint(500, 1500))
            kill_one(server, crowd, rng)
        crowd.finish()
    counts = crowd.judged(tmp_path, request.node.name, server.errors, say)
    assert counts["sends acknowledged"] >= 200
    assert counts["messages acknowledged and never read"] == 0


def kill_one(server: Mortal, crowd: Crowd, rng: random.Random) -> None:
    """SIGKILL a worker; returns when there are two again."""
    killed = rng.choice(server.process.worker_pids())
    os.kill(killed, signal.SIGKILL)
    crowd.recorder.fault("worker kill")
    until(lambda: len(set(server.process.worker_pids()) - {killed}) == 2)


def stop_one(server: Mortal, crowd: Crowd, rng: random.Random) -> None:
    """Stop a worker at whatever it does, and let it go on a while later, when the other has moved on."""
    stopped = rng.choice(server.process.worker_pids())
    os.kill(stopped, signal.SIGSTOP)
    crowd.recorder.fault("worker stop")
    threading.Event().wait(rng.random() * 2)
    os.kill(stopped, signal.SIGCONT)


def _end_all(server: Mortal, crowd: Crowd, is_gentle: bool) -> None:
    with crowd.down("end" if is_gentle else "kill"):
        (server.end if is_gentle else server.kill)()
        server.restart()
