"""Fixtures for stores that move; a test module asks for them by `pytest_plugins = "tests.moving"`."""

from collections.abc import Iterator

import pytest

from tests.cluster import tables
from tests.shell import Shell
from tests.standin import endpoint
from tidings.store.dynamodb import dump, gate


@pytest.fixture
def shell() -> Shell:
    endpoint()  # so that there are credentials, if only made up
    return Shell()


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes look at the mark, and who closes a store waits for them, in a third of the time."""
    monkeypatch.setattr(gate, "LOOK_S", 0.3)
    monkeypatch.setattr(gate, "TRUST_S", 2.0)
    monkeypatch.setattr(dump, "CLOSING_S", 2.5)


@pytest.fixture
def tables_url() -> Iterator[str]:
    """The --store of tables with nothing in them."""
    with tables() as url:
        yield url
