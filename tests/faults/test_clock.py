"""The wall clock jumps an hour forward and back under a running server, by libfaketime: no promise depends on it."""

import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.faults.crowd import Crowd
from tests.faults.mortal import Mortal
from tidings.history import Sending

LIBRARIES = sorted(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"))
JUMPS_S = (3600, 0, -3600, 0, 7200, -7200, 0, 5, -5, 0, 3600, -3600, 3600, 0)


# Python's time.sleep is clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME), which libfaketime 0.9.10 answers with EINVAL
# when it is told to leave the monotonic clock alone. select() it passes on.
SLEEP = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and None\n"


class Clock:
    """The server's wall clock: the machine's, and so many seconds ahead or back."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self._patch = directory / "patch"
        self._patch.mkdir()
        (self._patch / "sitecustomize.py").write_text(SLEEP)
        self.set(0)

    @property
    def env(self) -> Mapping[str, str]:
        """What makes a process live by this clock; monotonic time stays the machine's."""
        return {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",  # every look at the clock reads the file
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # else every timed wait of a thread, the interpreter's too, spins
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": f"{self._patch}:{os.environ.get('PYTHONPATH', '')}",
        }

    def set(self, offset_s: int) -> None:
        """Jump; the file is replaced whole, since the library may look at any moment."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{offset_s:+d}\n")
        fresh.rename(self._file)


@pytest.mark.slow
@pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not installed (Debian package `faketime`)")
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
