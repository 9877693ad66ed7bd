"""`tidings backup` and `tidings restore`: a copy of one moment, put back as a history that says it is another one."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import httpx
import pytest

from tests.faults.calls import Line, line_to
from tests.server import ServerProcess, StartFailed, store_url, until
from tests.shell import COMMAND, Shell

STORE = "tidings.db"
NOBODY = 65_500  # an id that no user has


class Desk:
    """Ann, who writes, and bob, who reads, at whatever server serves their store now."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.ann, self.bob = (line.post("/v1/users/create", {"username": n}).data["userId"] for n in ("ann", "bob"))

    def write(self, text: str, key: str = "") -> dict[str, str]:
        body = {"senderId": self.ann, "receiverId": self.bob, "message": text}
        answer = self.line.post("/v1/messages/send?type=private", body, key)
        assert answer.status == 200, answer
        return dict(answer.data)

    def read(self, cursor: str | None = None) -> tuple[list[str], str]:
        answer = self.line.get(f"/v1/messages/{self.bob}", cursor=cursor)
        assert answer.status == 200, answer
        return [message["message"] for message in answer.data["messages"] or []], answer.data["cursor"]

    def code(self, cursor: str) -> tuple[int, str]:
        answer = self.line.get(f"/v1/messages/{self.bob}", cursor=cursor)
        return answer.status, answer.code


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_backup_while_messages_come_in(tmp_path: Path, workers: str) -> None:
    """Taken under load, it is a whole store of one moment: all that was acknowledged before it, seqs without a hole."""
    data, copies = tmp_path / "data", tmp_path / "copies"
    data.mkdir()
    copies.mkdir()
    stop, sent = threading.Event(), [0]
    with ServerProcess.start(data, "--workers", workers) as server, line_to(server.url, fresh=0.1) as line:
        desk = Desk(line)

        def write_on() -> None:
            while not stop.is_set():
                desk.write(f"message {sent[0] + 1}")
                sent[0] += 1

        writing = threading.Thread(target=write_on)
        writing.start()
        try:
            until(lambda: sent[0] >= 50)
            before, kept = sent[0], copies / "kept.db"
            told = Shell().json("backup", kept, "--store", store_url(data))
            after = sent[0] + 1
            until(lambda: sent[0] > after)
        finally:
            stop.set()
            writing.join()
        assert desk.read()[0] == [f"message {n + 1}" for n in range(sent[0])]
    assert names(copies) == {"kept.db"}, "nothing else is left"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert told["backup"] == str(kept)
    assert told["bytes"] == kept.stat().st_size
    assert Shell().json("doctor", "--store", f"sqlite:///{kept}")["findings"] == []
    assert names(copies) == {"kept.db"}, "nor by looking at it"
    other = tmp_path / "other"
    Shell().json("restore", kept, "--store", store_url(other))
    with ServerProcess.start(other) as server, line_to(server.url) as desk.line:
        texts, _ = desk.read()
    assert texts == [f"message {n + 1}" for n in range(len(texts))]
    assert before <= len(texts) <= after


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The directory of a store with a message in it, of a server that has ended."""
    data = tmp_path / "data"
    data.mkdir()
    with ServerProcess.start(data) as server, line_to(server.url) as line:
        Desk(line).write("one")
    return data


def test_a_backup_into_a_directory_has_the_time_in_its_name(served: Path, tmp_path: Path) -> None:
    """Given a directory, the file is named for the moment, so that a timer can make one after the other."""
    told = Shell().json("backup", tmp_path, "--store", store_url(served))
    (made,) = tmp_path.glob("tidings-*Z.db")
    assert told["backup"] == str(made)
    assert names(served) == {STORE, f"{STORE}.lock", f"{STORE}.turn"}, "a store that nobody serves is left as it was"


def test_a_backup_replaces_nothing_unless_told(served: Path, tmp_path: Path) -> None:
    """A file that is there stays; with --force it is replaced by the whole copy in one step."""
    kept = tmp_path / "kept.db"
    kept.write_text("precious")
    assert "--force" in Shell().refused("backup", kept, "--store", store_url(served))
    assert kept.read_text() == "precious"
    Shell().json("backup", kept, "--store", store_url(served), "--force")
    assert Shell().json("doctor", "--store", f"sqlite:///{kept}")["findings"] == []


def test_a_backup_never_replaces_its_store(served: Path, tmp_path: Path) -> None:
    """Not even by force, nor one of the files beside it, nor a file beside which another's log lies."""
    for end in ("", "-wal", "-shm", ".lock", ".turn"):
        line = Shell().refused("backup", served / (STORE + end), "--store", store_url(served), "--force")
        assert "belongs to the store itself" in line
    (tmp_path / "kept.db-wal").write_text("of another file")
    assert "kept.db-wal is there" in Shell().refused(
        "backup", tmp_path / "kept.db", "--store", store_url(served), "--force"
    )


