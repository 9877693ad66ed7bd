"""Many messages move from SQLite into DynamoDB and back: equal line by line, in memory that does not grow with them.

MOVED_MESSAGES says how many.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.api_client import Api, Json
from tests.cluster import tables
from tests.moved import but_runs, lines, made, url_of
from tests.redis_server import RedisServer
from tests.server import ServerProcess
from tests.shell import Shell

pytest_plugins = "tests.moving"

MANY = int(os.environ.get("MOVED_MESSAGES", "20000"))
FEW = 1_000
READERS = 4  # one of them is in all groups, and has half of all messages
PAGE_MAX = 1_000
REST_MAX = 4 * PAGE_MAX  # messages that are read again, for each cursor that has no more behind it
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


class Cursors:
    """Of some users, on the way through all that they have and at its end; each with what comes after it."""

    def __init__(self, api: Api, users: Sequence[str]) -> None:
        self._after: list[tuple[str, str, list[Json]]] = []
        for user in users:
            everything = [message for messages, _ in everything_after(api, user, "") for message in messages]
            given = 0
            for messages, cursor in everything_after(api, user, "", min(PAGE_MAX, len(everything) // 4)):
                given += len(messages)
                if len(everything) - given < REST_MAX:
                    self._after.append((user, cursor, everything[given:]))
        assert len(self._after) > 3 * len(users)

    def check(self, api: Api) -> None:
        """Each gives exactly the rest."""
        for user, cursor, rest in self._after:
            assert [message for messages, _ in everything_after(api, user, cursor) for message in messages] == rest


def everything_after(api: Api, user: str, cursor: str, limit: int = PAGE_MAX) -> Iterator[tuple[list[Json], str]]:
    """Page after page: its messages, and the cursor behind it."""
    more = True
    while more:
        page = api.poll(user, cursor=cursor, limit=limit)
        cursor, more = page["cursor"], page.get("more", False)
        yield page["messages"] or [], cursor


def there_and_back(directory: Path, messages: int, shell: Shell) -> list[int]:
    """The memory of each of the five commands that it takes; what comes back is what went, and cursors live on."""
    directory.mkdir()
    one, back = directory / "one.db", directory / "back.db"
    files = [directory / f"{n}.jsonl" for n in range(3)]
    people = made(one, messages, texts=100)
    with ServerProcess.start(directory, "--store", url_of(one)) as server, Api(server.url) as api:
        cursors = Cursors(api, people[:READERS])
    with tables() as there:
        taken = [
            measured(shell, "export", files[0], "--store", url_of(one), "--close"),
            measured(shell, "import", files[0], "--store", there),
        ]
        with RedisServer(directory) as redis:
            flags = ("--store", there, "--feed", redis.url)
            with ServerProcess.start(directory, *flags, env=shell.env) as node, Api(node.url) as api:
                cursors.check(api)
        taken += [
            measured(shell, "export", files[1], "--store", there, "--close"),
            measured(shell, "import", files[1], "--store", url_of(back)),
            measured(shell, "export", files[2], "--store", url_of(back), "--close"),
        ]
    with ServerProcess.start(directory, "--store", url_of(back)) as server, Api(server.url) as api:
        cursors.check(api)
    assert lines(files[1]) == lines(files[0])
    assert but_runs(files[2]) == but_runs(files[0])
    assert len(but_runs(files[2])) > messages
    return taken


@pytest.mark.slow
def test_many_messages_there_and_back(tmp_path: Path, shell: Shell) -> None:
    """Equal line by line; cursors from before give exactly the rest, on the tables and back on a file.

    And of many messages no command takes much more memory than of few.
    """
    few = there_and_back(tmp_path / "few", FEW, shell)
    many = there_and_back(tmp_path / "many", MANY, shell)
    assert all(more - less < GROWTH_MAX for less, more in zip(few, many, strict=True)), (few, many)
