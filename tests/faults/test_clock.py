"""The wall clock jumps an hour forward and back under a running server, by libfaketime: no promise depends on it."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.clock import LIBRARIES, MISSING, Clock
from tests.faults.crowd import Crowd
from tests.faults.mortal import Mortal
from tidings.history import Sending

JUMPS_S = (3600, 0, -3600, 0, 7200, -7200, 0, 5, -5, 0, 3600, -3600, 3600, 0)


@pytest.mark.slow
@pytest.mark.skipif(not LIBRARIES, reason=MISSING)
@pytest.mark.parametrize("workers", [1, 2])
def test_the_clock_jumps(tmp_path: Path, seed: int, say: Callable[[str], None], workers: int) -> None:
    """An hour forward, back, two hours, five seconds: readers by cursor and by timestamp get everything once."""
    rng = random.Random(seed)
    clock = Clock(tmp_path)
    flags = ("--workers", str(workers))
    with Mortal(tmp_path, *flags, env=clock.env) as server, Crowd(server.url, seed, fresh=0.2) as crowd:
        for offset_s in JUMPS_S:
            crowd.go_on(rng.randint(300, 1500))
            clock.set(offset_s)
            crowd.recorder.fault("clock jump")
            if rng.random() < 0.2:  # set while the server is down
                with crowd.down("kill"):
                    server.kill()
                    clock.set(offset_s)
                    server.restart()
        crowd.go_on(500)
        crowd.finish()
    counts = crowd.judged(tmp_path, f"clock, {workers} worker(s)", server.errors, say)
    assert counts["clock jumps"] == len(JUMPS_S)
    assert counts["sends acknowledged"] >= 200
    assert counts["messages acknowledged and never read"] == 0
    stamps = [int(e.answer.timestamp) for e in crowd.recorder.events if isinstance(e, Sending) and e.answer]
    assert max(stamps) > (time.time() + 3000) * 1000, "the server's clock did jump"
