"""An export becomes tables: put as it is, without conditions, while no node can be served from them.

The store says which import fills it, and up to which line of the file everything is there. Killed at any moment, the
same file goes on behind that line; what is put twice is the same. In the end all of it is read back and compared with
the file, the clock's floor is raised above it, and only then is there a history that nodes can serve.
"""

import asyncio
import random
import secrets
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tidings.errors import StoreUnavailable, UpkeepError
from tidings.model import Message as Posting
from tidings.model import Posted, sent
from tidings.store.dynamodb import items
from tidings.store.dynamodb.address import Address, address_of
from tidings.store.dynamodb.closing import find_state
from tidings.store.dynamodb.driver import Driver, Item, Unmet
from tidings.store.dynamodb.dump import KEPT_MS, RUN, scan, told
from tidings.store.dynamodb.gate import CLOSED, IMPORTED, IMPORTING, TOLD
from tidings.store.dynamodb.mailboxes import together
from tidings.store.dynamodb.outside import LONG_S, at
from tidings.store.dynamodb.tables import EXPIRES, directory_of, messages_of
from tidings.store.moving.file import Export, Progress
from tidings.store.moving.lines import (
    Answer,
    End,
    Entry,
    Group,
    Intent,
    Left,
    Message,
    Run,
    Tally,
    Trimmed,
    User,
    difference,
    packed,
)
from tidings.store.sqlite.sorting import Sorting

TEXT_MAX_BYTES = 350_000  # an item has 400 KB
_TOGETHER = 25  # items in one BatchWriteItem: the most that it takes
_WAVE = 16 * _TOGETHER  # items on their way at a time; then it is noted how far it is
_PAUSE_S, _PAUSE_MAX_S = 0.05, 2.0  # before what was not taken is put again

Placed = tuple[str, Item]  # a table's name, and what to put there


def load(url: str, export: Export, on_progress: Progress) -> tuple[End, bool]:
    """Make the tables what the export has; gives what was counted there, and whether it was so already."""
    for number, line in export.lines(on_bytes=lambda done: on_progress("looked over", done, export.size)):
        _check(export, number, line)
    return asyncio.run(_load(address_of(url), export, on_progress))


def _check(export: Export, number: int, line: Entry) -> None:
    """Raises UpkeepError, before anything is put, for what the tables can't hold."""
    texts = [line.message] if isinstance(line, Message) else []
    if any(len(text.encode()) > TEXT_MAX_BYTES for text in texts):
        raise UpkeepError(f"{export.path}, line {number}: DynamoDB takes no message above {TEXT_MAX_BYTES:,} bytes")
    ids = [line.user_id, *line.blocks, *(m.group_id for m in line.groups)] if isinstance(line, User) else []
    if not all(items.is_possible(an_id) for an_id in ids):
        raise UpkeepError(f"{export.path}, line {number}: DynamoDB takes no id above {items.ID_MAX_BYTES} bytes")
    if isinstance(line, Trimmed):
        what = "a mailbox whose first messages are kept no more, which a store on DynamoDB can't have as yet"
        raise UpkeepError(f"{export.path}, line {number}: {what}")


async def _load(address: Address, export: Export, on_progress: Progress) -> tuple[End, bool]:
    async with at(address) as driver:
        state = await find_state(driver, address)
        if IMPORTED in state and state[IMPORTED]["S"] == export.head.export and IMPORTING not in state:
            return export.end, True
        filling = _Filling(driver, address, export)
        await filling.fill(await filling.begin(state), on_progress)
        end = await filling.count(on_progress)
        other = difference(export.end, end)
        if other:
            await filling.note(0)
            raise UpkeepError(f"the tables do not have what {export.path} has ({other}): import it again")
        await filling.finish()
    return end, False


