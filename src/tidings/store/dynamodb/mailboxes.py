"""Mailboxes, as read: always consistently, page after page to the end, and never past a hole.

Messages of one put become visible one by one, so a read beside it may meet the second before the first. What is before
the hole is given; the rest is read again. What expired (retention.py) leaves no hole: all before it is gone as well.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from heapq import heapify, heappop, heapreplace
from typing import Any

from tidings.errors import StoreUnavailable
from tidings.model import NO_HEAD, Found, Head, Start
from tidings.store.dynamodb import items
from tidings.store.dynamodb.driver import Driver, Item
from tidings.store.dynamodb.retention import Ends, Retention
from tidings.store.dynamodb.tables import EXPIRES

_AGAIN_S = 0.02  # before a hole is looked at again
_HOLE_S = 1.0  # a put is visible in whole after milliseconds
_STEP_MIN = 16  # messages of one mailbox at a time at least, in a read of many
_SWEPT = 100  # messages given their end at a time, when somebody meets them
_NAMES = {"#box": "box", "#seq": "seq"}
_OF = ("seq", "ts", "prev", EXPIRES)  # what tells whether a message is kept, and what is before it


class Mailboxes:
    """Reads of one table; `due` is a time of the loop."""

    def __init__(self, driver: Driver, table: str, retention: Retention | None, ends: Ends) -> None:
        self._driver = driver
        self._table = table
        self._retention = retention
        self.ends = ends

    async def head(self, mailbox: str, due: float) -> Head:
        """The last seq given out, and its timestamp; not what is gone. Raises StoreUnavailable."""
        head, _ = await self._last(mailbox, due)
        return head

    async def _last(self, mailbox: str, due: float) -> tuple[Head, bool]:
        """The same, and whether its message is there, past its time or not."""
        patience = self._patience(due)
        while True:
            last = await self._page(mailbox, -1, None, 1, due, backwards=True, of=("seq", "ts", "head", EXPIRES))
            if not last:
                return NO_HEAD, False
            seq = items.plain(last[0], "seq")
            if seq and EXPIRES not in last[0]:
                return Head(seq, items.plain(last[0], "ts")), True
            kept = await self._find(mailbox, 0, due) if seq else last[0]
            if items.plain(kept, "head") >= seq:
                return Head(items.plain(kept, "head"), items.plain(kept, "ts")), False
            await self._pause(patience)  # it got its end just now, since another is behind it

    async def states(self, mailboxes: Sequence[str], due: float) -> list[Head]:
        """Heads of several, in order, with what is gone. Raises StoreUnavailable."""
        if self._retention is None:
            return await self.heads(mailboxes, due)
        boxes = list(dict.fromkeys(mailboxes))
        found = dict(zip(boxes, await together([self.state(box, due) for box in boxes]), strict=True))
        return [found[mailbox] for mailbox in mailboxes]

    async def state(self, mailbox: str, due: float) -> Head:
        """A head, with what is gone: all before the first message that is kept."""
        patience = self._patience(due)
        while True:
            head, is_there = await self._last(mailbox, due)
            if self._retention is None or not head.seq:
                return head
            now_ms = self._driver.now_ms()
            if not is_there or self._retention.is_over(head.timestamp, now_ms):
                await self._sweep(mailbox, head, due, now_ms)
                return Head(head.seq, head.timestamp, head.seq, head.timestamp)
            first = await self._first_kept(mailbox, head, self._retention, due)
            seq = items.plain(first, "seq")
            if seq == 1:
                return head
            if self._retention.may_be_first(first, now_ms):
                return Head(head.seq, head.timestamp, seq - 1, self._retention.before(first, now_ms))
            await self._pause(patience)  # what is before it is on its way

    async def _first_kept(self, mailbox: str, head: Head, retention: Retention, due: float) -> Item:
        """The first message that is kept: sought between the first that is there and the head, which is kept.

        Along seqs, times rise: so what is past its time is before all that is not.
        """
        now_ms = self._driver.now_ms()
        (first,) = await self._page(mailbox, 0, None, 1, due, of=_OF)
        if not retention.is_past(first, now_ms):
            return first
        await self._sweep(mailbox, head, due, now_ms)
        low, high = items.plain(first, "seq"), head.seq  # past at low; the first one from high on is kept
        (kept,) = await self._page(mailbox, high - 1, None, 1, due, of=_OF)
        while low < high - 1:
            middle = (low + high) // 2
            (item,) = await self._page(mailbox, middle - 1, None, 1, due, of=_OF)
            if retention.is_past(item, now_ms):
                low = items.plain(item, "seq")
            else:
                kept, high = item, middle
        return kept

    async def _sweep(self, mailbox: str, head: Head, due: float, now_ms: int) -> None:
        """Have the first messages that are past their time get their end, if they lack it."""
        if self._retention is None or not self.ends.is_wanted:
            return
        page = await self._page(mailbox, 0, None, _SWEPT, due, of=_OF)
        past = [one for one in page if EXPIRES not in one and self._retention.is_over(items.plain(one, "ts"), now_ms)]
        self.ends.sweep(mailbox, past, head)

    async def heads(self, mailboxes: Sequence[str], due: float) -> list[Head]:
        """The same of several, in order."""
        boxes = list(dict.fromkeys(mailboxes))
        found = dict(zip(boxes, await together([self.head(box, due) for box in boxes]), strict=True))
        return [found[mailbox] for mailbox in mailboxes]

    async def walk(self, mailbox: str, after: int, due: float) -> AsyncIterator[Item]:
        """Every slot after a seq, in order and without a hole: `seq`, `ts` and `intent` of each."""
        patience = self._patience(due)
        while True:
            hole_at = 0
            async for item in self._items(mailbox, after, None, due, of=("seq", "ts", "intent", "prev")):
                seq = items.plain(item, "seq")
                if seq != after + 1 and not self._may_be_first(item):
                    hole_at = after + 1  # from there on once more
                    break
                yield item
                after = seq
            if not hole_at:
                return
            await self._pause(patience)

    async def item(self, mailbox: str, seq: int, due: float) -> Item:
        """A message that is known to be there."""
        item = await self._find(mailbox, seq, due)
        if item is None:
            raise StoreUnavailable("store_corrupt", "A message is gone.", retry_s=60)
        return item

    async def _find(self, mailbox: str, seq: int, due: float) -> Item | None:
        request = {"TableName": self._table, "Key": items.slot(mailbox, seq), "ConsistentRead": True}
        item: Item | None = (await self._driver.read("get_item", due, **request)).get("Item")
        return item

    async def read(self, starts: Sequence[Start], limit: int, due: float) -> list[Found]:
        """The first `limit` messages after the starts, merged by (timestamp, mailbox)."""
        seqs = await together([self._seq_of(start, due) for start in starts])
        step = min(limit, max(_STEP_MIN, limit // max(1, len(starts)) + 1))
        runs = [_Run(self, start.mailbox, seq, step, due) for start, seq in zip(starts, seqs, strict=True)]
        await together([run.fill() for run in runs])
        queue = [(run.place(), index, run) for index, run in enumerate(runs) if run.now]
        heapify(queue)
        merged: list[Found] = []
        while queue and len(merged) < limit:
            _, index, run = queue[0]
            merged.append(run.now.pop())
            if not run.now and len(merged) < limit:
                await run.fill()
            if run.now:
                heapreplace(queue, (run.place(), index, run))
            else:
                heappop(queue)
        return merged

    async def after(self, mailbox: str, seq: int, limit: int, due: float) -> tuple[list[Found], bool]:
        """At most `limit` messages after a seq, without a hole; and whether there may be more."""
        patience = self._patience(due)
        while True:
            page = await self._page(mailbox, seq, None, limit, due)
            if page and self._is_past(page[0]):
                gone = (await self.state(mailbox, due)).gone
                seq = max(seq + 1, gone)
                continue
            whole: list[Found] = []
            for item in page:
                if items.plain(item, "seq") != seq + 1 and not self._may_be_first(item):
                    break
                whole.append(items.found(item, mailbox))
                seq = items.plain(item, "seq")
            if whole or not page:
                return whole, len(page) == limit or len(whole) < len(page)
            await self._pause(patience)

    async def read_before(self, mailbox: str, before: int, limit: int, due: float) -> list[Found]:
        """The last `limit` messages with a seq below `before`, oldest first."""
        patience = self._patience(due)
        while True:
            page = (await self._page(mailbox, 0, before, limit, due, backwards=True))[::-1]
            kept = [item for item in page if not self._is_past(item)]
            given = [items.found(item, mailbox) for item in kept]
            first = given[0].message.seq if given else 1
            is_all = len(page) == limit or first == 1 or self._may_be_first(kept[0])
            if is_all and all(one.message.seq == first + index for index, one in enumerate(given)):
                return given
            await self._pause(patience)

    def _is_past(self, item: Item) -> bool:
        return self._retention is not None and self._retention.is_past(item, self._driver.now_ms())

    def _may_be_first(self, item: Item) -> bool:
        return self._retention is not None and self._retention.may_be_first(item, self._driver.now_ms())

    async def last_items(self, mailbox: str, up_to: int, limit: int, due: float) -> list[Item]:
        """The last `limit` messages up to a seq, oldest first, whole as they are kept."""
        page = await self._page(mailbox, 0, up_to + 1, limit, due, backwards=True)
        return page[::-1]

    async def _seq_of(self, start: Start, due: float) -> int:
        """Where a start is. By time: the last message not later, sought back from the head in growing steps."""
        if start.time is None:
            return start.seq
        mailbox, time = start.mailbox, start.time
        head = await self.state(mailbox, due)
        if head.timestamp <= time:
            return head.seq
        low, high, step = head.gone, head.seq - 1, 1  # it is in low..high
        while low == head.gone and high > low:
            probe = max(low + 1, high + 1 - step)
            if await self._time_of(mailbox, probe, due) <= time:
                low = probe
            else:
                high, step = probe - 1, step * 2
        while low < high:
            middle = (low + high + 1) // 2
            if await self._time_of(mailbox, middle, due) <= time:
                low = middle
            else:
                high = middle - 1
        return low

    async def _time_of(self, mailbox: str, seq: int, due: float) -> int:
        """When a message was sent; 0 if it expired meanwhile."""
        patience = self._patience(due)
        while True:
            item = await self._find(mailbox, seq, due)
            if item is not None:
                return items.plain(item, "ts")
            if (await self.state(mailbox, due)).gone >= seq:
                return 0
            await self._pause(patience)

    async def _page(
        self,
        mailbox: str,
        after: int,
        before: int | None,
        limit: int,
        due: float,
        *,
        backwards: bool = False,
        of: tuple[str, ...] = (),
    ) -> list[Item]:
        """The first or last `limit` messages with `after < seq < before`."""
        found: list[Item] = []
        async for item in self._items(mailbox, after, before, due, limit=limit, backwards=backwards, of=of):
            found.append(item)
        return found

    async def _items(
        self,
        mailbox: str,
        after: int,
        before: int | None,
        due: float,
        *,
        limit: int | None = None,
        backwards: bool = False,
        of: tuple[str, ...] = (),
    ) -> AsyncIterator[Item]:
        """Messages with `after < seq < before`, answer after answer (each has 1 MB at most), to the end or a limit."""
        values = {":box": items.text(items.box_of(mailbox)), ":after": items.number(after)}
        within = "#seq > :after"
        if before is not None:
            if before - 1 <= after:
                return
            within = "#seq BETWEEN :first AND :last"
            values = {":box": values[":box"], ":first": items.number(after + 1), ":last": items.number(before - 1)}
        request: dict[str, Any] = {
            "TableName": self._table,
            "ConsistentRead": True,
            "ScanIndexForward": not backwards,
            "KeyConditionExpression": f"#box = :box AND {within}",
            "ExpressionAttributeNames": _NAMES | {f"#{name}": name for name in of},
            "ExpressionAttributeValues": values,
        }
        if of:
            request["ProjectionExpression"] = ", ".join(f"#{name}" for name in of)
        while limit is None or limit > 0:
            if limit is not None:
                request["Limit"] = limit
            answer = await self._driver.read("query", due, **request)
            for item in answer["Items"]:
                yield item
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
            limit = None if limit is None else limit - len(answer["Items"])

    def _patience(self, due: float) -> float:
        return min(due, asyncio.get_running_loop().time() + _HOLE_S)

    async def _pause(self, due: float) -> None:
        """Let the put that is under way end. Raises StoreUnavailable if it does not: nothing else makes a hole."""
        if asyncio.get_running_loop().time() >= due:
            raise StoreUnavailable("store_corrupt", "A mailbox has a hole.", retry_s=60)
        await asyncio.sleep(random.uniform(_AGAIN_S / 2, _AGAIN_S))  # noqa: S311  # no secret


class _Run:
    """One mailbox of a read: what of it is at hand, last first, and how to get more."""

    def __init__(self, boxes: Mailboxes, mailbox: str, seq: int, step: int, due: float) -> None:
        self._more: Callable[[int], Awaitable[tuple[list[Found], bool]]] = lambda seq: boxes.after(
            mailbox, seq, step, due
        )
        self._seq = seq
        self._has_more = True
        self.now: list[Found] = []

    async def fill(self) -> None:
        """Have some more at hand, if there is."""
        if not self._has_more:
            return
        found, self._has_more = await self._more(self._seq)
        if found:
            self._seq = found[-1].message.seq
        self.now = found[::-1]

    def place(self) -> tuple[int, str]:
        """Where its next one stands among those of others."""
        return self.now[-1].timestamp, self.now[-1].mailbox


async def together(calls: Sequence[Awaitable[Any]]) -> list[Any]:
    """What all of them give, in order; if one fails, the others are not waited for."""
    if len(calls) == 1:
        return [await calls[0]]
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
