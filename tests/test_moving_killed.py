"""`tidings export` and `import`, killed at any moment, are run again, and end as if nothing had happened."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.backends import Counting
from tests.moved import but_runs, die, lines, made, untouched, url_of
from tests.server import ServerProcess, StartFailed
from tests.shell import Shell
from tidings.store.dynamodb.address import address_of
from tidings.store.dynamodb.closing import find_state
from tidings.store.dynamodb.driver import connected

pytest_plugins = "tests.moving"

MESSAGES = 900  # and 450 copies: some waves of puts
LOAD = "tidings.store.dynamodb.load:_Filling"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a closed store."""
    path = tmp_path_factory.mktemp("origin") / "tidings.db"
    made(path, MESSAGES)
    file = path.with_name("moved.jsonl")
    Shell().done("export", file, "--store", url_of(path), "--close")
    return file


def state(store: str) -> dict[str, Any]:
    """What the tables say of themselves."""

    async def ask() -> dict[str, Any]:
        async with connected(address_of(store), Counting()) as driver:
            return await find_state(driver, address_of(store))

    return asyncio.run(ask())


@pytest.mark.usefixtures("brisk")
def test_an_import_into_tables_is_killed_again_and_again(
    exported: Path, tables_url: str, tmp_path: Path, shell: Shell
) -> None:
    """As it begins, amid its puts, as it notes how far it is, reading back, ending: each goes on; nobody is served."""
    command = ("import", exported, "--store", tables_url)
    die(shell, f"{LOAD}._check_empty", 1, *command)
    die(shell, f"{LOAD}._put_batch", 1, *command)
    die(shell, f"{LOAD}._put_batch", 25, *command)
    filled = int(state(tables_url)["filled"]["N"])
    assert 1 < filled < len(exported.read_bytes().splitlines())
    with pytest.raises(StartFailed, match="is being filled by an import"):
        ServerProcess.start(tmp_path, "--store", tables_url, "--feed", "redis://127.0.0.1:1/0", env=shell.env)
    die(shell, f"{LOAD}.note", 2, *command)
    die(shell, "tidings.store.dynamodb.load:scan", 1, *command)
    assert int(state(tables_url)["filled"]["N"]) == len(exported.read_bytes().splitlines()) - 1
    die(shell, f"{LOAD}._ours", 2, *command)  # the floor is raised, and all but the history is there
    assert shell.json(*command)["already"] is False
    again = tmp_path / "again.jsonl"
    shell.done("export", again, "--store", tables_url, "--close")
    assert lines(again) == lines(exported)


def test_what_another_try_took_over_is_let_be(exported: Path, tables_url: str, shell: Shell, tmp_path: Path) -> None:
    """Tables that one file fills are refused to another; a try that was overtaken by the next puts nothing more."""
    die(shell, f"{LOAD}._put_batch", 2, "import", exported, "--store", tables_url)
    path, other = tmp_path / "other.db", tmp_path / "other.jsonl"
    made(path, 0)
    shell.done("export", other, "--store", url_of(path), "--close")
    assert "is being filled from another file" in shell.refused("import", other, "--store", tables_url)


@pytest.mark.usefixtures("brisk")
def test_an_export_of_tables_goes_on_where_it_was(
    exported: Path, tables_url: str, shell: Shell, tmp_path: Path
) -> None:
    """Killed while it reads and while it writes, there is no file; the next reads the rest alone, and has it all."""
    shell.done("import", exported, "--store", tables_url)
    file = tmp_path / "again.jsonl"
    command = ("export", file, "--store", tables_url, "--close")
    die(shell, "tidings.store.dynamodb.dump:Sorting.save", 6, *command)
    die(shell, "tidings.store.moving.file:packed", 400, *command)
    assert not file.exists()
    untouched(shell, "tidings.store.dynamodb.dump:_sorted", *command)
    shell.done(*command)
    assert lines(file) == lines(exported)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_file_is_made_whole_or_not_at_all(exported: Path, shell: Shell, tmp_path: Path) -> None:
    """Killed amid an import into SQLite and as it ends, there is no store; amid an export of it, no file."""
    path, file = tmp_path / "back.db", tmp_path / "again.jsonl"
    command = ("import", exported, "--store", url_of(path))
    for where, number in (("load:_rows", 2), ("load:place_messages", 1), ("load:_give_away", 2)):
        die(shell, f"tidings.store.sqlite.{where}", number, *command)
        assert not path.exists()
    shell.done(*command)
    die(shell, "tidings.store.moving.file:packed", 500, "export", file, "--store", url_of(path), "--close")
    assert not file.exists()
    shell.done("export", file, "--store", url_of(path), "--close")
    assert but_runs(file) == but_runs(exported)
    assert {name.name for name in tmp_path.iterdir()} == {f"back.db{end}" for end in ("", ".lock", ".turn")} | {
        file.name
    }
