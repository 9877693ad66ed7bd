"""What a server of DynamoDB's API does where servers could differ: questions, and what is seen, in a few words.

`python -m tests.standin.probes URL` asks any server. docs/standins.md has what AWS documents, and what the stand-ins
do, and `tests/test_standins.py` holds it to that. Each question has tables of its own, as a store has them.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from typing import Any

from botocore.exceptions import ClientError, ConnectTimeoutError

from tests.backends import Counting, forget
from tidings.store.dynamodb.address import Address
from tidings.store.dynamodb.driver import Driver, Item, code_of, connected
from tidings.store.dynamodb.setup import active
from tidings.store.dynamodb.tables import creation, directory_of, messages_of, tables

BIG = 390_000  # bytes of a text in an item that may have 409,600
ABSENT = {"ConditionExpression": "attribute_not_exists(#box)", "ExpressionAttributeNames": {"#box": "box"}}
_CONNECTIONS = 10  # that are tried
OLD = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}


class Server:
    """A server with empty tables."""

    def __init__(self, driver: Driver, prefix: str) -> None:
        self._driver = driver
        self.token = secrets.token_hex(16)  # for a transaction
        self.directory = directory_of(prefix).name
        self.messages = messages_of(prefix).name

    async def ask(self, operation: str, **request: Any) -> dict[str, Any]:
        """Any call. On a busy machine a server that has one thread can be late to take a connection: then once more."""
        for _ in range(_CONNECTIONS):
            with suppress(ConnectTimeoutError):
                return await self._driver.ask(operation, **request)
        return await self._driver.ask(operation, **request)

    async def says(self, operation: str, **request: Any) -> str:
        """Whether it takes a call; else its error."""
        try:
            await self.ask(operation, **request)
        except ClientError as error:
            return code_of(error)
        return "taken"

    async def refusal(self, operation: str, **request: Any) -> dict[str, Any]:
        """The whole of its error."""
        try:
            await self.ask(operation, **request)
        except ClientError as error:
            return dict(error.response)
        return {}

    async def make(self, name: str, **more: Any) -> str:
        """Make one more table of messages, to be used at once; gives its state as it was first told."""
        table = messages_of("")._replace(name=name)
        told = await self.ask("create_table", **{**creation(table), **more})
        await active(self._driver, table)
        return str(told["TableDescription"]["TableStatus"])

    async def put(self, *items: Item) -> None:
        """Put messages."""
        for item in items:
            await self.ask("put_item", TableName=self.messages, Item=item)

    def putting(self, item: Item, **more: Any) -> dict[str, Any]:
        """What puts a message, if there is none."""
        return {"TableName": self.messages, "Item": item, **ABSENT, **more}

    async def query(self, box: str = "a", **more: Any) -> dict[str, Any]:
        """The first answer about a mailbox."""
        return await self.ask(
            "query",
            TableName=self.messages,
            KeyConditionExpression="box = :box",
            ExpressionAttributeValues={":box": {"S": box}},
            **{"ConsistentRead": True, **more},
        )


def message(seq: int, box: str = "a", **more: Any) -> Item:
    """One, in a mailbox; or its key."""
    return {"box": {"S": box}, "seq": {"N": str(seq)}, **more}


def text(length: int) -> Item:
    """A body of so many bytes."""
    return {"S": "x" * length}


Ask = Callable[[Server], Awaitable[str]]
PROBES: dict[str, Ask] = {}


def question(words: str) -> Callable[[Ask], Ask]:
    """Enter a probe under the words that the page has for it."""

    def enter(ask: Ask) -> Ask:
        PROBES[words] = ask
        return ask

    return enter


@asynccontextmanager
async def empty(url: str) -> AsyncIterator[Server]:
    """A server whose tables were just made."""
    address = Address("eu-central-1", f"p-{secrets.token_hex(6)}", url)
    async with connected(address, Counting(), 60.0) as driver:
        for table in tables(address.prefix):
            await driver.ask("create_table", **creation(table))
        for table in tables(address.prefix):
            await active(driver, table)
        try:
            yield Server(driver, address.prefix)
        finally:
            await forget(address)


async def answers(url: str) -> dict[str, str]:
    """What a server does, question by question."""
    for name in ("writes", "reads", "service"):
        import_module(f"{__name__}.{name}")  # each enters its own
    found = {}
    for words, ask in PROBES.items():
        async with empty(url) as server:
            found[words] = await ask(server)
    return found
