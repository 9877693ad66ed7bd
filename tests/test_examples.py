"""The pages keep their word: their commands are run, and what they print must be what is shown behind them."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.examples import Names, Unlike, compare, paste, scenes
from tests.pages import PAGES, ROOT, prose
from tests.server import ServerProcess
from tidings.routes import ROUTES

README, API = ROOT / "README.md", ROOT / "docs" / "api.md"
ELSEWHERE = {ROOT / "docs" / "delivery.md"}  # its one program goes on for ever: tests/test_reader.py runs it
TOLD = {page: scenes(page) for page in PAGES if page not in ELSEWHERE and scenes(page)}


@pytest.mark.parametrize("page", TOLD, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_print_what_is_shown(page: Path, tmp_path: Path) -> None:
    """A page's blocks, pasted into one shell while a server runs, print what stands behind each."""
    names = Names()
    with ServerProcess.start(tmp_path / "data") as server:  # so the default --store is this server's, as with make run
        for scene, printed in zip(TOLD[page], paste(page, server, tmp_path), strict=True):
            compare(scene, printed, names)


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
    paste(API, server, tmp_path)
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
