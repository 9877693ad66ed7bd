"""The disk is full, on a tiny file system: sends are refused, reads go on; given room, all goes on by itself."""

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.calls import line_to
from tests.faults.crowd import Crowd
from tests.faults.mortal import Mortal
from tests.faults.recorder import Recorder
from tests.faults.refusal import ServedAfterAll, refusal
from tests.server import ServerProcess, store_url, until
from tests.shell import Shell
from tidings.history import Reading, Sending


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(path)], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("a tiny file system needs the right to mount one (root)")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def fill(disk: Path, leaving: int = 0) -> None:
    """Take all room but so many bytes."""
    with (disk / "filler").open("wb", buffering=0) as file:
        with suppress(OSError):  # ENOSPC is the end of it, wherever the server writes meanwhile
            while True:
                file.write(bytes(4096))
        file.truncate(max(0, file.tell() - leaving))


def free(disk: Path) -> None:
    """Give the room back."""
    (disk / "filler").unlink()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_refuses_sends_and_nothing_else(disk: Path, tmp_path: Path, workers: str) -> None:
    """Sends get 503 store_full, reads and polls go on with everything acknowledged, room heals it without a restart."""
    recorder = Recorder()
    with ServerProcess.start(disk, "--workers", workers) as server, line_to(server.url, fresh=0.3) as line:
        ann, bob, eve = (line.post("/v1/users/create", {"username": n}).data["userId"] for n in ("ann", "bob", "eve"))

        def send(number: int) -> Sending:
            return recorder.send(line, ann, bob, f"{number} " + "x" * 8000, True, f"k{number}")

        assert send(0).outcome == "ok"
        fill(disk, leaving=256 << 10)
        number, refused = 0, 0
        while refused < 5:
            number += 1
            assert number < 2000, "the disk never filled up"
            event = send(number)
            assert event.outcome == "ok" or event.code == "store_full", event
            refused += event.outcome != "ok"
            if number % 10 == 0 or refused:
                assert recorder.read(line, bob, "1", cursor=_last(recorder)).outcome == "ok"
        block = recorder.change(line, "block", bob, eve, "block")
        assert block.outcome == "ok" or block.code == "store_full", block
        assert recorder.read(line, bob, "whole").outcome == "ok"
        assert recorder.read(line, bob, "paged", limit=10, time=0).outcome == "ok"
        free(disk)
        until(lambda: send(number).outcome == "ok")
        assert recorder.change(line, "block", bob, eve, "block").outcome == "ok"
        assert send(number + 1).outcome == "ok"
        assert recorder.read(line, bob, "1", cursor=_last(recorder)).outcome == "ok"
        server.wait_for_error("writes are taken again: store_full")
        assert 1 <= server.errors.count("writes are refused: store_full") <= 5 * int(workers), "said at its begin alone"
    recorder.judge(tmp_path / "history.jsonl")


def _last(recorder: Recorder) -> str:
    """The cursor that the chain "1" was last given."""
    return next((e.given for e in reversed(recorder.events) if isinstance(e, Reading) and e.chain == "1"), "")


def test_a_start_on_a_full_disk(disk: Path) -> None:
    """Not even an empty store fits: refused in one line. An existing one is refused or served, never spoilt."""
    fill(disk)
    refusal(disk)
    free(disk)
    with ServerProcess.start(disk) as server, line_to(server.url) as line:
        ann = line.post("/v1/users/create", {"username": "ann"}).data["userId"]
        body = {"senderId": ann, "receiverId": ann, "message": "kept"}
        assert line.post("/v1/messages/send?type=private", body).status == 200
    fill(disk)
    with suppress(ServedAfterAll):
        refusal(disk)
    free(disk)
    with ServerProcess.start(disk) as server, line_to(server.url) as line:
        assert [m["message"] for m in line.get(f"/v1/messages/{ann}").data["messages"]] == ["kept"]


def test_a_backup_that_finds_no_room(disk: Path, tmp_path: Path) -> None:
    """One line says that the disk is full; nothing of it is left there, and given room it is made."""
    with ServerProcess.start(tmp_path) as server, line_to(server.url) as line:
        ann = line.post("/v1/users/create", {"username": "ann"}).data["userId"]
        for n in range(100):
            body = {"senderId": ann, "receiverId": ann, "message": f"{n} " + "x" * 16_000}
            assert line.post("/v1/messages/send?type=private", body).status == 200
        kept = disk / "kept.db"
        fill(disk, leaving=1 << 20)
        assert "the disk is full" in Shell().refused("backup", kept, "--store", store_url(tmp_path))
        assert [path.name for path in disk.iterdir()] == ["filler"]
        free(disk)
        assert Shell().json("backup", kept, "--store", store_url(tmp_path))["bytes"] > 1 << 20


def test_a_read_only_disk_is_refused(disk: Path) -> None:
    """A store that can't be written is refused at the start in one line."""
    with ServerProcess.start(disk):
        pass
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert "tidings.db" in refusal(disk)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_disk_fills_up_again_and_again(
    disk: Path, tmp_path: Path, seed: int, say: Callable[[str], None], workers: str
) -> None:
    """A crowd goes on while the room comes and goes, and the server is killed meanwhile: their histories hold."""
    rng = random.Random(seed)
    with Mortal(disk, "--workers", workers) as server, Crowd(server.url, seed, fresh=0.1) as crowd:
        for turn in range(6):
            crowd.go_on(rng.randint(200, 600))
            fill(disk, leaving=rng.choice((0, 4096, 100_000)))
            crowd.recorder.fault("full disk")
            crowd.go_on(rng.randint(200, 1000))
            if turn % 2:
                with crowd.down("kill"):
                    server.kill()
                    free(disk)
                    server.restart()
            else:
                free(disk)
        crowd.finish()
    counts = crowd.judged(tmp_path, f"full disk, {workers} worker(s)", server.errors, say)
    full = sum(getattr(event, "code", "") == "store_full" for event in crowd.recorder.events)
    assert full >= 20, "the disk was full"
    assert counts["sends acknowledged"] >= 200
    assert counts["messages acknowledged and never read"] == 0
