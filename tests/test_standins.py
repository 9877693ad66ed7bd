"""docs/standins.md is true: the servers that stand in for DynamoDB do what that page says."""

import asyncio
import re
from collections.abc import Callable

import pytest

from tests.pages import ROOT, rows
from tests.standin import ministack, moto
from tests.standin.probes import answers

PAGE = ROOT / "docs" / "standins.md"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # one question is about 4 MB
@pytest.mark.parametrize(("server", "column"), [(ministack, 2), (moto, 3)], ids=["ministack", "moto"])
def test_the_stand_ins_do_what_the_page_says(server: Callable[[], str], column: int) -> None:
    """Each question is asked: the answer is in the server's column, or in that of all."""
    differing = {row[0]: row[column] for row in rows(PAGE, "## Where they differ")}
    alike = {row[0]: row[1] for row in rows(PAGE, "## Where they do not")}
    assert asyncio.run(answers(server())) == differing | alike


def test_what_is_said_to_differ_does() -> None:
    """A row of the first table has two answers at least; no question is in both tables."""
    differing = rows(PAGE, "## Where they differ")
    assert all(len({*row[1:]}) > 1 for row in differing)
    assert not {row[0] for row in differing} & {row[0] for row in rows(PAGE, "## Where they do not")}


def test_the_versions_are_those_that_are_installed() -> None:
    """The page names the versions that `make standin` installs."""
    pinned = dict(
        line.split("==") for line in (ROOT / "tests" / "standin" / "requirements.txt").read_text().splitlines()
    )
    listed = re.findall(r"^\| \[(\w+)\]\(\S+\) ([\d.]+) \|", PAGE.read_text(), re.MULTILINE)
    assert dict(listed) == {name: pinned[name] for name in ("ministack", "moto")}
