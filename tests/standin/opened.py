"""Fixtures of the store on DynamoDB; a test module asks for them by `pytest_plugins`, with those of `tests.opened`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.backends import DynamoPlace
from tests.standin import endpoint
from tests.standin.between import Between
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
