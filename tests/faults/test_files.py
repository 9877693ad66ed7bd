"""Files that are no store of ours, or a damaged one: refused in one line at the start; met later, said."""

import asyncio
import random
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.calls import line_to
from tests.faults.refusal import ServedAfterAll, refusal
from tests.server import ServerProcess
from tidings import Client

PAGE = 4096


def text_file(file: Path) -> None:
    file.write_text("Dear diary, this is no database.\n" * 500)


def empty_page(file: Path) -> None:
    file.write_bytes(bytes(PAGE))


def another_program(file: Path) -> None:
    db = sqlite3.connect(file)
    db.execute("CREATE TABLE users(id TEXT PRIMARY KEY, name TEXT)")
    db.execute("PRAGMA user_version=1")
    db.commit()
    db.close()


def directory(file: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("make", [text_file, empty_page, another_program, directory])
def test_a_foreign_file_is_refused(tmp_path: Path, make: Callable[[Path], None], workers: str) -> None:
    """Whatever lies where the store should be is left as it is, and the reason is said in one line."""
    file = tmp_path / "tidings.db"
    make(file)
    before = file.read_bytes() if file.is_file() else b""
    refusal(tmp_path, "--workers", workers)
    assert (file.read_bytes() if file.is_file() else b"") == before


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A data directory with a store of 300 messages to bob, well ended; its users are in `names`."""
    with ServerProcess.start(tmp_path) as server:
        (tmp_path / "names").write_text(" ".join(asyncio.run(_fill(server.url))))
    assert not (tmp_path / "tidings.db-wal").exists(), "a server that ended well leaves one file"
    return tmp_path


async def _fill(url: str) -> list[str]:
    async with Client(url) as tidings:
        ids = [(await tidings.create_user(name)).user_id for name in ("ann", "bob", "carol")]
        for n in range(300):
            await tidings.send(ids[0], ids[1], f"{n} " + "x" * 8000)
    return ids


def test_a_newer_schema_is_refused(store: Path) -> None:
    """A store that a newer Tidings has written is not touched."""
    db = sqlite3.connect(store / "tidings.db")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    db.execute(f"PRAGMA user_version={version + 1}")
    db.close()
    assert "version" in refusal(store)


def test_a_damaged_header_is_refused(store: Path) -> None:
    """The first page is gone."""
    with (store / "tidings.db").open("r+b") as file:
        file.write(random.Random(1).randbytes(PAGE))
    refusal(store)


def test_a_cut_file_is_refused_or_said(store: Path) -> None:
    """The second half of the file is missing: nothing is answered as if it were all."""
    file = store / "tidings.db"
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2 // PAGE * PAGE)
    _never_short(store)


@pytest.mark.parametrize("seed", range(5))
def test_damaged_pages_are_said(store: Path, seed: int) -> None:
    """Pages in the middle are overwritten: what needs them gets 503 store_corrupt or is cut off, the rest goes on."""
    rng = random.Random(seed)
    file = store / "tidings.db"
    pages = file.stat().st_size // PAGE
    with file.open("r+b") as opened:
        for _ in range(pages // 10):
            opened.seek(rng.randrange(pages // 4, pages) * PAGE)
            opened.write(rng.randbytes(PAGE))
    _never_short(store)


def _never_short(store: Path) -> None:
    """Start if it starts; then a whole read gives everything, an error, or a broken connection, but never less."""
    ann, bob, carol = (store / "names").read_text().split()
    with suppress(ServedAfterAll):
        refusal(store)
        return
    with ServerProcess.start(store) as server, line_to(server.url) as line:
        whole = line.get(f"/v1/messages/{bob}")
        assert whole.status != 200 or len(whole.data["messages"]) == 300, len(whole.data["messages"])
        assert whole.status in (0, 200) or (whole.status, whole.code) == (503, "store_corrupt"), whole
        for path in (f"/v1/messages/{carol}", f"/v1/users/{carol}", f"/v1/messages/{bob}?timestamp=1"):
            answer = line.get(path)
            assert answer.status in (0, 200) or answer.code == "store_corrupt", answer
        body = {"senderId": ann, "receiverId": carol, "message": "hello"}
        sent = line.post("/v1/messages/send?type=private", body)
        assert sent.status == 200 or sent.code == "store_corrupt", sent
        if sent.status == 200:
            assert [m["message"] for m in line.get(f"/v1/messages/{carol}").data["messages"]] == ["hello"]
        assert line.get("/healthz").status == 200
