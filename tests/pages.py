"""Reading our own pages: their fenced blocks, their links, their tables, and the files that they name."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")))

SHOWN = "http://127.0.0.1:8080"  # where the pages say that the server listens

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)

# How a file of ours looks in backticks: a path from the root, perhaps with the name of a test behind it.
_NAMED = re.compile(
    r"(?:(?:src|tests|docs|bench|tools|\.ci)/[\w./-]*|[A-Z]+\.md|LICENSE|Makefile|pyproject\.toml)(?:::(\w+))?"
)


@dataclass(frozen=True)
class Fence:
    """A fenced block: its language, its text, and where it stands."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def fences(page: Path) -> list[Fence]:
    """All fenced blocks of a page, in its order."""
    text = page.read_text()
    return [Fence(page, text.count("\n", 0, found.start()) + 1, found[1], found[2]) for found in _FENCE.finditer(text)]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """Where a page's links lead."""
    return _LINK.findall(prose(page))


def codes(page: Path) -> list[str]:
    """What stands in backticks."""
    return _CODE.findall(prose(page))


def named_files(page: Path) -> Iterator[tuple[str, str]]:
    """The files of ours that a page names in backticks, and the test named in each, if one is."""
    for code in codes(page):
        found = _NAMED.fullmatch(code)
        if found:
            yield code.partition("::")[0], found[1] or ""


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as links spell them: lower case, hyphens for spaces, no punctuation."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).replace(" ", "-")
        for heading in _HEADING.findall(prose(page))
    }


def rows(page: Path, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its first two lines."""
    _, _, after = prose(page).partition(f"\n{heading}\n")
    table = re.search(r"(?:^\|.*\n)+", after, re.MULTILINE)
    assert table, f"no table under {heading!r}"
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table[0].splitlines()[2:]]


def surroundings(home: Path) -> Mapping[str, str]:
    """The environment of a page's commands: nobody's own settings, a curl that says what is wrong and never hangs."""
    (home / ".curlrc").write_text("show-error\nmax-time = 60\n")
    return {"PATH": os.environ["PATH"], "HOME": str(home), "CURL_HOME": str(home), "NO_PROXY": "*"}
