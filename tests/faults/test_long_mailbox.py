"""A mailbox of a million messages is read whole while sends go on: everything, in order, in bounded memory and log."""

import http.client
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import apsw
import pytest

from tests.faults.calls import line_to
from tests.server import ServerProcess, memory, until
from tidings.store.sqlite.mailboxes import place_all

MESSAGES = 1_000_000
GROWTH_MAX_MB = 80  # a few pages of 1,000 messages in flight, SQLite's caches, and the tail's memory of the sends
WAL_MAX_MB = 80  # the store's own bound of 64 MB, and what is committed until a checkpoint gets through
SEQ = re.compile(rb'"seq":(\d+)\}')


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A store in which ann has written a million messages to bob, and their ids."""
    data = tmp_path_factory.mktemp("long")
    with ServerProcess.start(data) as server, line_to(server.url) as line:
        ann, bob = (line.post("/v1/users/create", {"username": n}).data["userId"] for n in ("ann", "bob"))
    db = apsw.Connection(str(data / "tidings.db"))
    position = db.execute("SELECT position FROM clock").get
    begin = time.time_ns() // 1_000_000 - 2 * MESSAGES
    with db:
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)"
            " INSERT INTO messages (position, mailbox, seq, sender, sent_seq, timestamp, id, text)"
            " SELECT ?2 + i, 'u' || ?4, i, ?3, i, ?5 + i, printf('message-%026d', i), 'message number ' || i FROM n",
            (MESSAGES, position, ann, bob, begin),
        )
        db.execute("UPDATE clock SET position = position + ?, timestamp = ?", (MESSAGES, begin + MESSAGES))
        place_all(db)
    db.close()
    return data, ann, bob


@pytest.mark.slow
@pytest.mark.parametrize("query", ["", "?timestamp=1"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_million_messages(
    filled: tuple[Path, str, str], say: Callable[[str], None], workers: str, query: str
) -> None:
    """One GET gives a million messages and more, each once, while ann writes on: memory and log stay bounded."""
    data, ann, bob = filled
    with ServerProcess.start(data, "--workers", workers) as server, line_to(server.url) as line:
        before = line.get(f"/v1/messages/{bob}?timestamp={int(time.time() * 1000) + 3_600_000}")
        assert before.status == 200
        writing = Writing(server.url, ann, bob)
        watching = Watching(server, data)
        begun = time.monotonic()
        seqs = whole(server.url, f"/v1/messages/{bob}{query}", watching)
        took_s = time.monotonic() - begun
        writing.end()
        count = 0
        for count, seq in enumerate(seqs, 1):
            assert seq == count
        assert count >= MESSAGES
    say(
        f"a million messages, {workers} worker(s){query}: {count} in {took_s:.0f} s ({count / took_s:,.0f}/s),"
        f" {writing.sent} sends meanwhile, memory +{watching.growth_mb:.0f} MB, log at most {watching.wal_mb:.0f} MB"
    )
    assert writing.sent >= 50
    assert watching.growth_mb < GROWTH_MAX_MB
    assert watching.wal_mb < WAL_MAX_MB


@pytest.mark.slow
def test_a_reader_who_pauses(filled: tuple[Path, str, str], say: Callable[[str], None]) -> None:
    """Half-way the reader stops taking; thousands of sends later it goes on: neither memory nor log grew with them."""
    data, ann, bob = filled
    with ServerProcess.start(data) as server, line_to(server.url) as line:
        assert line.get(f"/v1/messages/{bob}?timestamp=1&limit=1000").status == 200
        watching = Watching(server, data)
        writings: list[Writing] = []

        def pause() -> None:
            writings.extend(Writing(server.url, ann, bob) for _ in range(4))
            until(lambda: sum(writing.sent for writing in writings) >= 4_000, 60)
            watching.look()
            for writing in writings:
                writing.end()

        seqs = whole(server.url, f"/v1/messages/{bob}", watching, pause)
        assert seqs == list(range(1, len(seqs) + 1))
        assert len(seqs) >= MESSAGES
    sent = sum(writing.sent for writing in writings)
    say(f"a pause half-way: {sent} sends, memory +{watching.growth_mb:.0f} MB, log at most {watching.wal_mb:.0f} MB")
    assert watching.growth_mb < GROWTH_MAX_MB
    assert watching.wal_mb < WAL_MAX_MB


def whole(url: str, path: str, watching: "Watching", half_way: Callable[[], None] | None = None) -> list[int]:
    """The seqs of one whole answer, read piece by piece; its end must be well formed."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    connection.request("GET", path)
    response = connection.getresponse()
    assert response.status == 200
    seqs: list[int] = []
    rest = b""
    while piece := response.read(1 << 18):
        rest += piece
        end = 0
        for match in SEQ.finditer(rest):
            seqs.append(int(match[1]))
            end = match.end()
        rest = rest[end:]
        if half_way is not None and len(seqs) >= MESSAGES // 2:
            half_way()
            half_way = None
        watching.look()
    connection.close()
    assert rest.startswith(b"]")
    assert rest.endswith(b"}")
    return seqs


class Writing:
    """Ann writes to bob, one message after the other, until `end`."""

    def __init__(self, url: str, ann: str, bob: str) -> None:
        self.sent = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(url, ann, bob))
        self._thread.start()

    def end(self) -> None:
        """Stop, and wait for it."""
        self._over.set()
        self._thread.join()

    def _run(self, url: str, ann: str, bob: str) -> None:
        with line_to(url) as line:
            while not self._over.is_set():
                body = {"senderId": ann, "receiverId": bob, "message": f"later {self.sent}"}
                assert line.post("/v1/messages/send?type=private", body).status == 200
                self.sent += 1


class Watching:
    """The most memory that the serving processes took beyond the first look, and the longest log."""

    def __init__(self, server: ServerProcess, data: Path) -> None:
        self._pids = server.worker_pids() or [server.pid]
        self._wal = data / "tidings.db-wal"
        self._first = self._memory_mb()
        self.growth_mb = 0.0
        self.wal_mb = 0.0

    def look(self) -> None:
        """Measure."""
        self.growth_mb = max(self.growth_mb, self._memory_mb() - self._first)
        self.wal_mb = max(self.wal_mb, self._wal.stat().st_size / 1e6)

    def _memory_mb(self) -> float:
        return sum(map(memory, self._pids)) / 1e6
