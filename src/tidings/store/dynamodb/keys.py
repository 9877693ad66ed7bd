"""Idempotency keys: an item each, put if it is absent, and never changed.

A send's has `base`: a seq at or below its mailbox's head when it was put. Only then may its message be put, which
carries the key; so whoever looks at every slot after `base` finds it, if it is there. Any other call's key is put in
one transaction with what it does, and has the answer.
"""

import time
from typing import Any

from tidings.errors import KeyReused
from tidings.model import Key
from tidings.store.dynamodb import items
from tidings.store.dynamodb.driver import Driver, Item, Unmet
from tidings.store.dynamodb.tables import EXPIRES


class Keys:
    """The keys of one table; each is kept for `kept_s` seconds at least. `due` is a time of the loop."""

    def __init__(self, driver: Driver, table: str, kept_s: float) -> None:
        self._driver = driver
        self._table = table
        self._kept_s = kept_s

    def put(self, key: Key, **more: Item) -> dict[str, Any]:
        """What puts a key, if it is absent; if not, who tries is told what is there."""
        now_s = time.time()
        times = {"ts": items.number(int(now_s * 1000)), EXPIRES: items.number(int(now_s + self._kept_s) + 1)}
        item = {**items.key_key(key.name), "content": {"B": key.content}, **times, **more}
        return {
            "TableName": self._table,
            "Item": item,
            "ConditionExpression": "attribute_not_exists(#pk)",
            "ExpressionAttributeNames": {"#pk": "pk"},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }

    async def claim(self, key: Key, base: int, due: float) -> int:
        """Put a send's key; gives its base, which is an older one if the key was there. Raises KeyReused."""
        try:
            await self._driver.write("put_item", due, **self.put(key, base=items.number(base)))
        except Unmet as unmet:
            item = unmet.checks[0].found or await self._get(key, due)
            return self._base(key, item)
        return base

    async def find_base(self, key: Key, due: float) -> int | None:
        """The base of a send's key; None if the key was never put. Raises KeyReused."""
        item = await self._get(key, due)
        return None if item is None else self._base(key, item)

    async def _get(self, key: Key, due: float) -> Item | None:
        request = {"TableName": self._table, "Key": items.key_key(key.name), "ConsistentRead": True}
        return (await self._driver.read("get_item", due, **request)).get("Item")

    def _base(self, key: Key, item: Item | None) -> int:
        if item is None or "base" not in item or item["content"]["B"] != key.content:
            raise reused()
        return items.plain(item, "base")


def reused() -> KeyReused:
    """The error for a key that stands for something else."""
    return KeyReused("idempotency_key_reused", "This Idempotency-Key was used with other content.")
