"""The pages keep their word: their commands are run, and what they print must be what is shown behind them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster import tables
from tests.clustered import Clustered, skip_without_programs
from tests.examples import Names, Unlike, compare, paste, scenes
from tests.pages import PAGES, ROOT, prose
from tests.server import ServerProcess
from tidings.routes import ROUTES

README, API = ROOT / "README.md", ROOT / "docs" / "api.md"
ELSEWHERE = {ROOT / "docs" / "delivery.md"}  # its one program goes on for ever: tests/test_reader.py runs it
OF_A_FILE = re.compile(r"\btidings (backup|restore|doctor)\b")
ATTEMPTS = 3
TOLD = {page: scenes(page) for page in PAGES if page not in ELSEWHERE and scenes(page)}
CALLING = [page for page in TOLD if page.name != "running.md"]  # which is about a file


@pytest.mark.parametrize("page", TOLD, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_print_what_is_shown(page: Path, tmp_path: Path) -> None:
    """A page's blocks, pasted into one shell while a server runs, print what stands behind each."""
    names = Names()
    with ServerProcess.start(tmp_path / "data") as server:  # so the default --store is this server's, as with make run
        for scene, printed in zip(TOLD[page], paste(TOLD[page], server.url, tmp_path), strict=True):
            compare(scene, printed, names)


@pytest.fixture(scope="module")
def in_turn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clustered]:
    """Two nodes behind one address, which sends each request to the one that did not get the last."""
    skip_without_programs()
    with (
        tables() as store,
        Clustered.start(tmp_path_factory.mktemp("cluster"), "--nodes", "2", "--store", store) as cluster,
    ):
        yield cluster


@pytest.mark.slow
@pytest.mark.parametrize("page", CALLING, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_print_the_same_on_two_nodes(page: Path, in_turn: Clustered, tmp_path: Path) -> None:
    """A page's commands, but for those on SQLite's file, print what is shown as well where two nodes are asked in turn.

    What one node acknowledged is seen on the other within a second: a page that was quicker is pasted once more.
    """
    told = [scene for scene in TOLD[page] if not OF_A_FILE.search(scene.commands.text)]
    before = [asked(node) for node in in_turn.nodes]
    for attempt in range(1, ATTEMPTS + 1):
        home = tmp_path / str(attempt)
        home.mkdir()
        names = Names()
        try:
            for scene, printed in zip(told, paste(told, in_turn.url, home), strict=True):
                compare(scene, printed, names)
        except AssertionError:
            if attempt == ATTEMPTS:
                raise
        else:
            break
    counts = [asked(node) - past for node, past in zip(in_turn.nodes, before, strict=True)]
    assert 4 * min(counts) >= sum(counts) > 1, (
        counts
    )  # half each, but for streams that last, and what `asked` leaves out


def asked(node: str) -> int:
    """How many calls a node was asked, but for whether it is ready, and for this."""
    counted = httpx.get(f"{node}/metrics").text
    calls = re.findall(r'^tidings_requests_total\{.*route="([^"]*)".*\} ([0-9.]+)$', counted, re.MULTILINE)
    return sum(int(float(count)) for route, count in calls if route not in ("/readyz", "/metrics"))


@pytest.mark.parametrize("language", ["bash", "python"])
def test_the_first_commands_are_ten_lines(language: str) -> None:
    """What sends and receives a message, by curl and in Python, is no longer than ten lines of the README."""
    first = next(scene.commands.text for scene in TOLD[README] if scene.commands.language == language)
    assert sum(bool(line.strip()) for line in first.splitlines()) <= 10
    assert "send" in first


def test_every_call_is_shown(server: ServerProcess, tmp_path: Path) -> None:
    """Every route, in every method that it has, is called by the commands of docs/api.md with success.

    (But for the socket, for which it takes more than curl: it is shown to be there.)
    """
    paste(TOLD[API], server.url, tmp_path)
    counted = httpx.get(f"{server.url}/metrics").text
    shown = "".join(scene.commands.text for scene in TOLD[API])
    for route, methods in ROUTES.items():
        for method, operation in methods.items():
            status = "200" if operation.status == "200" else "426"
            called = rf'tidings_requests_total\{{method="{method}",route="{re.escape(route)}",status="{status}"\}} '
            assert re.search(called, counted), f"{method} {route} is not shown"
            for param in operation.params:
                choices = param.schema.get("enum", ()) if isinstance(param.schema, dict) else ()
                given = f"{param.name}: " if param.place == "header" else f"{param.name}="
                for text in [f"{given}{choice}" for choice in choices if choice] or [given]:
                    assert text in shown, f"{text} is not shown for {route}"
            for form, _ in operation.bodies.values():
                spellings = [f"`{name}`" for names, _ in form.fields for name in names[1:]]
                assert all(spelling in prose(API) for spelling in spellings), f"{spellings} of {route}"


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
