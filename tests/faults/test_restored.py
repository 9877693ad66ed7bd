"""An older copy of the store is put back by hand: cursors from the history that is gone are told so, never misled."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.calls import Answer, Line, line_to
from tests.server import ServerProcess

FILES = ("tidings.db", "tidings.db-wal")


@dataclass
class Desk:
    """Ann, who writes, and bob, who reads, on a server that may be replaced by another one on other data."""

    line: Line
    ann: str = ""
    bob: str = ""
    count: int = 0

    def sign_up(self) -> None:
        self.ann, self.bob = (
            self.line.post("/v1/users/create", {"username": name}).data["userId"] for name in ("ann", "bob")
        )

    def write(self, number: int) -> list[str]:
        texts = [f"message {self.count + n}" for n in range(number)]
        self.count += number
        for text in texts:
            body = {"senderId": self.ann, "receiverId": self.bob, "message": text}
            assert self.line.post("/v1/messages/send?type=private", body).status == 200
        return texts

    def read(self, cursor: str | None = None, **query: object) -> Answer:
        return self.line.get(f"/v1/messages/{self.bob}", cursor=cursor, **query)

    def given(self, cursor: str | None = None, **query: object) -> tuple[list[str], str]:
        answer = self.read(cursor, **query)
        assert answer.status == 200, answer
        return [message["message"] for message in answer.data["messages"] or []], answer.data["cursor"]


@contextmanager
def serving(data: Path, workers: int, desk: Desk | None = None) -> Iterator[Desk]:
    """A desk at a server on `data`; it is killed at the end, so that its log file stays."""
    with ServerProcess.start(data, "--workers", str(workers)) as server, line_to(server.url) as line:
        used = desk or Desk(line)
        used.line = line
        yield used
        server.kill()


def keep(data: Path, copy: Path) -> None:
    """Copy the store's files; nobody writes."""
    copy.mkdir()
    for name in FILES:
        shutil.copy(data / name, copy / name)


def put_back(copy: Path, data: Path) -> None:
    """Replace the store by a copy; the index of the log goes, as SQLite's own documentation has it."""
    for file in data.glob("tidings.db*"):
        file.unlink()
    for name in FILES:
        shutil.copy(copy / name, data / name)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("when", ["running", "between two runs"])
def test_cursors_around_an_older_copy(tmp_path: Path, workers: int, when: str) -> None:
    """Those older than the copy go on exactly; newer ones get 410, now and when the new history has outgrown them."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    data.mkdir()
    with serving(data, workers) as desk:
        desk.sign_up()
        first = desk.write(5)
        seen, old = desk.given()
        assert seen == first
        _, half = desk.given(limit=3)
        if when == "running":
            keep(data, copy)
            desk.write(5)
            newer = [desk.given(old)[1], desk.given()[1], desk.given(limit=7)[1], desk.given("now")[1]]
    if when != "running":
        keep(data, copy)
        with serving(data, workers, desk):
            desk.write(5)
            newer = [desk.given(old)[1], desk.given()[1], desk.given(limit=7)[1], desk.given("now")[1]]
    put_back(copy, data)
    with serving(data, workers, desk):
        assert desk.given(old)[0] == []
        assert desk.given(half)[0] == first[3:]
        _refused(desk, newer)
        later = desk.write(20)  # heads and positions have passed what the newer cursors name
        _refused(desk, newer)
        assert desk.given(old)[0] == later
        seen, fresh = desk.given()
        assert seen == first + later
        assert desk.given(fresh)[0] == []
        assert desk.given(old, limit=4)[0] == later[:4]
    with serving(data, workers, desk):  # and in the runs after that
        _refused(desk, newer)
        last = desk.write(1)
        assert desk.given(fresh)[0] == last
        assert desk.given(old)[0] == later + last


def _refused(desk: Desk, cursors: list[str]) -> None:
    for cursor in cursors:
        for query in ({}, {"limit": 2}, {"wait": 0.1}, {"sent": "include"}):
            answer = desk.read(cursor, **query)
            assert (answer.status, answer.code) == (410, "cursor_of_another_history"), (query, answer)


def test_two_stores_that_grew_from_one_copy(tmp_path: Path) -> None:
    """Each refuses the cursors that the other has minted since they parted, although their seqs are alike."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    with serving(one, 1) as desk:
        desk.sign_up()
        first = desk.write(3)
        _, old = desk.given()
    keep(one, other)
    count = desk.count
    with serving(one, 1, desk):
        mine = desk.write(4)
        _, of_one = desk.given()
    desk.count = count + 100
    with serving(other, 1, desk):
        theirs = desk.write(4)
        _, of_other = desk.given()
        _refused(desk, [of_one])
        assert desk.given(old)[0] == theirs
    with serving(one, 1, desk):
        _refused(desk, [of_other])
        assert desk.given(old)[0] == mine
        assert desk.given()[0] == first + mine


def test_a_cursor_of_a_strange_store(tmp_path: Path) -> None:
    """A cursor that another store minted for another bob is refused: it is not this user's."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    with serving(one, 1) as desk:
        desk.sign_up()
        desk.write(3)
        _, foreign = desk.given()
    with serving(other, 1) as desk:
        desk.sign_up()
        desk.write(3)
        answer = desk.read(foreign)
        assert (answer.status, answer.code) in {(400, "bad_cursor"), (410, "cursor_of_another_history")}