class _Filling:
    """One try of an import; a later one takes it over, and then this one puts nothing more."""

    def __init__(self, driver: Driver, address: Address, export: Export) -> None:
        self._driver = driver
        self._address = address
        self._export = export
        self._session = secrets.token_hex(8)
        self._directory = directory_of(address.prefix).name
        self._messages = messages_of(address.prefix).name

    async def begin(self, state: Item) -> int:
        """Take the tables, if they are empty or this import's; gives the line up to which they are filled."""
        name = self._export.head.export
        if CLOSED in state:
            raise UpkeepError(f"{self._address.prefix} is closed: it was exported; take other tables")
        if IMPORTING not in state:
            await self._check_empty()
            condition = "attribute_not_exists(#importing)"
        elif state[IMPORTING]["S"] == name:
            condition = "#importing = :export"
        else:
            raise UpkeepError(
                f"{self._address.prefix} is being filled from another file: import that one, or take other tables"
            )
        change = {
            "UpdateExpression": "SET #importing = :export, #session = :mine, #filled = if_not_exists(#filled, :none)",
            "ConditionExpression": condition,
            "ExpressionAttributeNames": {"#importing": IMPORTING, "#session": "session", "#filled": "filled"},
            "ExpressionAttributeValues": {
                ":export": items.text(name),
                ":mine": items.text(self._session),
                ":none": items.number(0),
            },
        }
        return items.plain((await self._update(change))["Attributes"], "filled")

    async def _check_empty(self) -> None:
        for table, ours in ((self._directory, "store"), (self._messages, "")):
            request: dict[str, Any] = {"TableName": table, "ConsistentRead": True, "Limit": 100}
            while True:
                answer = await self._driver.read("scan", self._due(), **request)
                if any(item.get("pk", {"S": None})["S"] != (ours or 0) for item in answer["Items"]):
                    raise UpkeepError(f"{table} is not empty: an import needs tables of its own")
                if "LastEvaluatedKey" not in answer:
                    break
                request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def fill(self, after: int, on_progress: Progress) -> None:
        """Put everything behind a line of the file."""
        waiting: list[Placed] = []
        size, number = self._export.size, after
        for number, line in self._export.lines(after, lambda done: on_progress("put", done, size)):
            waiting += self._placed(line)
            if len(waiting) >= _WAVE:
                await self._put(waiting)
                await self.note(number)
                waiting = []
        await self._put(waiting)
        await self.note(number)

    def _placed(self, line: Entry) -> list[Placed]:
        if isinstance(line, Message):
            return self._message(line)
        return [(self._directory, item) for item in _entry(line)]

    def _message(self, line: Message) -> list[Placed]:
        said = Posting(line.sender_id, line.message, line.mailbox[1:], str(line.timestamp), line.message_id, line.seq)
        posted = Posted(0, line.mailbox, said, line.sent_seq)
        key = line.key
        placed = [(self._messages, items.message_item(posted, bytes.fromhex(key.name) if key else None))]
        if line.sent_seq:
            placed.append((self._messages, items.copy_item(posted, sent(line.sender_id))))
        if key:  # every slot behind its base is looked at: the message's own is the first
            placed.append((self._directory, _key(key, line.timestamp, base=items.number(line.seq - 1))))
        return placed

    async def _put(self, waiting: Sequence[Placed]) -> None:
        batches = [waiting[at_ : at_ + _TOGETHER] for at_ in range(0, len(waiting), _TOGETHER)]
        for first in range(0, len(batches), _WAVE // _TOGETHER):
            await together([self._put_batch(batch) for batch in batches[first : first + _WAVE // _TOGETHER]])

    async def _put_batch(self, batch: Sequence[Placed]) -> None:
        """Put some, and again those that the server did not take, until it does."""
        due, pause_s = self._due(), _PAUSE_S
        left: dict[str, list[Any]] = {}
        for table, item in batch:
            left.setdefault(table, []).append({"PutRequest": {"Item": item}})
        while True:
            left = (await self._driver.write("batch_write_item", due, RequestItems=left)).get("UnprocessedItems") or {}
            if not left:
                return
            if asyncio.get_running_loop().time() >= due:
                raise StoreUnavailable("store_unavailable", "The store is overloaded.", retry_s=2)
            await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311  # no secret
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)

    async def note(self, number: int) -> None:
        """Everything up to this line is there. Raises UpkeepError if another try has taken over."""
        await self._ours("SET #filled = :filled", {"#filled": "filled"}, {":filled": items.number(number)})

    async def count(self, on_progress: Progress) -> End:
        """Read all of it back."""
        with tempfile.TemporaryDirectory(prefix="tidings-import-") as directory:
            sorting = Sorting(Path(directory) / "sorting")
            try:
                await scan(self._driver, self._address, sorting, lambda count: on_progress("items compared", count, 0))
                tally, clock = Tally(), self._export.end.clock
                for line in told(sorting, clock):
                    tally.add(line, packed(line))
                return tally.end(clock)
            finally:
                sorting.close()

    async def finish(self) -> None:
        """Raise the clock's floor, and let there be a history, all of which was told before it came here."""
        floor: dict[str, Any] = {
            "Key": items.own_key("floor"),
            "UpdateExpression": "SET #value = :to",
            "ConditionExpression": "attribute_not_exists(#value) OR #value < :to",
            "ExpressionAttributeNames": {"#value": "value"},
            "ExpressionAttributeValues": {":to": items.number(self._export.end.clock + 1)},
        }
        with suppress(Unmet):  # it is higher
            await self._driver.write("update_item", self._due(), TableName=self._directory, **floor)
        names = {"#value": "value", "#imported": IMPORTED, "#told": TOLD, "#importing": IMPORTING, "#filled": "filled"}
        values = {
            ":value": items.number(self._export.head.generation),
            ":export": items.text(self._export.head.export),
            ":clock": items.number(self._export.end.clock),
        }
        change = "SET #value = :value, #imported = :export, #told = :clock REMOVE #importing, #session, #filled"
        await self._ours(change, names, values)

    async def _ours(self, change: str, names: dict[str, str], values: Item) -> None:
        """Change the store's word of itself, if it is still ours."""
        request = {
            "UpdateExpression": change,
            "ConditionExpression": "#session = :session",
            "ExpressionAttributeNames": {"#session": "session", **names},
            "ExpressionAttributeValues": {":session": items.text(self._session), **values},
        }
        await self._update(request)

    async def _update(self, change: dict[str, Any]) -> dict[str, Any]:
        request = {
            "TableName": self._directory,
            "Key": items.own_key("generation"),
            "ReturnValues": "ALL_NEW",
            **change,
        }
        try:
            return await self._driver.write("update_item", self._due(), **request)
        except Unmet as unmet:
            raise UpkeepError(
                f"another import into {self._address.prefix} has begun; this one puts nothing more"
            ) from unmet

    def _due(self) -> float:
        return asyncio.get_running_loop().time() + LONG_S


def _entry(line: Entry) -> list[Item]:
    """What a line stands for in the directory's table."""
    match line:
        case Run():
            key = items.own_key(f"{RUN}{line.number:09}")
            return [
                {**key, "id": items.number(line.id), "first": items.number(line.first), "last": items.number(line.last)}
            ]
        case Group():
            item = {**items.group_key(line.group_id), "title": items.text(line.group_name)}
            return [{**item, "members": items.number(line.members)}]
        case User():
            return _user(line)
        case Left():
            left = {"left": items.number(line.left)}
            return [{**_stay(line.user_id, line.group_id, line.group_name, line.key, line.joined_seq), **left}]
        case Answer():
            return [_key(line, line.timestamp, answer=items.text(line.answer))]
        case _:
            raise AssertionError("it is of the other table, or was refused")


def _user(line: User) -> list[Item]:
    counts = {"blocks": items.number(len(line.blocks)), "groups": items.number(len(line.groups))}
    profile = {**items.user_key(line.user_id), "title": items.text(line.username), **counts}
    blocks = [items.user_key(line.user_id, items.BLOCK + other) for other in line.blocks]
    stays = [
        {
            **_stay(line.user_id, stay.group_id, stay.group_name, stay.key, stay.joined_seq),
            "member_of": items.text(stay.group_id),
            "username": items.text(line.username),
        }
        for stay in line.groups
    ]
    return [profile, *blocks, *stays]


def _stay(user_id: str, group_id: str, group_name: str, key: int, joined: int) -> Item:
    numbers = {"stay": items.number(key), "joined": items.number(joined)}
    return {**items.user_key(user_id, items.GROUP + group_id), "title": items.text(group_name), **numbers}


def _key(key: Intent | Answer, at_ms: int, **more: Item) -> Item:
    expires = {EXPIRES: items.number((at_ms + KEPT_MS) // 1000 + 1), "ts": items.number(at_ms)}
    return {**items.key_key(bytes.fromhex(key.name)), "content": {"B": bytes.fromhex(key.content)}, **expires, **more}
