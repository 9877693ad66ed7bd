"""A file that is damaged while it is served: sends or reads that meet it are refused, what is in memory goes on."""

import random
from pathlib import Path

from tests.faults.calls import line_to
from tests.server import ServerProcess


def test_damaged_under_a_running_server(tmp_path: Path) -> None:
    """Every page of the file is overwritten: sends get 503 store_corrupt, polls without news come from memory."""
    with ServerProcess.start(tmp_path) as server, line_to(server.url) as line:
        ann, bob = (line.post("/v1/users/create", {"username": n}).data["userId"] for n in ("ann", "bob"))
        body = {"senderId": ann, "receiverId": bob, "message": "hello"}
        assert line.post("/v1/messages/send?type=private", body).status == 200
        cursor = line.get(f"/v1/messages/{bob}").data["cursor"]
        for name in ("tidings.db", "tidings.db-wal"):
            file = tmp_path / name
            with file.open("r+b") as opened:
                opened.write(random.Random(1).randbytes(file.stat().st_size))
        answers = [line.post("/v1/messages/send?type=private", body) for _ in range(3)]
        assert all(a.status == 200 or (a.status, a.code) == (503, "store_corrupt") for a in answers), answers
        quiet = line.get(f"/v1/messages/{bob}", cursor=cursor)
        assert quiet.status == 200 or quiet.code == "store_corrupt", quiet
        assert line.get("/healthz").status == 200
