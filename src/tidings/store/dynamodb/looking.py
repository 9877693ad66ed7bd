"""What a doctor reads: whole tables page by page, and items by their keys; always consistently, in bounded memory."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from tidings.cache import Cache
from tidings.store.dynamodb import items
from tidings.store.dynamodb.driver import Driver, Item
from tidings.store.dynamodb.mailboxes import together
from tidings.store.dynamodb.tables import MEMBERS, directory_of, messages_of

Place = tuple[str, str]  # the values of an item's key

_CALL_S = 60.0  # how long a call is tried: a doctor can wait for tables that are busy with others
_AT_A_TIME = 8  # calls, so that those who are served find room
_KEYS_MAX = 100  # in one BatchGetItem
_LEFT_S = 0.05  # before the rest of a BatchGetItem that was not answered in whole
_KNOWN_MAX = 200_000  # users and groups that were seen to be there, 0.1 KB each


class Looking:
    """Reads of a store's tables."""

    def __init__(self, driver: Driver, prefix: str) -> None:
        self.directory = directory_of(prefix)
        self.messages = messages_of(prefix)
        self._driver = driver
        self._turns = asyncio.Semaphore(_AT_A_TIME)
        self._known: Cache[str] = Cache(_KNOWN_MAX)

    async def pages(self, table: str) -> AsyncIterator[list[Item]]:
        """All items of a table, about 1 MB at a time. Those of a partition need not come together, nor in order."""
        request: dict[str, Any] = {"TableName": table, "ConsistentRead": True}
        while True:
            answer = await self._ask("scan", request)
            yield answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def find(self, table: str, keys: Iterable[Item]) -> dict[Place, Item]:
        """Items by their places; what is not there is left out."""
        wanted = list({place(key): key for key in keys}.values())
        parts = [wanted[at : at + _KEYS_MAX] for at in range(0, len(wanted), _KEYS_MAX)]
        found: dict[Place, Item] = {}
        for part in await together([self._find_some(table, part) for part in parts]):
            found.update(part)
        return found

    async def strangers(self, profiles: Iterable[Item], *, anew: bool) -> set[str]:
        """The partitions of users and groups, of those whose profiles' keys these are, that are not there."""
        wanted = {key["pk"]["S"]: key for key in profiles if anew or self._known.use(key["pk"]["S"]) is None}
        there = {partition for partition, _ in await self.find(self.directory.name, wanted.values())}
        for partition in there:
            self._known.put(partition, partition)
        return wanted.keys() - there

    async def slots(self, box: str, after: int, before: int, *, last: bool = False) -> AsyncIterator[Item]:
        """Items of a mailbox with `after < seq < before`; its last one first, and nothing more, if so asked."""
        if before - after < 2:
            return
        request: dict[str, Any] = {
            "TableName": self.messages.name,
            "ConsistentRead": True,
            "ScanIndexForward": not last,
            "KeyConditionExpression": "#box = :box AND #seq BETWEEN :first AND :last",
            "ExpressionAttributeNames": {"#box": "box", "#seq": "seq"},
            "ExpressionAttributeValues": {
                ":box": items.text(box),
                ":first": items.number(after + 1),
                ":last": items.number(before - 1),
            },
            **({"Limit": 1} if last else {}),
        }
        while True:
            answer = await self._ask("query", request)
            for item in answer["Items"]:
                yield item
            if last or "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def head(self, box: str) -> int:
        """The last seq given out in a mailbox: that of its last message, or what slot 0 has kept of one."""
        kept = await self.find(self.messages.name, [{"box": items.text(box), "seq": items.number(0)}])
        last = max((items.plain(item, "head") for item in kept.values()), default=0)
        async for item in self.slots(box, 0, 1 << 62, last=True):
            last = max(last, items.plain(item, "seq"))
        return last

    async def ties(self, partition: str) -> tuple[int, int]:
        """How many blocks, and how many stays that have not ended, a user's partition has."""
        blocks = stays = 0
        values = {":key": items.text(partition)}
        request = self._counting("pk", values) | {"ConsistentRead": True, "ProjectionExpression": "sk, member_of"}
        del request["Select"]
        async for answer in self._all(request):
            blocks += sum(item["sk"]["S"].startswith(items.BLOCK) for item in answer["Items"])
            stays += sum("member_of" in item for item in answer["Items"])
        return blocks, stays

    async def members(self, group_id: str) -> int:
        """How many members the index has of a group; it lags by a moment."""
        request = self._counting("member_of", {":key": items.text(group_id)}) | {"IndexName": MEMBERS}
        return sum([int(answer["Count"]) async for answer in self._all(request)])

    def _counting(self, name: str, values: Item) -> dict[str, Any]:
        return {
            "TableName": self.directory.name,
            "Select": "COUNT",
            "KeyConditionExpression": f"{name} = :key",
            "ExpressionAttributeValues": values,
        }

    async def _all(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        while True:
            answer = await self._ask("query", request)
            yield answer
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def _find_some(self, table: str, keys: Sequence[Item]) -> dict[Place, Item]:
        found: dict[Place, Item] = {}
        left: dict[str, Any] = {table: {"Keys": list(keys), "ConsistentRead": True}}
        while left:
            answer = await self._ask("batch_get_item", {"RequestItems": left})
            found.update((place(item), item) for item in answer["Responses"].get(table, ()))
            left = answer.get("UnprocessedKeys", {})
            if left:
                await asyncio.sleep(_LEFT_S)
        return found

    async def _ask(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        async with self._turns:
            due = asyncio.get_running_loop().time() + _CALL_S
            return await self._driver.read(operation, due, **request)


def key_of(item: Item) -> Item:
    """The key of an item of either table."""
    return {name: item[name] for name in (("box", "seq") if "box" in item else ("pk", "sk"))}


def place(item: Item) -> Place:
    """Where an item of either table is."""
    return (item["box"]["S"], item["seq"]["N"]) if "box" in item else items.place(item)
