"""The house keeps its order: imports point down, rooms are small and have names of their own, tests don't sleep."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "tidings"

# From the top down; a module may import from its own row and from those below.
LAYERS = (
    ("__main__", "cli", "server", "supervisor", "listening", "accepting", "protocol", "flow", "garbage"),
    ("app", "routes", "backends"),
    ("api", "live"),
    ("service",),
    ("tail", "directory"),
    ("store", "feed"),
    ("cursor",),
    ("history", "client"),
    ("metrics", "cache", "board", "model", "stamps", "config", "errors"),
    ("log",),
)
RANKS = {name: rank for rank, row in enumerate(LAYERS) for name in row}
STRANGERS = {"store", "feed", "history", "client"}  # who share a row, but not what they know
NO_NAMES = {"utils", "helpers", "common", "core", "base", "misc"}
FUNCTION_MAX = 50
FILE_MAX = 350

MODULES = sorted(SOURCE.rglob("*.py"))
EVERYTHING = [*MODULES, *(path for room in ("tests", "bench", "tools") for path in sorted((ROOT / room).rglob("*.py")))]


def name_of(path: Path) -> str:
    """The dotted name of a module below tidings: `store.sqlite.file`; a package's own is its folder's."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path): path for path in MODULES}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """What a module imports, dotted, and whether only when a function of it runs."""
    tree = ast.parse(path.read_text())
    late = {
        inner
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node in late
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide what is imported"
            assert node.module
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole if whole.removeprefix("tidings.") in NAMES else node.module), node in late


def ours(path: Path) -> Iterator[tuple[str, bool]]:
    """The modules below tidings that a module imports."""
    for name, is_late in imports(path):
        if name.startswith("tidings."):
            yield name.removeprefix("tidings."), is_late


@pytest.mark.parametrize("path", [path for path in MODULES if name_of(path)], ids=name_of)
def test_imports_point_down(path: Path) -> None:
    """A module imports only from its own row of the house and from the rows below."""
    room = name_of(path).partition(".")[0]
    assert room in RANKS, f"{room} has no place in the house yet: give it one in LAYERS"
    for name, _ in ours(path):
        other = name.partition(".")[0]
        assert RANKS[other] >= RANKS[room], f"{name_of(path)} reaches up to {name}"
        if room in STRANGERS and RANKS[other] == RANKS[room]:
            assert other == room, f"{name_of(path)} must know nothing of {name}"


def test_nothing_imports_in_a_circle() -> None:
    """The modules can be put in one order in which each stands behind all that it needs to be imported."""
    graph = {name: {other for other, is_late in ours(path) if not is_late} - {name} for name, path in NAMES.items()}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    ("drivers", "where"),
    [
        ({"apsw"}, "store.sqlite"),
        ({"aiobotocore", "botocore"}, "store.dynamodb.driver"),
        ({"redis"}, "feed.redis"),
    ],
    ids=["sqlite", "dynamodb", "redis"],
)
def test_a_driver_is_imported_only_at_its_home(drivers: set[str], where: str) -> None:
    """A driver stands behind the Store, or the Feed; nothing else may know that it is there."""
    users = {name for name, path in NAMES.items() for module, _ in imports(path) if module.partition(".")[0] in drivers}
    assert users
    assert all(name == where or name.startswith(f"{where}.") for name in users), users


@pytest.mark.parametrize("package", ["store.dynamodb", "feed.redis"])
def test_what_needs_an_extra_is_imported_only_when_asked_for(package: str) -> None:
    """Such a package is imported by a function, when it runs: what it needs may not be installed."""
    for name, path in NAMES.items():
        for other, is_late in ours(path):
            if other == package or other.startswith(f"{package}."):
                assert is_late or name == package or name.startswith(f"{package}."), f"{name} always imports {other}"


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_are_small_and_have_names(path: Path) -> None:
    """No file is longer than can be read at a sitting, no function longer than a screen, no room named for nothing."""
    assert not NO_NAMES & {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}
    text = path.read_text()
    assert len(text.splitlines()) <= FILE_MAX
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_MAX, f"{node.name} is longer than a screen"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.name)
def test_tests_do_not_sleep(path: Path) -> None:
    """A test waits for what it can see, with a deadline: `sleep` is either too short or too long."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sleep":
            yields = isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
            assert yields, f"{path.name}:{node.lineno} sleeps"
