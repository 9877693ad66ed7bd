"""The README keeps its word: its commands are run, and their answers must be those that it shows."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.pages import ROOT, SHOWN, Fence, fences, prose, rows, surroundings
from tests.server import ServerProcess
from tidings.api.openapi import STATUS
from tidings.api.query import KEY_CHARS
from tidings.cli import flag
from tidings.config import Settings
from tidings.routes import ROUTES

README = ROOT / "README.md"

# bash and python blocks are run, and a json or text block behind one shows what it prints; sh blocks are only checked.
RUN = {"bash", "python"}
ANSWERS = {"json", "text"}

ID = re.compile(r"(user|group|message)-[0-9a-f]{28}")
CURSOR = re.compile(r"[A-Za-z0-9_-]{40,}")
TIMESTAMP = re.compile(r"[0-9]{13}")
NUMBER = re.compile(r"\b[0-9]+(\.[0-9]+)?\b")


@dataclass(frozen=True)
class Scene:
    """Commands of the README, and the block that shows what they print, if they print anything."""

    commands: Fence
    shown: Fence | None


def scenes(page: Path) -> list[Scene]:
    """A page's commands, each with the answer behind it."""
    blocks = fences(page)
    after = dict(zip(blocks, [*blocks[1:], None], strict=False))
    found = []
    for block in blocks:
        if block.language in RUN:
            answer = after[block]
            found.append(Scene(block, answer if answer and answer.language in ANSWERS else None))
    return found


SCENES = scenes(README)
TALE = [scene for scene in SCENES if scene.commands.language == "bash"]
PROGRAMS = [scene for scene in SCENES if scene.commands.language == "python"]


class Unlike(AssertionError):
    """An answer is not what the README shows."""


class Names:
    """Ids and timestamps differ from run to run: each one shown must stand for one received, and back."""

    def __init__(self) -> None:
        self._received: dict[str, str] = {}
        self._shown: dict[str, str] = {}

    def compare(self, shown: Any, received: Any, where: str = "") -> None:
        """Raises Unlike where two answers differ in more than ids, timestamps and cursors."""
        if isinstance(shown, dict) and isinstance(received, dict):
            if list(shown) != list(received):
                raise Unlike(f"{where}: {list(shown)} is shown, {list(received)} received")
            for key in shown:
                self.compare(shown[key], received[key], f"{where}.{key}")
        elif isinstance(shown, list) and isinstance(received, list) and len(shown) == len(received):
            for index, pair in enumerate(zip(shown, received, strict=True)):
                self.compare(*pair, f"{where}[{index}]")
        elif where.endswith(".cursor") and CURSOR.fullmatch(shown) and CURSOR.fullmatch(received):
            return
        elif _kind(shown) != _kind(received) or (_kind(shown) == "" and shown != received):
            raise Unlike(f"{where}: {shown!r} is shown, {received!r} received")
        elif _kind(shown):
            pair = (self._received.setdefault(shown, received), self._shown.setdefault(received, shown))
            if pair != (received, shown):
                raise Unlike(f"{where}: {shown} stands for {pair[0]} elsewhere, here for {received}")


def _kind(value: object) -> str:
    """What a value is if it differs from run to run, else nothing."""
    if isinstance(value, str):
        found = ID.fullmatch(value)
        return found[1] if found else "timestamp" if TIMESTAMP.fullmatch(value) else ""
    return ""


def documents(text: str) -> list[Any]:
    """The JSON documents that stand one after the other in a text."""
    decoder, found, text = json.JSONDecoder(), [], text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:].strip()
    return found


def compare(scene: Scene, printed: str, names: Names) -> None:
    """Fail if a scene printed anything but what the page shows."""
    if scene.shown is None:
        assert not printed.strip(), f"{scene.commands} prints what the page does not show: {printed}"
    elif scene.shown.language == "json":
        try:
            shown, received = documents(scene.shown.text), documents(printed)
        except ValueError:
            pytest.fail(f"{scene.commands} printed no JSON, but: {printed}")
        names.compare(shown, received, str(scene.shown))
    else:
        assert NUMBER.sub("N", printed.strip()) == NUMBER.sub("N", scene.shown.text.strip())