@pytest.mark.parametrize("make", ["nothing", "text", "another program's", "a newer one"])
def test_what_is_no_store_is_not_backed_up(tmp_path: Path, make: str) -> None:
    """No store, no backup: one line, and no file."""
    file, kept = tmp_path / STORE, tmp_path / "kept.db"
    _make(file, make)
    line = Shell().refused("backup", kept, "--store", store_url(tmp_path))
    assert str(file) in line
    assert not kept.exists()
    assert names(tmp_path) <= {STORE}


def _make(file: Path, what: str) -> None:
    if what == "text":
        file.write_text("Dear diary, " * 1000)
    elif what != "nothing":
        db = apsw.Connection(str(file))
        db.execute("CREATE TABLE users(id TEXT PRIMARY KEY, name TEXT)").fetchall()
        if what == "a newer one":
            db.execute(f"PRAGMA application_id={0x54494431}; PRAGMA user_version=99").fetchall()
        db.close()


def test_a_place_that_is_not_there(served: Path, tmp_path: Path) -> None:
    """A directory that does not exist, and a --store that is no URL, are one line each."""
    assert "No such file" in Shell().refused("backup", tmp_path / "no" / "kept.db", "--store", store_url(served))
    assert "--store must be" in Shell().refused("backup", tmp_path / "kept.db", "--store", "kept.db", code=2)


@contextmanager
def only_others_may(touch: Path) -> Iterator[None]:
    """Nobody has permissions, and who is root touches files as another user."""
    touch.chmod(0)
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        touch.chmod(0o700)


@pytest.fixture
def in_the_open() -> Iterator[Path]:
    """A directory into which other users may look, as they may not into the test's own."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place)


def test_what_may_not_be_touched(served: Path, in_the_open: Path) -> None:
    """Without the permission, to read the store or to write the copy, or with a name too long: one line says so."""
    shell, kept, copies = Shell(), in_the_open / "kept.db", in_the_open / "copies"
    shell.json("backup", kept, "--store", store_url(served))
    copies.mkdir()
    for touch, arguments, code in (
        (served, ("backup", in_the_open / "other.db", "--store", store_url(served)), 1),
        (copies, ("backup", copies / "kept.db", "--store", f"sqlite:///{kept}"), 1),
        (copies, ("restore", kept, "--store", store_url(copies)), 1),
        (served, ("doctor", "--store", store_url(served)), 2),
        (kept, ("doctor", "--store", f"sqlite:///{kept}"), 2),
        (kept, ("backup", in_the_open / "other.db", "--store", f"sqlite:///{kept}"), 1),
    ):
        with only_others_may(touch):
            assert "Permission denied" in shell.refused(*arguments, code=code)
    for command, code in (("backup", 1), ("restore", 1), ("doctor", 2)):
        assert "File name too long" in shell.refused(command, "x" * 300, "--store", store_url(served), code=code)


@pytest.mark.parametrize(
    ("into", "code", "said"), [("| true", 0, ""), ("> /dev/full", 2, "tidings: it is done, and can't be told: .*\n")]
)
def test_what_was_found_can_not_be_told(served: Path, into: str, code: int, said: str) -> None:
    """Who reads the diagnosis leaves before it comes, which is no fault; or the disk for it is full: one line."""
    program = f"{' '.join(COMMAND)} doctor --store {store_url(served)} {into}; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", program], capture_output=True, text=True, env=Shell().env, check=False)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert re.fullmatch(said, ended.stderr), ended.stderr


def test_cursors_and_keys_after_a_restore(tmp_path: Path) -> None:
    """All cursors from before get 410, seqs and timestamps go on above the backup's, keys live on, nothing is twice."""
    data, kept = tmp_path / "data", tmp_path / "kept.db"
    data.mkdir()
    with ServerProcess.start(data) as server, line_to(server.url) as line:
        desk = Desk(line)
        first = [desk.write(f"message {n}", f"key-{n}") for n in range(3)]
        cursors = [desk.read()[1]]
        Shell().json("backup", kept, "--store", store_url(data))
        desk.write("lost")
        cursors += [desk.read()[1], desk.line.get(f"/v1/messages/{desk.bob}", cursor="now").data["cursor"]]
        assert "another server is serving" in Shell().refused("restore", kept, "--store", store_url(data), "--force")
        server.kill()  # so that its log lies there as well
    assert (data / f"{STORE}-wal").exists()
    assert "--force" in Shell().refused("restore", kept, "--store", store_url(data))
    told = Shell().json("restore", kept, "--store", store_url(data), "--force")
    with ServerProcess.start(data) as server, line_to(server.url) as desk.line:
        for cursor in cursors:
            assert desk.code(cursor) == (410, "cursor_of_another_history")
        texts, fresh = desk.read()
        assert texts == ["message 0", "message 1", "message 2"]
        assert desk.write("message 1", "key-1") == first[1], "the key gives the answer of that first time"
        last = desk.write("after")
        assert int(last["seq"]) == 4
        assert int(last["timestamp"]) > int(first[2]["timestamp"])
        assert desk.read(fresh)[0] == ["after"]
        assert desk.read()[0] == [*texts, "after"]
        for cursor in cursors:
            assert desk.code(cursor) == (410, "cursor_of_another_history")
    aside = Path(told["kept"])
    Shell().json("restore", aside, "--store", store_url(tmp_path / "old"))
    with ServerProcess.start(tmp_path / "old") as server, line_to(server.url) as desk.line:
        assert desk.read()[0] == [*texts, "lost"], "what was kept aside is whole, what lay in its log included"


