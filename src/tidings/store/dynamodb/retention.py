"""How long messages are kept, and why no number of a mailbox is ever given twice, whatever the server deletes when.

The server deletes an item some time (it says, up to 48 h) after the time in its attribute `expires`, in any order. A
message gets that attribute only once another is behind it; so the last one of a mailbox stays, and its seq is the head,
as ever. Whether a put may be is decided by no clock: it goes to head+1 and nowhere else. The last one is let go of when
somebody meets it past its time: first its seq and timestamp are kept in the mailbox's slot 0, then it gets its end. A
head that a node remembers is worth nothing after some hours (`GUESS_MS`): the slot behind it may be empty again.

So an item that has an end, and none behind it, is not the head: slot 0 has it. And what lacks before an item is gone
for good, or still on its way: each message has the timestamp of the one before it, which tells.

What is past its time is not given, be it there or not; its time is told by the server's clock, which deletes it.
"""

import asyncio
from typing import Any

import msgspec

from tidings.errors import StartError, TidingsError
from tidings.model import Head
from tidings.store.dynamodb import items
from tidings.store.dynamodb.driver import Driver, Item, Unmet, reason
from tidings.store.dynamodb.tables import EXPIRES

DAY_MS = 86_400_000
_LEAST_MS = DAY_MS  # no message of any store is deleted sooner, whatever it was set to before
_OLD_MS = 60_000  # no put is under way for so long
_AT_A_TIME, _WAITING_MAX = 8, 10_000
_CALL_S = 10.0

GUESS_MS = 21_600_000  # how long a head may be remembered: what was put behind it meanwhile is there for a day at least


class Retention(msgspec.Struct, frozen=True):
    """For how many days messages are kept; 0: for ever, though it was otherwise before."""

    days: int

    def expires(self, timestamp: int) -> Item:
        """When a message of this time (Unix ms) may be deleted, in Unix seconds."""
        return items.number(-(-timestamp // 1000) + self.days * DAY_MS // 1000)

    def is_past(self, item: Item, now_ms: int) -> bool:
        """Whether a message is kept no more, if only its item is still there."""
        if EXPIRES in item and items.plain(item, EXPIRES) * 1000 <= now_ms:
            return True
        return self.is_over(items.plain(item, "ts"), now_ms)

    def is_over(self, timestamp: int, now_ms: int) -> bool:
        """The same of a message of this time."""
        return self.days > 0 and timestamp <= now_ms - self.days * DAY_MS

    def may_be_first(self, item: Item, now_ms: int) -> bool:
        """Whether what was before this message may have been deleted; else it must be there, or is on its way."""
        if "prev" in item:
            return 0 < items.plain(item, "prev") <= now_ms - _LEAST_MS
        return items.plain(item, "ts") <= now_ms - _OLD_MS  # from before there was a retention, or from another store

    def before(self, item: Item, now_ms: int) -> int:
        """The timestamp of the last message before this one, which is gone; if nobody knows, what it was at most."""
        if "prev" in item:
            return items.plain(item, "prev")
        least = min(_LEAST_MS, self.days * DAY_MS) if self.days else 0
        return min(items.plain(item, "ts") - 1, now_ms - least)


async def find_retention(driver: Driver, table: str) -> Retention | None:
    """How long the store keeps messages; None if it always kept all. Raises StartError."""
    try:
        answer = await driver.ask("get_item", TableName=table, Key=items.own_key("retention"), ConsistentRead=True)
    except Exception as error:
        raise StartError(f"{table} can't be read: {reason(error)}") from None
    return Retention(items.plain(answer["Item"], "value")) if "Item" in answer else None


async def keep_for(driver: Driver, table: str, days: int) -> None:
    """Let the store keep messages for so many days; 0: for ever. Nodes that run go on as before until they end."""
    if days or await find_retention(driver, table) is not None:
        item = {**items.own_key("retention"), "value": items.number(days)}
        await driver.ask("put_item", TableName=table, Item=item)


def check_retention(found: Retention | None, days: int) -> None:
    """Raises StartError, in one line, if a node is set to keep messages for another time than the store."""
    there = found.days if found else 0
    if there != days:
        how = f"{there} days" if there else "for ever"
        raise StartError(
            f"the store keeps messages {how}; give --retention-days {there}, or change it on the store:"
            f" tidings store init --retention-days {days}"
        )


class Ends:
    """Gives messages their end, in the background; what is missed, since a node died, is done by who meets it."""

    def __init__(self, driver: Driver, table: str, retention: Retention | None) -> None:
        self._driver = driver
        self._table = table
        self._retention = retention or Retention(0)
        self._turns = asyncio.Semaphore(_AT_A_TIME)
        self._tasks: set[asyncio.Task[None]] = set()
        self._swept: set[str] = set()  # mailboxes being swept

    @property
    def is_wanted(self) -> bool:
        """Whether messages are to have an end at all."""
        return self._retention.days > 0

    def end_of(self, item: Item) -> Item:
        """The attribute that ends a message; none if messages have no end."""
        if not self.is_wanted:
            return {}
        return {EXPIRES: self._retention.expires(items.plain(item, "ts"))}

    def succeeded(self, mailbox: str, head: Head) -> None:
        """This message was the last one of a mailbox, and another is stored behind it."""
        if self.is_wanted and head.seq:
            self._begin(self._end(mailbox, head))

    def sweep(self, mailbox: str, past: list[Item], head: Head) -> None:
        """These messages are past their time, and have no end; `head` is the mailbox's."""
        if self.is_wanted and past and mailbox not in self._swept:
            self._swept.add(mailbox)
            if not self._begin(self._sweep(mailbox, past, head)):
                self._swept.discard(mailbox)

    async def close(self) -> None:
        """Wait for what is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self, work: Any) -> bool:
        if len(self._tasks) >= _WAITING_MAX:
            work.close()  # done when it is met
            return False
        task = asyncio.get_running_loop().create_task(self._quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _quietly(self, work: Any) -> None:
        try:
            async with self._turns:
                await work
        except TidingsError:
            return  # it is done when it is met; the driver said why
        finally:
            work.close()

    async def _sweep(self, mailbox: str, past: list[Item], head: Head) -> None:
        try:
            for item in past:
                met = Head(items.plain(item, "seq"), items.plain(item, "ts"))
                if met.seq >= head.seq:
                    await self._keep_head(mailbox, met)  # before it may go
                await self._end(mailbox, met)
        finally:
            self._swept.discard(mailbox)

    async def _keep_head(self, mailbox: str, head: Head) -> None:
        """Slot 0 says that so much was given out."""
        await self._update(
            items.slot(mailbox, 0),
            "SET #head = :head, #ts = :ts",
            "attribute_not_exists(#head) OR #head < :head",
            {"#head": "head", "#ts": "ts"},
            {":head": items.number(head.seq), ":ts": items.number(head.timestamp)},
        )

    async def _end(self, mailbox: str, head: Head) -> None:
        await self._update(
            items.slot(mailbox, head.seq),
            "SET #expires = :expires",
            "attribute_exists(#box) AND attribute_not_exists(#expires)",
            {"#box": "box", "#expires": EXPIRES},
            {":expires": self._retention.expires(head.timestamp)},
        )

    async def _update(self, key: Item, change: str, condition: str, names: dict[str, str], values: Item) -> None:
        try:
            await self._driver.write(
                "update_item",
                asyncio.get_running_loop().time() + _CALL_S,
                TableName=self._table,
                Key=key,
                UpdateExpression=change,
                ConditionExpression=condition,
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
            )
        except Unmet:
            return  # it is so, or more than that
