"""Somebody holds a snapshot of the file for long, as a backup does: sends go on, and the log shrinks afterwards."""

from pathlib import Path

import apsw
import pytest

from tests.faults.calls import line_to
from tests.server import ServerProcess, until
from tidings.store.sqlite.file import WAL_MAX_BYTES

LARGE = "x" * 1_000_000
FLAGS = ("--message-max-bytes", "1048576", "--body-max-bytes", "2097152", "--write-wait-s", "3")  # under 5 s of waiting


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sends_go_on_while_a_snapshot_is_held(tmp_path: Path, workers: str) -> None:
    """The log is over its mark and can't start over; no send waits for that. Then it can, and its file is cut."""
    wal = tmp_path / "tidings.db-wal"
    with ServerProcess.start(tmp_path, *FLAGS, "--workers", workers) as server, line_to(server.url, fresh=0.3) as line:
        ann, bob = (line.post("/v1/users/create", {"username": name}).data["userId"] for name in ("ann", "bob"))

        def send(text: str) -> int:
            body = {"senderId": ann, "receiverId": bob, "message": text}
            return line.post("/v1/messages/send?type=private", body).status

        held = apsw.Connection(str(tmp_path / "tidings.db"), flags=apsw.SQLITE_OPEN_READONLY)
        held.execute("BEGIN; SELECT count(*) FROM messages").fetchall()
        while wal.stat().st_size <= WAL_MAX_BYTES:
            assert send(LARGE) == 200
        assert [send("a small one") for _ in range(200)] == [200] * 200
        assert wal.stat().st_size > WAL_MAX_BYTES
        assert held.execute("SELECT count(*) FROM messages").get == 0, "it must have been held all the while"
        held.close()
        until(lambda: send("another") == 200 and wal.stat().st_size <= WAL_MAX_BYTES)