@pytest.mark.parametrize("make", ["nothing", "text", "another program's", "a newer one", "a damaged one", "itself"])
def test_what_is_no_backup_is_not_restored(served: Path, tmp_path: Path, make: str) -> None:
    """One line says why, and the store that was there still serves what it had."""
    kept = tmp_path / "kept.db"
    if make == "a damaged one":
        Shell().json("backup", kept, "--store", store_url(served))
        with kept.open("r+b") as file:
            file.seek(kept.stat().st_size // 2)
            file.write(b"\xff" * 8192)
    else:
        _make(kept, make)
    before = names(served)
    Shell().refused("restore", served / STORE if make == "itself" else kept, "--store", store_url(served), "--force")
    assert names(served) == before
    with ServerProcess.start(served) as server:
        assert httpx.get(f"{server.url}/readyz").status_code == 200


@pytest.mark.parametrize("moved", [0, 1, 2, 3])
def test_a_restore_that_was_broken_off(served: Path, tmp_path: Path, moved: int) -> None:
    """Killed between any two of its moves, no server starts on half of it, and the same command finishes it."""
    kept, aside = tmp_path / "kept.db", served / f"{STORE}.before-then"
    Shell().json("backup", kept, "--store", store_url(served))
    (served / f".{STORE}.abcdefgh.part").write_text("half of a copy")
    whole = (served / STORE).read_bytes()
    (served / f"{STORE}-wal").write_bytes(b"")
    (served / f"{STORE}.restoring").write_text(aside.name)
    for end in ("-wal", "", "new")[:moved]:
        if end == "new":
            (served / STORE).write_bytes(kept.read_bytes())
        else:
            (served / (STORE + end)).rename(served / (aside.name + end))
    with pytest.raises(StartFailed, match=r"a restore of .* was broken off; run it again"):
        ServerProcess.start(served)
    assert "was broken off" in Shell().refused("backup", tmp_path / "other.db", "--store", store_url(served))
    told = Shell().json("restore", kept, "--store", store_url(served))
    assert told["kept"] == str(aside)
    assert aside.read_bytes() == whole
    assert names(served) == {STORE, f"{STORE}.lock", f"{STORE}.turn", aside.name, f"{aside.name}-wal"}
    assert Shell().json("doctor", "--store", store_url(served))["rows"]["messages"] == 1
    with ServerProcess.start(served):
        pass


def test_a_backup_that_is_told_to_end(served: Path, tmp_path: Path) -> None:
    """SIGTERM half-way, as a timer's service gets it at a shutdown, leaves nothing behind."""
    copies = tmp_path / "copies"
    copies.mkdir()
    holder = apsw.Connection(str(served / STORE))
    holder.execute("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE").fetchall()  # so that the copy can't begin
    command = [sys.executable, "-m", "tidings", "backup", str(copies / "kept.db"), "--store", store_url(served)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as backup:
        until(lambda: any(copies.iterdir()))
        backup.terminate()
        _, said = backup.communicate(timeout=60)
    holder.close()
    assert (backup.returncode, said) == (128 + signal.SIGTERM, "")
    assert names(copies) == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("is_there", [True, False])
def test_what_root_restores_belongs_to_the_server(served: Path, tmp_path: Path, is_there: bool) -> None:
    """The store and its lock are the user's whose the store was, or else the directory: the server can open them."""
    kept, data = tmp_path / "kept.db", tmp_path / "of-nobody"
    Shell().json("backup", kept, "--store", store_url(served))
    data.mkdir()
    os.chown(data, NOBODY, NOBODY)
    if is_there:
        shutil.copy(served / STORE, data / STORE)
        os.chown(data / STORE, NOBODY + 1, NOBODY + 1)
    Shell().json("restore", kept, "--store", store_url(data), "--force")
    for name in (STORE, f"{STORE}.lock"):
        assert (data / name).stat().st_uid == (NOBODY + 1 if is_there else NOBODY), name


def test_what_people_are_told(served: Path, tmp_path: Path) -> None:
    """Without --json, a sentence says what was made, and where the old store went."""
    kept = tmp_path / "kept.db"
    assert (
        f"{kept}: 0.1 MB, everything up to position 3"
        in Shell().apart("backup", kept, "--store", store_url(served)).stdout
    )
    said = Shell().apart("restore", kept, "--store", store_url(served), "--force").stdout
    assert "The store that was there is kept: " in said
