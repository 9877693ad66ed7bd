"""Fixtures of the store on DynamoDB; a test module asks for them by `pytest_plugins`, with those of `tests.opened`."""

from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.backends import DynamoPlace
from tests.standin import endpoint
from tests.standin.between import Between
from tidings.model import Found, Message, Start
from tidings.store.dynamodb import DynamoStore


@pytest.fixture
async def tables(tmp_path: Path) -> AsyncIterator[DynamoPlace]:
    made = DynamoPlace(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def door() -> AsyncIterator[Between]:
    async with Between(endpoint()).open() as opened:
        yield opened


@pytest.fixture
async def there(tables: DynamoPlace) -> DynamoStore:
    """A node with a good line."""
    return await tables.serve()


@pytest.fixture
async def here(tables: DynamoPlace, door: Between) -> DynamoStore:
    """A node behind the door."""
    return await tables.serve(through=door.url)


async def mailbox(store: DynamoStore, name: str) -> list[Message]:
    """All of a mailbox, which has no hole, its timestamps in order."""
    found: list[Found] = []
    while page := await store.read([Start(name, len(found))], 1_000):
        found += page
    assert [one.message.seq for one in found] == list(range(1, len(found) + 1))
    assert all(a.timestamp < b.timestamp for a, b in pairwise(found))
    return [one.message for one in found]
