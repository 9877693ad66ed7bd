"""A wall clock of a process's own, by libfaketime, that a test sets; monotonic time stays the machine's."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

LIBRARIES = sorted(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"))
MISSING = "libfaketime is not installed (Debian package `faketime`)"

# Python's time.sleep is clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME), which libfaketime 0.9.10 answers with EINVAL
# when it is told to leave the monotonic clock alone. select() it passes on.
SLEEP = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and None\n"


class Clock:
    """A process's wall clock: the machine's, and so many seconds ahead or back."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self._file = directory / "clock"
        self._patch = directory / "patch"
        self._patch.mkdir()
        (self._patch / "sitecustomize.py").write_text(SLEEP)
        self.set(0)

    @property
    def env(self) -> Mapping[str, str]:
        """What makes a process live by this clock."""
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


def late(directory: Path, offset_s: int) -> Mapping[str, str]:
    """What makes a redis-server live by a clock that is so many seconds off; late.c says why not `Clock`."""
    library = directory / "late.so"
    if not library.exists():
        source = Path(__file__).with_name("late.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library), "CLOCK_OFFSET_S": str(offset_s)}
