"""Messages that are told late: they get a later timestamp.

A writer stood still, or was cut off from the feed, and readers by timestamp were shown what came later. The message is
to be found behind that, by who reads the store as well. What follows it in its mailboxes was not told yet either, since
nothing is told before what is before it, and is moved on by who tells it: the feed asks for that.
"""

import asyncio
from collections.abc import Sequence

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
            if post.sent_seq:
                await self._set(sent(post.message.sender_id), post.sent_seq, timestamp)
            await self._set(post.mailbox, post.message.seq, timestamp)

    async def _set(self, mailbox: str, seq: int, timestamp: int) -> None:
        try:
            await self._driver.write(
                "update_item",
                asyncio.get_running_loop().time() + _CALL_S,
                TableName=self._table,
                Key=items.slot(mailbox, seq),
                UpdateExpression="SET #ts = :ts",
                ConditionExpression="attribute_exists(#box) AND #ts < :ts",
                ExpressionAttributeNames={"#box": "box", "#ts": "ts"},
                ExpressionAttributeValues={":ts": items.number(timestamp)},
            )
        except Unmet:
            return  # it has one as late, or has expired
