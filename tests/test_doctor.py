"""`tidings doctor` finds each fault that is planted in a real store, and nothing in a sound one."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import httpx
import pytest

from tests.server import ServerProcess, store_url
from tests.shell import Shell
from tidings import Client
from tidings.store.sqlite.file import connect
from tidings.store.sqlite.walk import Tally

Plant = Callable[[apsw.Connection], object]


LAGS = {"index up to date": ("--index-lag-max", "0"), "index behind": ()}  # which lacks all messages of a small store


@pytest.fixture(scope="module", params=LAGS)
def sound(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The directory of a store that a real server has written, in three starts: of every kind of row."""
    data = tmp_path_factory.mktemp("sound")
    for _ in range(3):
        with ServerProcess.start(data, *LAGS[request.param]) as server:
            asyncio.run(_live(server.url))
    return data


async def _live(url: str) -> None:
    async with Client(url) as tidings:
        ann, bob, carol = [(await tidings.create_user(name)).user_id for name in ("ann", "bob", "carol")]
        hikers = (await tidings.create_group("hikers")).group_id
        for user in (ann, bob, carol):
            await tidings.add_member(hikers, user)
        for n in range(4):
            await tidings.send(ann, bob, f"{n}")
            await tidings.send_to_group(bob, hikers, f"{n}")
        await tidings.block(ann, carol)
        await tidings.remove_member(hikers, carol)
    to_herself = {"senderId": ann, "receiverId": ann, "message": "to myself"}
    async with httpx.AsyncClient(base_url=url) as keyless:  # which tidings.Client never is
        for _ in range(2):
            (await keyless.post("/v1/messages/send?type=private", json=to_herself)).raise_for_status()


