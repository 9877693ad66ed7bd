"""The documents are true: what they link to and name is there, what they list is whole, what they show is run."""

import ast
import hashlib
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import msgspec
import pytest

from tests.examples import scenes
from tests.offered import offered
from tests.pages import PAGES, ROOT, anchors, codes, fences, links, named_files, prose, rows
from tests.standin import ENDPOINT
from tidings.api.openapi import STATUS
from tidings.api.query import KEY_CHARS
from tidings.cli import flag, variable
from tidings.cli.flags import OTHERS
from tidings.config import Settings
from tidings.history import KINDS, Allowance, Changing, Fault, Reading, Sending
from tidings.model import Message
from tidings.routes import ROUTES

DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "tidings"
KNOWN = re.compile(r"python -m (tidings\.history FILE$|bench\b|tests\.standin\.probes http)|\. \.venv/bin/activate$")
SVG = "{http://www.w3.org/2000/svg}"
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"  # SHA-256 of apache.org's own text

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    """Every link within the project leads to a file that is there, and to a heading of it if it names one."""
    for link in links(page):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link}: there is no such heading"


@every_page
def test_files_and_tests_that_are_named_are_there(page: Path) -> None:
    """A path in backticks is a file of ours, and a test named behind it is in it."""
    for path, test in named_files(page):
        assert (ROOT / path).exists(), f"there is no {path}"
        assert not test or f"def {test}(" in (ROOT / path).read_text(), f"{path} has no {test}"


@every_page
def test_settings_targets_and_codes_that_are_named_are_there(page: Path) -> None:
    """A flag, a variable, a make target, and a code beside its status are what the program says they are."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    settings = [field.name for field in fields(Settings)]
    flags = {*_tool_flags(), *(name for command in offered() for name in command.flags)}
    variables = {*map(variable, settings), *OTHERS, ENDPOINT}
    for code in codes(page):
        assert {*re.findall(r"--[a-z][\w-]*", code)} <= flags, code
        assert {*re.findall(r"\bTIDINGS_[A-Z]\w+", code)} <= variables, code
        assert {*re.findall(r"^make ([a-z-]+)", code)} <= {*targets}, code
    for status, code in re.findall(r"\b([45][0-9]{2}) `([a-z_]+)`", prose(page)):
        assert STATUS[code] == int(status), code


def _tool_flags() -> list[str]:
    mains = (ROOT / "bench" / "__main__.py", ROOT / "tools" / "cluster" / "__main__.py")
    return [name for main in mains for name in re.findall(r'"(--[a-z-]+)"', main.read_text())]


@every_page
def test_commands_for_the_project_are_there(page: Path) -> None:
    """A sh block has `make` with targets of the Makefile and real settings, or one of a few commands that are known."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    settings = {field.name for field in fields(Settings)}
    for line in _commands(page):
        of_make = r'((?:TIDINGS_\w+=\S+ )*)make ([a-z-]+)(?: (?:EXTRAS|STORE|FEED)=\S+)*(?: ARGS="([^"]*)")?'
        made = re.fullmatch(of_make, line)
        assert made or KNOWN.match(line), f"{page}: what is {line!r}?"
        if made:
            assert made[2] in targets, line
            assert {name.lower() for name in re.findall(r"TIDINGS_(\w+)=", made[1])} <= settings, line
            flags = {"run": [*map(flag, settings)], "cluster": _tool_flags()}.get(made[2])
            assert flags is None or {*re.findall(r"--[\w-]+", made[3] or "")} <= {*flags}, line


def _commands(page: Path) -> Iterator[str]:
    """The lines of a page's sh blocks, without their comments."""
    for block in fences(page):
        if block.language == "sh":
            yield from (line.partition("#")[0].strip() for line in block.text.splitlines())


def test_the_readme_starts_with_two_commands() -> None:
    """What serves and what tests stand in the README's first block."""
    assert [*_commands(ROOT / "README.md")][:2] == ["make run", "make test"]


@every_page
def test_no_block_is_for_show_only(page: Path) -> None:
    """Every block is run, is what a run prints, is among the commands checked above, or is a drawing."""
    told = {block for scene in scenes(page) for block in (scene.commands, scene.shown)}
    judged = {block for block in fences(DOCS / "testing.md") if block.language in ("json", "text")}
    for block in fences(page):
        assert block in told | judged or block.language in ("sh", ""), f"{block} is nothing"


def test_the_limits_are_those_of_the_settings() -> None:
    """Each row of the table has a setting's default, and a code that is answered with that status."""
    table = {row[2].strip("`"): row for row in rows(DOCS / "api.md", "## Limits")}
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


def test_the_readme_has_some_of_the_limits() -> None:
    """Each row of the README's short table is one of the whole table's."""
    whole = [row[:3] for row in rows(DOCS / "api.md", "## Limits")]
    assert all(row in whole for row in rows(ROOT / "README.md", "## Limits"))


