"""`tidings store init`: the tables of a store on DynamoDB are made, or looked over, and what is wrong is one line."""

import asyncio
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.backends import Counting, forget
from tests.shell import Shell
from tests.standin import endpoint
from tidings.store.dynamodb.address import Address
from tidings.store.dynamodb.driver import connected
from tidings.store.dynamodb.tables import creation, directory_of, messages_of


@pytest.fixture
def place() -> Iterator[Address]:
    """Where no tables are."""
    address = Address("eu-central-1", f"t-{secrets.token_hex(6)}", endpoint())
    yield address
    asyncio.run(forget(address))


@pytest.fixture
def shell() -> Shell:
    endpoint()  # so that there are credentials, if only made up
    return Shell()


def url(address: Address) -> str:
    return f"dynamodb://{address.region}/{address.prefix}?endpoint={address.endpoint}"


async def ask(address: Address, operation: str, **request: Any) -> dict[str, Any]:
    """A call of somebody with a shell."""
    async with connected(address, Counting()) as driver:
        return await driver.ask(operation, **request)


def test_tables_are_made_once(place: Address, shell: Shell) -> None:
    """They are paid by use, by the definitions in one place; a second time they are left as they are."""
    names = [directory_of(place.prefix).name, messages_of(place.prefix).name]
    first = shell.json("store", "init", "--store", url(place))
    assert (first["tables"], first["made"]) == (names, names)
    generation = {"TableName": names[0], "Key": {"pk": {"S": "store"}, "sk": {"S": "generation"}}}
    begun = asyncio.run(ask(place, "get_item", **generation))["Item"]["value"]["N"]
    for name in names:
        table = asyncio.run(ask(place, "describe_table", TableName=name))["Table"]
        assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    again = shell.json("store", "init", "--store", url(place))
    assert again["made"] == []
    assert asyncio.run(ask(place, "get_item", **generation))["Item"]["value"]["N"] == begun
    told = shell.done("store", "init", "--store", url(place))
    assert told.splitlines()[:2] == [f"{name}: is there, and as it must be" for name in names]


def test_what_was_half_made_is_made_whole(place: Address, shell: Shell) -> None:
    """Of an init that was stopped there is one table: the next makes the other."""
    asyncio.run(ask(place, "create_table", **creation(directory_of(place.prefix))))
    done = shell.json("store", "init", "--store", url(place))
    assert done["made"] == [messages_of(place.prefix).name]


OTHER_KEYS = {
    "KeySchema": [{"AttributeName": "box", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "box", "AttributeType": "S"}],
}
OTHER_TYPE = {
    "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("box", "seq")],
}


@pytest.mark.parametrize(("change", "words"), [(OTHER_KEYS, "its keys are not"), (OTHER_TYPE, "another type")])
def test_a_table_of_somebody_else_is_left_alone(
    place: Address, shell: Shell, change: dict[str, Any], words: str
) -> None:
    """A table under our name with other keys is told of, in one line, and is not touched."""
    asyncio.run(ask(place, "create_table", **creation(directory_of(place.prefix))))
    asyncio.run(ask(place, "create_table", **{**creation(messages_of(place.prefix)), **change}))
    said = shell.refused("store", "init", "--store", url(place))
    assert words in said
    assert len(said.strip().splitlines()) == 1


def test_an_index_that_lacks_is_told_of(place: Address, shell: Shell) -> None:
    """The directory without its index of members is none of ours."""
    directory = directory_of(place.prefix)
    asyncio.run(ask(place, "create_table", **creation(directory._replace(indexes=()))))
    asyncio.run(ask(place, "create_table", **creation(messages_of(place.prefix))))
    assert "no index members" in shell.refused("store", "init", "--store", url(place))


@pytest.mark.parametrize(
    ("store", "code", "words"),
    [
        ("sqlite:///x.db", 2, "a SQLite store is made when it is served"),
        ("dynamodb://eu-central-1", 2, "--store must be dynamodb://REGION/PREFIX"),
        ("dynamodb://eu-central-1/a/b", 2, "--store must be"),
        ("dynamodb://eu-central-1/a?endpint=http://x", 2, "--store must be"),
        ("dynamodb://eu-central-1/a?endpoint=ftp://x", 2, "no http:// or https:// URL"),
        ("dynamodb://eu-central-1/a?endpoint=http://127.0.0.1:9", 1, "can't be used"),
    ],
)
def test_what_can_not_be_meant_is_said_in_one_line(shell: Shell, store: str, code: int, words: str) -> None:
    """Another store, no prefix, a misspelt endpoint, nobody there."""
    said = shell.refused("store", "init", "--store", store, code=code)
    assert words in said
    assert len(said.strip().splitlines()) == 1