@pytest.fixture
def data(sound: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(sound, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def is_placed(data: Path) -> bool:
    """Whether the store's index is up to date; else it lacks every message."""
    db = connect(data / "tidings.db")
    places, messages = db.execute("SELECT (SELECT count(*) FROM places), (SELECT count(*) FROM messages)").get
    db.close()
    assert places == 0 or places > messages, "each message has a place, some have two"
    return bool(places)


def found(data: Path, code: int = 1) -> dict[str, int]:
    """The kinds of findings, each with its count; what is told to people must have them all, with what to do."""
    run = Shell().run("doctor", "--store", store_url(data), "--json")
    assert (run.returncode, run.stderr) == (code, ""), run
    findings = json.loads(run.stdout)["findings"]
    told = Shell().run("doctor", "--store", store_url(data))
    assert (told.returncode, told.stderr) == (code, "")
    for finding in findings:
        assert f"\n{finding['kind']}: {finding['what']} ({finding['count']})\n  {finding['examples'][0]}" in told.stdout
        assert f"\n  What to do: {finding['advice']}" in told.stdout
        assert 1 <= len(finding["examples"]) <= 5
    return {finding["kind"]: finding["count"] for finding in findings}


def test_a_sound_store_has_no_findings(sound: Path) -> None:
    """Every kind of row, three starts, a block, a removal, keys of every route: nothing to find."""
    told = Shell().json("doctor", "--store", store_url(sound))
    assert told["findings"] == []
    assert all(count > 0 for count in told["rows"].values()), told["rows"]


def test_a_store_that_is_served_is_looked_at(data: Path) -> None:
    """With a server on it, and messages still in its log, the doctor sees them and finds nothing."""
    with ServerProcess.start(data, "--workers", "2") as server:
        asyncio.run(_live(server.url))
        told = Shell().json("doctor", "--store", store_url(data))
        assert told["findings"] == []
        assert told["rows"]["messages"] == 4 * 10
        server.kill()
    before = [(data / name).read_bytes() for name in ("tidings.db", "tidings.db-wal")]
    assert found(data, 0) == {}
    after = [(data / name).read_bytes() for name in ("tidings.db", "tidings.db-wal")]
    assert after == before, "who only looks changes nothing"


MIDDLE = "(SELECT position FROM messages WHERE mailbox LIKE 'u%' AND seq = 2 AND sent_seq = 2 LIMIT 1)"
LAST = "(SELECT max(position) FROM messages WHERE mailbox LIKE 'g%')"
GROUP = "(SELECT id FROM groups LIMIT 1)"

PLANTS: dict[str, tuple[str, dict[str, int]]] = {
    "a message is gone": (f"DELETE FROM messages WHERE position = {MIDDLE}", {"hole": 2, "key to nowhere": 1}),
    "a last message is gone": (f"DELETE FROM messages WHERE position = {LAST}", {"gap": 1, "key to nowhere": 1}),
    "the first ones are gone": (
        "DELETE FROM keys WHERE position IN (SELECT position FROM messages WHERE mailbox LIKE 'g%' AND seq < 3);"
        "DELETE FROM messages WHERE mailbox LIKE 'g%' AND seq < 3",
        {"hole": 3},
    ),
    "news is gone": ("DELETE FROM alterations WHERE position = 2", {"gap": 1}),
    "a timestamp goes back": (
        f"UPDATE messages SET timestamp = timestamp - 1000000 WHERE position = {MIDDLE}",
        {"timestamps": 1},
    ),
    "two in a commit": (
        "UPDATE messages SET timestamp = (SELECT timestamp FROM messages m WHERE m.position = messages.position - 1)"
        " WHERE mailbox = (SELECT mailbox FROM messages m WHERE m.position = messages.position - 1)",
        {"commit": 3},
    ),
    "the clock is behind": ("UPDATE clock SET position = position - 3", {"clock": 2}),
    "the clock's time is behind": ("UPDATE clock SET timestamp = timestamp - 100000", {"clock": 2}),
    "the clock is missing": ("DELETE FROM clock", {"clock": 1}),
    "the generation is missing": ("DELETE FROM history", {"clock": 1}),
    "one position twice": (
        f"INSERT INTO alterations SELECT position, timestamp, sender FROM messages WHERE position = {MIDDLE}",
        {"position": 1},
    ),
    "out of order": (
        "UPDATE messages SET seq = -seq WHERE mailbox LIKE 'g%' AND seq IN (2, 3);"
        "UPDATE messages SET seq = CASE seq WHEN -2 THEN 3 ELSE 2 END WHERE seq < 0",
        {"order": 3},
    ),
    "joined behind the head": (f"UPDATE memberships SET joined_seq = 9 WHERE group_id = {GROUP}", {"joined": 2}),
    "a user is gone": (
        "DELETE FROM users WHERE id = (SELECT sender FROM messages WHERE mailbox LIKE 'u%' LIMIT 1)",
        {},
    ),
    "a group is gone": (f"DELETE FROM groups WHERE id = {GROUP}", {}),
    "members miscounted": (f"UPDATE groups SET members = 7 WHERE id = {GROUP}", {"member count": 1}),
    "a block of nobody": (
        "INSERT INTO blocks SELECT id, 'nobody' FROM users LIMIT 2; INSERT INTO blocks VALUES ('x', 'y')",
        {"block of nobody": 3},
    ),
    "a message from nobody": (f"UPDATE messages SET sender = 'x' WHERE position = {LAST}", {"message of nobody": 1}),
    "news of nobody": ("UPDATE alterations SET user_id = 'x' WHERE position = 1", {"news of nobody": 1}),
    "a membership of nobody": (
        f"INSERT INTO memberships VALUES ('x', {GROUP}, 7, 0); UPDATE groups SET members = 3 WHERE id = {GROUP}",
        {"membership of nobody": 1},
    ),
    "a key to nowhere": ("UPDATE keys SET position = 100000 WHERE position IS NOT NULL AND number < 20", {}),
    "a key without answer": ("UPDATE keys SET answer = NULL WHERE number = 1", {"key to nowhere": 1}),
    "a copy of a group's message": (
        f"UPDATE messages SET sent_seq = 1 WHERE position = {LAST}",
        {"copies": 1},
    ),
    "runs out of order": ("UPDATE run SET first = 50000 WHERE number = 2", {"run": 2}),
    "trimmed, and kept": (
        "INSERT INTO trimmed SELECT mailbox, 2, timestamp FROM messages WHERE mailbox LIKE 'g%' AND seq = 2 LIMIT 1",
        {"trimmed": 1},
    ),
    "trimmed at no time": ("INSERT INTO trimmed VALUES ('uuser-x', 3, 0)", {"trimmed": 1}),
    "a seq twice": ("UPDATE messages SET seq = 3 WHERE mailbox LIKE 'g%' AND seq = 4", {"twice": 3}),
    "text for a time": ("UPDATE messages SET timestamp = 'noon' WHERE position > 20", {"damage": 2}),
    "a place of no message": (
        "INSERT INTO places SELECT mailbox, 100, 100000 FROM messages WHERE seq = 4 LIMIT 1",
        {"places": 1},
    ),
    "a mailbox of no message": (
        "INSERT INTO places SELECT 'unobody', 1, max(position) FROM messages",
        {"places": 1},
    ),
    "places of messages to come": ("UPDATE clock SET placed = position + 1", {"places": 1}),
    "places of no number": ("UPDATE clock SET placed = -1", {"places": 1}),
    "places that are not, or should not be": ("UPDATE clock SET placed = position - placed", {"places": 42}),
    "an index is gone": ("DROP INDEX memberships_by_group", {"schema": 1}),
    "a strange table": ("CREATE TABLE notes(text)", {"schema": 1}),
}
PLACED: dict[str, dict[str, int]] = {  # what the same deed leaves besides where the index is up to date: its rows
    "a message is gone": {"places": 2},  # one of the message, one of its copy
    "a last message is gone": {"places": 1},
    "the first ones are gone": {"places": 6},
    "the clock is behind": {"places": 1},  # it is told to be further than the clock
    "out of order": {"places": 6},
    "a seq twice": {"places": 3},
    "a copy of a group's message": {"places": 1},
}
ONLY_PLACED: dict[str, tuple[str, dict[str, int]]] = {
    "a place is gone": ("DELETE FROM places WHERE position = (SELECT max(position) FROM places)", {"places": 1}),
    "the places of a mailbox are gone": (
        "DELETE FROM places WHERE mailbox IN (SELECT mailbox FROM places WHERE mailbox LIKE 's%' LIMIT 1)",
        {"places": 4},
    ),
    "the places of a group are gone, whose members joined at its head": (
        f"UPDATE memberships SET joined_seq = 4 WHERE group_id = {GROUP};"
        f"DELETE FROM places WHERE mailbox = 'g' || {GROUP}",
        {"places": 4},
    ),
    "a place of another message": (
        f"UPDATE places SET position = {MIDDLE} WHERE position = {LAST}",
        {"places": 1},
    ),
    "two places exchanged": (
        "UPDATE places SET position = (SELECT position FROM messages WHERE messages.mailbox = places.mailbox"
        " AND messages.seq = 5 - places.seq) WHERE mailbox LIKE 'g%' AND seq IN (2, 3)",
        {"places": 3 * 2},
    ),
}
ONLY_BEHIND: dict[str, tuple[str, dict[str, int]]] = {
    "a place before its time": (
        f"INSERT INTO places SELECT mailbox, seq, position FROM messages WHERE position = {LAST}",
        {"places": 1},
    ),
}
SEVERAL = {  # one deed, of which rows of several kinds are orphans
    "a user is gone": {
        "message of nobody",
        "membership of nobody",
        "block of nobody",
        "news of nobody",
        "key to nowhere",
    },
    "a group is gone": {"message of nobody", "membership of nobody", "key to nowhere"},
    "a key to nowhere": {"key to nowhere"},
}


@pytest.mark.parametrize("what", PLANTS)
def test_a_planted_fault_is_found(data: Path, is_placed: bool, what: str) -> None:
    """One thing is done to the file behind the server's back; the doctor finds that, and nothing else."""
    deed, expected = PLANTS[what]
    plant(data, deed, may_be_schema="schema" in expected)
    kinds = found(data)
    if what in SEVERAL:
        assert {*kinds} == SEVERAL[what]
    else:
        assert kinds == expected | (PLACED.get(what, {}) if is_placed else {})


@pytest.mark.parametrize("what", [*ONLY_PLACED, *ONLY_BEHIND])
def test_a_fault_planted_in_the_index_is_found(data: Path, is_placed: bool, what: str) -> None:
    """Rows of the index are taken, exchanged, made too early: that is found, where there are such rows."""
    plants = ONLY_PLACED if is_placed else ONLY_BEHIND
    if what in plants:
        plant(data, plants[what][0])
        assert found(data) == plants[what][1]


def test_a_membership_from_the_head_on_is_sound(data: Path) -> None:
    """Who joined when the last message was there is no fault, whether the index has it or not; one seq more is."""
    plant(data, f"UPDATE memberships SET joined_seq = 4 WHERE group_id = {GROUP}")
    assert found(data, 0) == {}
    plant(data, f"UPDATE memberships SET joined_seq = 5 WHERE group_id = {GROUP}")
    assert found(data) == {"joined": 2}


def plant(data: Path, deed: str, *, may_be_schema: bool = False) -> None:
    """Do something to the file; it must change rows."""
    db = connect(data / "tidings.db")
    before = db.total_changes()
    for _ in db.execute(deed):
        pass
    assert db.total_changes() > before or may_be_schema, "nothing was planted"
    db.close()


def _text(file: Path) -> None:
    file.write_text("Dear diary, " * 1000)


def test_a_backup_is_named_as_a_file(data: Path, tmp_path: Path) -> None:
    """`doctor FILE` looks at that file, whatever letters its name has, and not at the store."""
    odd = tmp_path / "100%41 sound?.db"
    Shell().done("backup", odd, "--store", store_url(data))
    assert Shell().done("doctor", odd, "--store", store_url(tmp_path / "nowhere")).startswith(f"{odd}: ")


def _nothing(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("make", [_text, _nothing])
def test_what_can_not_be_looked_at(data: Path, make: Callable[[Path], None]) -> None:
    """No file, or none of SQLite's, is one line and exit code 2."""
    make(data / "tidings.db")
    assert str(data / "tidings.db") in Shell().refused("doctor", "--store", store_url(data), code=2)


@pytest.mark.parametrize(
    ("pragma", "said"), [("application_id=7", "another program"), ("user_version=99", "schema version 99")]
)
def test_another_program_s_and_a_newer_file(data: Path, pragma: str, said: str) -> None:
    """A file that this Tidings does not know is a finding with its reason, and nothing of it is judged."""
    db = connect(data / "tidings.db")
    db.execute(f"PRAGMA {pragma}").fetchall()
    db.close()
    run = Shell().run("doctor", "--store", store_url(data))
    assert (run.returncode, run.stderr) == (1, "")
    assert said in run.stdout


def test_an_older_store_is_said_to_be_one(data: Path) -> None:
    """A store of an older version is one finding, which says how to bring it forward; its tables are not judged."""
    plant(data, "PRAGMA user_version=1; DROP TABLE places", may_be_schema=True)
    assert found(data) == {"version": 1}
    told = Shell().run("doctor", "--store", store_url(data)).stdout
    assert "schema version 1; this Tidings has 3" in told
    assert "Start the server on it once" in told


def test_damaged_pages_are_found(data: Path) -> None:
    """The pages where the messages and their index begin are overwritten: damage is found, without a stack trace."""
    db = connect(data / "tidings.db")
    pages = [
        page for (page,) in db.execute("SELECT rootpage FROM sqlite_schema WHERE tbl_name IN ('messages', 'places')")
    ]
    size = db.execute("PRAGMA page_size").get
    db.close()
    with (data / "tidings.db").open("r+b") as opened:
        for page in pages:
            opened.seek((page - 1) * size)
            opened.write(b"\xa5" * size)
    assert found(data)["damage"] >= 1


def test_no_message_is_told(data: Path) -> None:
    """What people wrote, and their names, stand in no finding, however damaged the store is."""
    db = connect(data / "tidings.db")
    db.execute("UPDATE messages SET text = 'SECRET'; UPDATE users SET name = 'SECRET'").fetchall()
    for _ in db.execute("DELETE FROM messages WHERE position % 3 = 0; DELETE FROM users"):
        pass
    db.close()
    run = Shell().run("doctor", "--store", store_url(data))
    assert run.returncode == 1
    assert "SECRET" not in run.stdout + run.stderr


def test_exchanged_rows_are_told_by_their_sum() -> None:
    """Two rows of a mailbox swap positions, at a thousand places: the sum is another each time."""
    for n in range(1_000):
        right, wrong = Tally(), Tally()
        for seq in (n, n + 1):
            right.add(("ubob", seq, 3 * seq))
            wrong.add(("ubob", seq, 3 * (2 * n + 1 - seq)))
        assert right != wrong
