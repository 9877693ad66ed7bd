"""Tables of a store as somebody with a shell sees them: items read, put, changed, deleted behind the nodes' backs."""

from collections.abc import Iterable
from typing import Any

from tests.backends import Counting
from tidings.store.dynamodb.address import Address
from tidings.store.dynamodb.driver import Item, connected
from tidings.store.dynamodb.tables import directory_of, messages_of

_TOGETHER = 25  # items in one BatchWriteItem


class Raw:
    """One store's tables; each call is a connection of its own."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.directory = directory_of(address.prefix).name
        self.messages = messages_of(address.prefix).name

    async def ask(self, operation: str, **request: Any) -> dict[str, Any]:
        """Any call."""
        async with connected(self.address, Counting()) as driver:
            return await driver.ask(operation, **request)

    async def all(self, table: str) -> list[Item]:
        """Every item of a table."""
        found: list[Item] = []
        start: dict[str, Any] = {}
        while True:
            answer = await self.ask("scan", TableName=table, ConsistentRead=True, **start)
            found += answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return found
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    async def fill(self, table: str, items: Iterable[Item]) -> None:
        """Put items."""
        puts = [{"PutRequest": {"Item": item}} for item in items]
        for at in range(0, len(puts), _TOGETHER):
            await self.ask("batch_write_item", RequestItems={table: puts[at : at + _TOGETHER]})

    async def put(self, item: Item) -> None:
        """Put one, into the table where its kind is."""
        await self.ask("put_item", TableName=self._table(item), Item=item)

    async def change(self, item: Item, **changed: Any) -> None:
        """Put it with other attributes; those that are None, without."""
        changed = {**item, **changed}
        await self.put({name: value for name, value in changed.items() if value is not None})

    async def delete(self, item: Item) -> None:
        """Delete it."""
        key = {name: item[name] for name in (("box", "seq") if "box" in item else ("pk", "sk"))}
        await self.ask("delete_item", TableName=self._table(item), Key=key)

    def _table(self, item: Item) -> str:
        return self.messages if "box" in item else self.directory