@pytest.fixture(scope="module")
def tale(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each bash block printed, all of them run by one shell, as if pasted one after the other."""
    home = tmp_path_factory.mktemp("newcomer")
    script = "set -eo pipefail\n" + "".join(f"printf '\\036'\n{scene.commands.text}" for scene in TALE)
    done = subprocess.run(
        ["bash", "-c", script.replace(SHOWN, server.url)],
        capture_output=True,
        text=True,
        cwd=home,
        env=surroundings(home),
        timeout=120,
        check=False,
    )
    printed = done.stdout.split("\036")[1:]
    assert done.returncode == 0, f"{TALE[len(printed) - 1].commands} ends with {done.returncode}: {done.stderr}"
    assert not done.stderr, done.stderr
    return printed


@pytest.fixture(scope="module")
def names() -> Names:
    return Names()


@pytest.mark.parametrize("index", range(len(TALE)), ids=lambda index: f"line {TALE[index].commands.line}")
def test_commands_answer_as_shown(tale: list[str], names: Names, index: int) -> None:
    """A block of curl lines, pasted into the same shell as those before it, gives the answer that stands behind it."""
    compare(TALE[index], tale[index], names)


@pytest.mark.parametrize("scene", PROGRAMS, ids=lambda scene: f"line {scene.commands.line}")
def test_programs_print_what_is_shown(server: ServerProcess, tmp_path: Path, scene: Scene) -> None:
    """A Python program needs nothing but Python, is as short as it is said to be, and prints what stands behind it."""
    text = scene.commands.text
    assert sum(bool(line.strip()) for line in text.splitlines()) <= 10
    program = text.replace(SHOWN, server.url)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "-c", program],  # -S: not even installed packages
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=surroundings(tmp_path),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    compare(scene, done.stdout, Names())


def test_the_first_commands_are_ten_lines() -> None:
    """What sends and receives a message is no longer than ten lines of shell."""
    assert len(TALE[0].commands.text.splitlines()) <= 10
    assert "/v1/messages/send" in TALE[0].commands.text


def test_every_block_is_run_or_checked() -> None:
    """No block stands in the README for show only: it is run, is an answer, or is among the commands checked below."""
    answers = {scene.shown for scene in SCENES}
    for block in fences(README):
        assert block.language in RUN or block.language == "sh" or block in answers, f"{block} is nothing"


def test_every_call_is_shown(tale: list[str], server: ServerProcess) -> None:
    """Every route, in every method that it has, was called by the README's commands with success."""
    counted = httpx.get(f"{server.url}/metrics").text
    for route, methods in ROUTES.items():
        for method, operation in methods.items():
            called = rf'tidings_requests_total\{{method="{method}",route="{re.escape(route)}",status="200"\}} '
            assert re.search(called, counted), f"{method} {route} is not shown"
            for param in operation.params:
                choices = param.schema.get("enum", ()) if isinstance(param.schema, dict) else ()
                for shown in [f"{param.name}={choice}" for choice in choices if choice] or [f"{param.name}="]:
                    assert any(shown in scene.commands.text for scene in TALE), f"{shown} is not shown for {route}"
            for form, _ in operation.bodies.values():
                spellings = [f"`{name}`" for names, _ in form.fields for name in names[1:]]
                assert all(spelling in prose(README) for spelling in spellings), f"{spellings} of {route}"


def _lines() -> Iterator[str]:
    for block in fences(README):
        if block.language == "sh":
            yield from block.text.splitlines()


def test_commands_that_are_not_run_are_there() -> None:
    """`make TARGET` has its target, and its settings are settings; there is no other command that is not run."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    settings = {field.name for field in fields(Settings)}
    for line in _lines():
        command = line.partition("#")[0].strip()
        found = re.fullmatch(r'((?:TIDINGS_\w+=\S+ )*)make ([a-z-]+)(?: ARGS="([^"]*)")?', command)
        assert found, f"what is {command!r}?"
        assert found[2] in targets
        assert {name.lower() for name in re.findall(r"TIDINGS_(\w+)=", found[1])} <= settings
        assert {name.replace("-", "_") for name in re.findall(r"--([\w-]+)", found[3] or "")} <= settings
    assert {"make run", "make test", "make check", "make bench"} <= {
        line.partition("#")[0].strip() for line in _lines()
    }


def test_the_limits_are_those_of_the_settings() -> None:
    """Each row of the table has a setting's default, and a code that is answered with that status."""
    table = {row[2].strip("`"): row for row in rows(README, "## Limits")}
    for field in fields(Settings):
        row = table.pop(flag(field.name), None)
        if row is None:
            assert "max" not in field.name, f"{flag(field.name)} is a limit, and not in the table"
            continue
        assert float(row[1].split()[0].replace(",", "")) == field.default, row
        _check_answer(row[3])
    (fixed,) = table.values()
    assert int(fixed[1].split()[0]) == KEY_CHARS
    _check_answer(fixed[3])


def _check_answer(cell: str) -> None:
    found = re.match(r"([0-9]{3}) `(\w+)`", cell)
    assert found or not re.search("[0-9`]", cell), cell
    assert found is None or STATUS[found[2]] == int(found[1]), cell


def test_the_errors_are_all_there() -> None:
    """The table of errors has every code, each beside its status, and no other."""
    shown = {code: int(row[0]) for row in rows(README, "### Errors") for code in re.findall(r"`(\w+)`", row[1])}
    assert shown == STATUS


HI = {"userId": "user-" + 28 * "1", "n": [1, None, "x"]}
HO = {"userId": "user-" + 28 * "2", "n": [1, None, "x"]}


@pytest.mark.parametrize(
    ("shown", "received"),
    [
        ([HI], [{**HO, "more": True}]),
        ([HI], [{"userId": HO["userId"]}]),
        ([HI], [{"userId": "group-" + 28 * "2", "n": [1, None, "x"]}]),
        ([HI], [{**HO, "n": [1, None]}]),
        ([HI], [{**HO, "n": [1, False, "x"]}]),
        ([HI], [HO, HO]),
        ([HI, HI], [HO, HI]),
        ([HI, HO], [HO, HO]),
        ([{"status": 404}], [{"status": 409}]),
        ([{"timestamp": "1715000000123"}], [{"timestamp": 1715000000123}]),
        ([{"cursor": 40 * "A"}], [{"cursor": ""}]),
    ],
)
def test_what_is_not_alike_is_found(shown: list[Any], received: list[Any]) -> None:
    """A field more or less, another status, another kind of id, one id for two: each breaks the example."""
    with pytest.raises(Unlike):
        Names().compare(shown, received)


def test_ids_may_differ_from_run_to_run() -> None:
    """The same answer with other ids, timestamps and cursors is alike."""
    times = [{"timestamp": "1715000000123", "cursor": 40 * "A"}, {"timestamp": "1715000000124", "cursor": 44 * "B"}]
    Names().compare([HI, HI, HO, times[0]], [HO, HO, HI, times[1]])
