"""Many messages move from SQLite into DynamoDB and back: equal line by line, in memory that does not grow with them.

MOVED_MESSAGES says how many.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import tables
from tests.moved import but_runs, lines, made, url_of
from tests.shell import Shell

pytest_plugins = "tests.moving"

MANY = int(os.environ.get("MOVED_MESSAGES", "100000"))
FEW = 1_000
GROWTH_MAX = 60 << 20  # of which 32 MB are caches of SQLite's, and some 15 what is on its way

# Runs a command and says, last of all, the most memory that it had.
_MEASURED = """
import resource, sys
from tidings.cli import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
sys.exit(code)
"""


def measured(shell: Shell, *command: object) -> int:
    """The most memory that a command had, in bytes; it must succeed."""
    arguments = [sys.executable, "-c", _MEASURED, *map(str, command)]
    ended = subprocess.run(arguments, capture_output=True, text=True, env=shell.env, check=False)
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    return int(ended.stdout.splitlines()[-1])


def there_and_back(directory: Path, messages: int, shell: Shell) -> list[int]:
    """The memory of each of the five commands that it takes; what comes back is what went."""
    directory.mkdir()
    one, back = directory / "one.db", directory / "back.db"
    files = [directory / f"{n}.jsonl" for n in range(3)]
    made(one, messages, texts=100)
    with tables() as there:
        taken = [
            measured(shell, "export", files[0], "--store", url_of(one), "--close"),
            measured(shell, "import", files[0], "--store", there),
            measured(shell, "export", files[1], "--store", there, "--close"),
            measured(shell, "import", files[1], "--store", url_of(back)),
            measured(shell, "export", files[2], "--store", url_of(back), "--close"),
        ]
    assert lines(files[1]) == lines(files[0])
    assert but_runs(files[2]) == but_runs(files[0])
    assert len(but_runs(files[2])) > messages
    return taken


@pytest.mark.slow
def test_many_messages_there_and_back(tmp_path: Path, shell: Shell) -> None:
    """Equal line by line; and of many messages no command takes much more memory than of few."""
    few = there_and_back(tmp_path / "few", FEW, shell)
    many = there_and_back(tmp_path / "many", MANY, shell)
    assert all(more - less < GROWTH_MAX for less, more in zip(few, many, strict=True)), (few, many)