def test_fields_and_parameters_of_messages_are_all_explained() -> None:
    """docs/api.md has each field of a message, and each parameter of reading, and no other."""
    named = [row[0].strip("`") for row in rows(DOCS / "api.md", "What a message has:")]
    assert named == [field.encode_name for field in msgspec.structs.fields(Message)]
    params = [
        row[0].strip("`")
        for row in rows(
            DOCS / "api.md", "That is all there is, streamed however long. Parameters say which part of it is wanted:"
        )
    ]
    assert params == [param.name for param in ROUTES["/v1/messages/{userId}"]["GET"].params]


def test_every_test_is_told_of() -> None:
    """docs/testing.md names each file of tests, but for the siblings of those on the API and on faults."""
    told = {path for path, _ in named_files(DOCS / "testing.md")}
    files = {str(file.relative_to(ROOT)) for file in (ROOT / "tests").glob("test_*.py")}
    siblings = {file for file in files if file.startswith("tests/test_api_")}
    assert files - siblings <= told, f"add {files - siblings - told} to docs/testing.md"


def test_the_errors_are_all_there() -> None:
    """The table of errors has every code, each beside its status, and no other."""
    table = rows(DOCS / "api.md", "## Errors")
    shown = {code: int(row[0]) for row in table for code in re.findall(r"`(\w+)`", row[1])}
    assert shown == STATUS


def test_the_picture_stands_alone() -> None:
    """The drawing in docs/delivery.md says in words what it shows, keeps to light and dark, and loads nothing."""
    text = (DOCS / "delivery.svg").read_text()
    drawing = ElementTree.fromstring(text)
    assert all(drawing.findtext(f"{SVG}{name}") for name in ("title", "desc"))
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"href|@import|url\((?!#)", text)
    assert {element.tag.removeprefix(SVG) for element in drawing.iter()}.isdisjoint(
        {"script", "image", "foreignObject"}
    )


def test_every_page_is_in_the_index() -> None:
    """docs/index.md leads to every page of docs."""
    for page in DOCS.glob("*.md"):
        assert page.name == "index.md" or page.name in links(DOCS / "index.md"), f"add {page.name} to docs/index.md"


def _house() -> Iterator[Path]:
    """The files that ARCHITECTURE.md draws, from the indented names of its list."""
    (drawn,) = (block for block in fences(ROOT / "ARCHITECTURE.md") if block.text.startswith("src/tidings/"))
    rooms = [SOURCE]
    for line in drawn.text.splitlines()[1:]:
        indent, name = re.match(r"( +)(\S+)  ", line).groups()  # type: ignore[union-attr]  # a line like no other fails here
        del rooms[len(indent) // 2 :]
        if name.endswith("/"):
            rooms.append(rooms[-1] / name)
        else:
            yield rooms[-1] / name


def test_the_house_is_drawn_whole() -> None:
    """ARCHITECTURE.md has a line for each file of the source, and no other. (A folder's line stands for its own.)"""
    files = {path for path in SOURCE.rglob("*") if path.suffix in (".py", ".sql", ".lua", ".html")}
    rooms = {path for path in files if path.name == "__init__.py" and path.parent != SOURCE}
    drawn = list(_house())
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == files - rooms


def test_the_layers_drawn_are_the_layers_held() -> None:
    """Within ARCHITECTURE.md's list, a module imports only from what stands in its own layer or below."""
    text = (ROOT / "tests" / "test_layers.py").read_text()
    (layers,) = (
        ast.literal_eval(node.value)
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS"
    )
    ranks = {name: rank for rank, row in enumerate(layers) for name in row}
    tops = [path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in _house()]
    order = [ranks[top] for top in tops if top != "__init__"]
    assert order == sorted(order)


def test_the_license_is_apache_2() -> None:
    """LICENSE is the license's own text, and the package says so as well."""
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2
    assert _project()["license"] == "Apache-2.0"


def test_the_changelog_begins_with_this_version() -> None:
    """The newest entry is that of the version in pyproject.toml."""
    newest = re.search(r"^## ([0-9.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == _project()["version"]


def _project() -> dict[str, str]:
    project: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


def test_the_anomalies_are_all_explained() -> None:
    """docs/testing.md has each kind of anomaly, in the checker's own words."""
    table = prose(DOCS / "testing.md").partition("| anomaly | what |\n")[2]
    shown = dict(re.findall(r"^\| ([a-z-]+) \| (.*) \|$", table, re.MULTILINE))
    assert shown == KINDS


def test_the_fields_of_events_are_all_explained() -> None:
    """docs/testing.md has each field of each event of a history, and no other."""
    table = rows(DOCS / "testing.md", "There are five kinds of events. Fields that are left out have the default.\n")
    explained = {name for row in table for name in re.findall(r"`(\w+)`", row[1])}
    events = (Sending, Reading, Changing, Fault, Allowance)
    assert explained == {field.encode_name for event in events for field in msgspec.structs.fields(event)}


def test_the_checker_says_what_is_shown(tmp_path: Path) -> None:
    """The history in docs/testing.md, given to the command beside it, is judged as shown."""
    history, verdict = (block for block in fences(DOCS / "testing.md") if block.language in ("json", "text"))
    file = tmp_path / "history.jsonl"
    file.write_text(history.text)
    command = [sys.executable, "-m", "tidings.history", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, verdict.text, "")
