"""Messages that are told late: they get a later timestamp.

A writer stood still, or was cut off from the feed, and readers by timestamp were shown what came later. The message is
to be found behind that, by who reads the store as well. What follows it in its mailboxes was not told yet either, since
nothing is told before what is before it, and is moved on by who tells it: the feed asks for that.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from tidings.model import Posted, sent
from tidings.store.dynamodb import items
from tidings.store.dynamodb.driver import Driver, Unmet

_CALL_S = 10.0


class Late:
    """Moves messages on in one table."""

    def __init__(self, driver: Driver, table: str) -> None:
        self._driver = driver
        self._table = table

    async def postdate(self, posts: Sequence[Posted]) -> None:
        """Let these messages and their copies have these timestamps, if those are later than theirs.

        Raises StoreUnavailable; done again, it changes nothing.
        """
        for post in reversed(posts):  # the last first, so that along a mailbox they increase all the while
            timestamp = int(post.message.timestamp)
            moves = [self._move(post.mailbox, post.message.seq, timestamp)]
            if post.sent_seq:
                moves.append(self._move(sent(post.message.sender_id), post.sent_seq, timestamp))
            if len(moves) == 1 or not await self._put("transact_write_items", TransactItems=_updates(moves)):
                for move in moves:  # one of both has a time as late, or has expired
                    await self._put("update_item", **move)

    def _move(self, mailbox: str, seq: int, timestamp: int) -> dict[str, Any]:
        return {
            "TableName": self._table,
            "Key": items.slot(mailbox, seq),
            "UpdateExpression": "SET #ts = :ts",
            "ConditionExpression": "attribute_exists(#box) AND #ts < :ts",
            "ExpressionAttributeNames": {"#box": "box", "#ts": "ts"},
            "ExpressionAttributeValues": {":ts": items.number(timestamp)},
        }

    async def _put(self, operation: str, **request: Any) -> bool:
        """Whether it was done; else a condition was not met."""
        try:
            await self._driver.write(operation, asyncio.get_running_loop().time() + _CALL_S, **request)
        except Unmet:
            return False
        return True


def _updates(moves: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"Update": move} for move in moves]
