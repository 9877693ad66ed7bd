"""The server is killed at random moments, twenty times and more, and nothing that was promised is broken."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.crowd import Crowd
from tests.faults.mortal import Mortal

ENDS = 34


@pytest.mark.slow
def test_killed_again_and_again(tmp_path: Path, seed: int, say: Callable[[str], None]) -> None:
    """SIGKILL while clients send, read, block and join; every history of theirs holds afterwards."""
    rng = random.Random(seed)
    with Mortal(tmp_path) as server, Crowd(server.url, seed) as crowd:
        for _ in range(ENDS):
            crowd.go_on(rng.randint(10, 2500))
            is_gentle = rng.random() < 0.15
            with crowd.down("end" if is_gentle else "kill"):
                (server.end if is_gentle else server.kill)()
                if rng.random() < 0.25:
                    server.stillborn(rng.random() * 0.6)
                    crowd.recorder.fault("kill at start")
                server.restart()
        crowd.finish()
    counts = crowd.judged(tmp_path, "crash", server.errors, say)
    assert counts["kills"] >= 20
    assert counts["sends acknowledged"] >= 1000
    assert counts["reads"] >= 3000
    assert counts["sends unknown"] >= 10, "kills must cut calls in flight"
    assert counts["reads cut"] >= 10
    assert counts["messages acknowledged and never read"] == 0
