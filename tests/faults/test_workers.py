"""Two workers share a file; one of them, and now and then all, are killed. What one answers binds the other."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.crowd import Crowd
from tests.faults.mortal import Mortal
from tests.server import until

KILLS = 24


@pytest.mark.slow
def test_a_worker_is_killed_again_and_again(tmp_path: Path, seed: int, say: Callable[[str], None]) -> None:
    """Clients hop between two workers of which a random one is killed; twice the whole server is."""
    rng = random.Random(seed)
    with Mortal(tmp_path, "--workers", "2") as server, Crowd(server.url, seed, fresh=0.3) as crowd:
        for kill in range(KILLS):
            crowd.go_on(rng.randint(100, 1500))
            if kill % 10 == 9:
                with crowd.down("kill"):
                    server.kill()
                    server.restart()
                continue
            workers = server.process.worker_pids()
            killed = rng.choice(workers)
            os.kill(killed, signal.SIGKILL)
            crowd.recorder.fault("worker kill")
            until(lambda: len(server.process.worker_pids()) == 2 and killed not in server.process.worker_pids())  # noqa: B023
        crowd.finish()
    counts = crowd.judged(tmp_path, "two workers", say)
    assert counts["worker kills"] >= 20
    assert counts["kills"] == 2
    assert counts["sends acknowledged"] >= 1000
    assert counts["reads"] >= 3000
    assert counts["sends unknown"] + counts["reads cut"] >= 10, "kills must cut calls in flight"
    assert counts["messages acknowledged and never read"] == 0
