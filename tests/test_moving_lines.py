"""`tidings export` and `import`: all of a store goes over, and comes back line by line; bad files do nothing."""

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backends import Counting, gather_group, sign_up
from tests.cluster import tables
from tests.moved import but_runs, lines, made, of_kind, url_of
from tests.shell import Shell
from tidings.config import Settings
from tidings.store.dynamodb import DynamoStore
from tidings.store.sqlite.file import connect

pytest_plugins = "tests.moving"

MESSAGES = 60


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with something of everything."""
    path = tmp_path_factory.mktemp("origin") / "tidings.db"
    made(path, MESSAGES)
    return path


@pytest.fixture(scope="module")
def exported(origin: Path) -> Path:
    """The export that closed it."""
    file = origin.with_name("moved.jsonl")
    Shell().done("export", file, "--store", url_of(origin), "--close")
    return file


@pytest.mark.usefixtures("brisk")
def test_there_and_back_is_equal(exported: Path, tables_url: str, tmp_path: Path, shell: Shell) -> None:
    """From SQLite into DynamoDB and back: equal line by line, counted alike on both sides, and sound."""
    back, file, again = tmp_path / "back.db", tmp_path / "there.jsonl", tmp_path / "again.jsonl"
    first = shell.json("export", exported, "--store", url_of(exported.with_name("tidings.db")), "--close")
    assert first["counts"]["messages"] == MESSAGES + 4
    assert all(first["counts"][kind] for kind in first["counts"].keys() - {"left", "trimmed"}), first["counts"]
    assert shell.json("import", exported, "--store", tables_url)["counts"] == first["counts"]
    assert shell.json("export", file, "--store", tables_url, "--close")["counts"] == first["counts"]
    assert lines(file) == lines(exported)
    assert shell.json("import", file, "--store", url_of(back))["counts"] == first["counts"]
    shell.done("doctor", "--store", url_of(back))
    shell.done("export", again, "--store", url_of(back), "--close")
    assert but_runs(again) == but_runs(exported)
    assert [run for run in of_kind(again, "run") if run["number"] == 1] == of_kind(exported, "run")


def test_a_stay_that_ended_stays_so(tables_url: str, tmp_path: Path, shell: Shell, origin: Path, brisk: None) -> None:
    """What tables keep of stays that ended goes over to other tables, and is told to be left behind by a file."""

    async def leave() -> None:
        store = await DynamoStore.open(Settings(store=tables_url, feed="redis://127.0.0.1:1/0"), Counting())
        ann = await sign_up(store, "ann")
        group = await gather_group(store, ann)
        await store.remove_member(group, ann)
        await store.close()

    asyncio.run(leave())
    file, again = tmp_path / "there.jsonl", tmp_path / "again.jsonl"
    assert shell.json("export", file, "--store", tables_url, "--close")["counts"]["left"] == 1
    with tables() as other:
        shell.done("import", file, "--store", other)
        shell.done("export", again, "--store", other, "--close")
        assert lines(again) == lines(file)
    assert shell.json("import", file, "--store", url_of(tmp_path / "x.db"))["counts"]["left"] == 0


def test_the_file_is_for_its_owner_alone(exported: Path) -> None:
    """All messages are in it: nobody else may read it, or what it is made of."""
    assert os.stat(exported).st_mode & 0o777 == 0o600


def test_a_file_that_is_there_is_kept(origin: Path, exported: Path, tmp_path: Path, shell: Shell) -> None:
    """An export is never written over another file; the same of a closed store is done already; --force replaces."""
    other = tmp_path / "other.txt"
    other.write_text("mine")
    said = shell.refused("export", other, "--store", url_of(origin), "--close")
    assert "--force" in said
    assert other.read_text() == "mine"
    before = exported.stat()
    shell.done("export", exported, "--store", url_of(origin), "--close")
    assert exported.stat() == before
    shell.done("export", other, "--store", url_of(origin), "--close", "--force")
    assert lines(other) == lines(exported)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.txt"]


def _cut(text: bytes) -> bytes:
    return text[: len(text) * 2 // 3]


def _cut_at_a_line(text: bytes) -> bytes:
    return b"\n".join(text.split(b"\n")[:-6]) + b"\n"


def _without_a_line(text: bytes) -> bytes:
    return re.sub(rb'\n\{"kind":"message"[^\n]*', b"", text, count=1)


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut off": (_cut, r", line \d+: it is cut off"),
    "cut off behind a line": (_cut_at_a_line, r", line \d+: the file is cut off behind it"),
    "a line is missing": (_without_a_line, r", line \d+: it counts 64 messages, and the lines before it have 63"),
    "a letter is another": (
        lambda text: text.replace(b"meanwhile", b"meanwhilf", 1),
        r"a line of kind message before it",
    ),
    "no JSON": (lambda text: text.replace(b'{"kind":"group"', b'{"kind"="group"', 1), r", line 3: it is damaged"),
    "an unknown kind": (lambda text: text.replace(b'"kind":"group"', b'"kind":"grope"', 1), r", line 3: it is damaged"),
    "an unknown field": (lambda text: text.replace(b'"groupName"', b'"grepName"', 1), r", line 3: it is damaged"),
    "no place": (lambda text: text.replace(b'"mailbox":"g', b'"mailbox":"x', 1), r", line \d+: it is damaged"),
    "more behind the end": (lambda text: text + b"{}\n", r", line 83: nothing may come after the last line"),
    "another file": (lambda text: b"hello\n", r", line 1: this is no file that tidings export wrote"),
    "nothing": (lambda text: b"", r", line 1: this is no file that tidings export wrote"),
    "newer": (lambda text: text.replace(b'"version":1', b'"version":9', 1), r", line 1: it has version 9"),
}


@pytest.mark.parametrize("change", BAD)
def test_a_bad_file_does_nothing(change: str, exported: Path, tables_url: str, tmp_path: Path, shell: Shell) -> None:
    """What is cut off, changed or no export is refused in one line, with its number; nothing is begun, on either."""
    bad = tmp_path / "bad.jsonl"
    how, said = BAD[change]
    bad.write_bytes(how(exported.read_bytes()))
    for store in (url_of(tmp_path / "new.db"), tables_url):
        assert re.search(
            f"{re.escape(str(bad))}{said}" if said.startswith(",") else said,
            told := shell.refused("import", bad, "--store", store),
        ), told
    assert [path.name for path in tmp_path.iterdir() if "lock" not in path.name] == ["bad.jsonl"]
    shell.done("import", exported, "--store", tables_url)  # they are empty


def test_a_store_that_is_not_empty_is_left_alone(exported: Path, tables_url: str, tmp_path: Path, shell: Shell) -> None:
    """Neither another file's store nor one that was served is imported into; the same file's says that it is done."""
    one, other = tmp_path / "one.jsonl", tmp_path / "other.db"
    made(other, 0)
    shell.done("export", one, "--store", url_of(other), "--close")
    before = other.read_bytes()
    assert "not empty" in shell.refused("import", exported, "--store", url_of(other))
    assert other.read_bytes() == before
    shell.done("import", exported, "--store", tables_url)
    assert "not empty" in shell.refused("import", one, "--store", tables_url)
    assert shell.json("import", exported, "--store", tables_url)["already"]
    new = tmp_path / "new.db"
    assert not shell.json("import", exported, "--store", url_of(new))["already"]
    assert shell.json("import", exported, "--store", url_of(new))["already"]
    assert "not empty" in shell.refused("import", one, "--store", url_of(new))


def test_only_a_closed_store_keeps_its_history(tmp_path: Path, shell: Shell, tables_url: str) -> None:
    """Of an open store there is a copy under another generation; tables can't be copied while they are open."""
    path, copies = tmp_path / "open.db", [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
    made(path, 0)
    heads = []
    for file in copies:
        assert shell.json("export", file, "--store", url_of(path))["closed"] is False
        heads.append(file.read_bytes().splitlines()[0])
    shell.done("export", tmp_path / "3.jsonl", "--store", url_of(path), "--close")
    heads.append((tmp_path / "3.jsonl").read_bytes().splitlines()[0])
    generations = {re.search(rb'"generation":(-?\d+)', head)[1] for head in heads}  # type: ignore[index]
    assert len(generations) == 3
    assert lines(copies[0]) == lines(copies[1]) == lines(tmp_path / "3.jsonl")
    assert "--close" in shell.refused("export", tmp_path / "4.jsonl", "--store", tables_url)
    assert "no store" in shell.refused("export", tmp_path / "5.jsonl", "--store", url_of(tmp_path / "none.db"))
    assert {file.name for file in tmp_path.glob("*.jsonl*")} == {"1.jsonl", "2.jsonl", "3.jsonl"}


def test_keys_of_the_day_before_stay_behind(tmp_path: Path, shell: Shell) -> None:
    """Idempotency keys that were used a day before the last message are no longer carried, younger ones are."""
    path, file = tmp_path / "old.db", tmp_path / "old.jsonl"
    made(path, 0)
    assert shell.json("export", file, "--store", url_of(path))["counts"]["keys"] == 4
    db = connect(path)
    with db:
        db.execute("UPDATE keys SET timestamp = timestamp - 86400000 WHERE number <= 2")
        db.execute("UPDATE keys SET timestamp = timestamp - 86300000 WHERE number > 2")
    db.close()
    assert shell.json("export", file, "--store", url_of(path), "--force")["counts"]["keys"] == 2
