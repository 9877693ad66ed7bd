"""A store of an older version is brought forward by the server that starts on it, whole or not at all."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest

from tests.server import ServerProcess, store_url
from tests.shell import Shell
from tidings.errors import StartError
from tidings.store.sqlite import file
from tidings.store.sqlite.file import connect, open_file

# What version 1 had otherwise: two indexes in place of `places`, no `placed` in the clock, no word of exports.
VERSION_1 = """
BEGIN;
ALTER TABLE history RENAME TO newer;
CREATE TABLE history(
  one        INTEGER PRIMARY KEY CHECK (one = 1),
  generation INTEGER NOT NULL
);
INSERT INTO history SELECT one, generation FROM newer;
DROP TABLE newer;
ALTER TABLE clock RENAME TO newer;
CREATE TABLE clock(
  one       INTEGER PRIMARY KEY CHECK (one = 1),
  position  INTEGER NOT NULL,
  timestamp INTEGER NOT NULL,
  forgotten INTEGER NOT NULL
);
INSERT INTO clock SELECT one, position, timestamp, forgotten FROM newer;
DROP TABLE newer;
DROP TABLE places;
CREATE UNIQUE INDEX messages_by_mailbox ON messages(mailbox, seq);
CREATE UNIQUE INDEX messages_by_sender ON messages(sender, sent_seq) WHERE sent_seq IS NOT NULL;
PRAGMA user_version=1;
COMMIT;
"""
MESSAGES = 30  # of each sender


class Cast:
    """Ann, Bob and their group, on whatever server of the same store."""

    def __init__(self, url: str, line: httpx.Client) -> None:
        self.url = url
        self._line = line
        self.ann, self.bob = [self.post("users/create", username=name)["userId"] for name in ("ann", "bob")]
        self.hikers = self.post("groups/create", groupName="hikers")["groupId"]
        for user in (self.ann, self.bob):
            self.post(f"groups/{self.hikers}?op=add", userId=user)

    def post(self, path: str, **body: str) -> Any:
        return self._line.post(f"{self.url}/v1/{path}", json=body).raise_for_status().json()

    def send(self, count: int) -> list[Any]:
        """Each writes to the other and to the group, in turn; gives the answers."""
        answers = []
        for n in range(count):
            for sender, receiver in ((self.ann, self.bob), (self.bob, self.ann)):
                private = {"senderId": sender, "receiverId": receiver, "message": f"{n}"}
                answers.append(self.post("messages/send?type=private", **private))
                to_all = {"senderId": sender, "groupId": self.hikers, "message": f"{n}"}
                answers.append(self.post("messages/send?type=group", **to_all))
        return answers

    def read(self, **params: object) -> Any:
        """What Ann gets, copies too."""
        asked: Any = {"sent": "include", **params}
        answer = self._line.get(f"{self.url}/v1/messages/{self.ann}", params=asked)
        return answer.raise_for_status().json()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Cast, list[str]]]:
    """A store of version 1 with some messages, who is in it, and cursors of Ann's: of a first page, and of all."""
    data = tmp_path_factory.mktemp("old")
    with httpx.Client() as line:
        with ServerProcess.start(data, "--index-lag-max", "20") as server:
            cast = Cast(server.url, line)
            cast.send(MESSAGES)
            cursors = [str(cast.read(limit=7)["cursor"]), str(cast.read()["cursor"])]
        make_older(data)
        yield data, cast, cursors


@pytest.fixture
def old(made: tuple[Path, Cast, list[str]], tmp_path: Path) -> tuple[Path, Cast, list[str]]:
    """A copy of it."""
    shutil.copytree(made[0], tmp_path / "data")
    return tmp_path / "data", *made[1:]


def make_older(data: Path) -> None:
    """Turn a store into one of version 1."""
    db = connect(data / "tidings.db")
    for _ in db.execute(VERSION_1):
        pass
    db.close()


def schema(path: Path) -> list[tuple[Any, ...]]:
    """Every table and index, in its own words, and the version."""
    db = connect(path)
    found: list[Any] = db.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
    found.append(("version", db.execute("PRAGMA user_version").get))
    db.close()
    return found


@pytest.mark.parametrize("flags", [(), ("--workers", "2"), ("--index-lag-max", "0")])
def test_a_store_of_version_1_is_brought_forward(
    old: tuple[Path, Cast, list[str]], tmp_path: Path, flags: Sequence[str]
) -> None:
    """All is read as before, from the start and by each cursor; numbers go on; the file is as a new one would be."""
    data, cast, cursors = old
    assert kinds(data, 1) == ["version"]
    for more in range(2):  # the second start finds nothing to do
        with ServerProcess.start(data, *flags) as server:
            cast.url = server.url
            whole = cast.read()["messages"]
            assert len(whole) == 4 * (MESSAGES + more)
            assert cast.read(cursor=cursors[0])["messages"] == whole[7:]
            assert cast.read(cursor=cursors[1])["messages"] == (whole[4 * MESSAGES :] or None)
            assert cast.read(timestamp=whole[50]["timestamp"])["messages"] == whole[51:]
            last = MESSAGES + more
            assert [answer["seq"] for answer in cast.send(1)] == [last + 1, 2 * last + 1, last + 1, 2 * last + 2]
            assert kinds(data, 0) == []
    open_file(tmp_path / "new.db").close()
    assert schema(data / "tidings.db") == schema(tmp_path / "new.db")


KILLED_AS_IT_ENDS = """
import os, signal, sys
from pathlib import Path
from tidings.errors import StartError
from tidings.store.sqlite import file

def place_all_and_die(db, place_all=file.place_all):
    place_all(db)
    assert db.execute("SELECT count(*) FROM places").get > 0
    os.kill(os.getpid(), signal.SIGKILL)

file.place_all = place_all_and_die
file.open_file(Path(sys.argv[1]))
"""


def test_killed_half_way_a_store_is_what_it_was(old: tuple[Path, Cast, list[str]]) -> None:
    """A process is killed with all but the version made: the file is of version 1, and the next start does it."""
    data, cast, cursors = old
    before = schema(data / "tidings.db")
    killed = subprocess.run([sys.executable, "-c", KILLED_AS_IT_ENDS, str(data / "tidings.db")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert schema(data / "tidings.db") == before
    assert kinds(data, 1) == ["version"]
    with ServerProcess.start(data) as server:
        cast.url = server.url
        assert len(cast.read()["messages"]) == 4 * MESSAGES
        assert cast.read(cursor=cursors[1])["messages"] is None
        assert kinds(data, 0) == []


def test_without_room_a_store_is_what_it_was(
    old: tuple[Path, Cast, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up as the index is made: the start is refused in one line, and the file is of version 1."""
    data, _, _ = old
    before = schema(data / "tidings.db")

    def fill_up(db: apsw.Connection) -> None:
        db.execute(f"PRAGMA max_page_count={db.execute('PRAGMA page_count').get}").fetchall()
        db.execute("CREATE TABLE filler AS SELECT randomblob(1000000)")

    monkeypatch.setattr(file, "place_all", fill_up)
    with pytest.raises(StartError, match="the disk is full"):
        open_file(data / "tidings.db")
    assert schema(data / "tidings.db") == before


def kinds(data: Path, code: int) -> list[str]:
    """What the doctor finds."""
    run = Shell().run("doctor", "--store", store_url(data), "--json")
    assert run.returncode == code, run
    return [finding["kind"] for finding in json.loads(run.stdout)["findings"]]
