"""What the tables hold, as the lines of an export: scanned once, put in order on disk, judged, told.

A scan is of no single moment, so the store is closed first. It is read with consistent reads in a few segments at a
time; killed at any moment, the same export goes on where it was. Only here, where an import looks at its work, and in
doctor is there a Scan.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec

from tidings.config import Settings
from tidings.errors import UpkeepError
from tidings.store.dynamodb import items
from tidings.store.dynamodb.address import Address, address_of
from tidings.store.dynamodb.closing import close_for, find_state
from tidings.store.dynamodb.driver import Driver, Item
from tidings.store.dynamodb.gate import CLOSED, CLOSING_S
from tidings.store.dynamodb.mailboxes import together
from tidings.store.dynamodb.outside import LONG_S, at
from tidings.store.dynamodb.retention import find_retention
from tidings.store.dynamodb.tables import EXPIRES, directory_of, tables
from tidings.store.moving.file import Progress
from tidings.store.moving.lines import (
    FORMAT,
    KEYS_MS,
    VERSION,
    Answer,
    Entry,
    Group,
    Head,
    Intent,
    Left,
    Message,
    Run,
    Stay,
    User,
)
from tidings.store.sqlite.sorting import Sorting

RUN = "run#"
KEPT_MS = int(Settings.news_kept_s * 1000)  # how long before it expires a key was put, where it does not say so itself
_SEGMENTS = 4
_END = "end"
_SETTLED = "settled"

_pack, _unpack = msgspec.msgpack.encode, msgspec.msgpack.Decoder(dict[str, Any]).decode


class TablesSource:
    """The tables of a closed store. See `tidings.store.moving.Source`; what is read is kept in `sorting`."""

    def __init__(self, address: Address, state: Item, sorting: Sorting, on_progress: Progress) -> None:
        self._address = address
        self._sorting = sorting
        self._on_progress = on_progress
        self.head = Head(
            format=FORMAT,
            version=VERSION,
            export=state[CLOSED]["S"] if CLOSED in state else "",
            generation=items.plain(state, "value"),
            closed=True,
            feeds=True,
        )

    @property
    def clock(self) -> int:
        """The last timestamp of all that was read."""
        return int(self._sorting.note("clock") or 0)

    def lines(self) -> Iterator[Entry]:
        """All of it, once everything was read."""
        asyncio.run(self._read())
        return told(self._sorting, self.clock)

    async def _read(self) -> None:
        async with at(self._address) as driver:
            if self._sorting.note(_SETTLED) is None:
                self._on_progress(f"waiting {CLOSING_S:.0f} s, until every node has noticed", 0, 0)
                await asyncio.sleep(CLOSING_S)
                self._sorting.save((), {_SETTLED: "1"})
            await scan(driver, self._address, self._sorting, lambda count: self._on_progress("items read", count, 0))


@contextmanager
def tables_of(url: str, part: Path, close: bool, on_progress: Progress) -> Iterator[TablesSource]:
    """A store's tables, closed; what is sorted lies beside `part` until all of it is done. Raises UpkeepError."""
    address = address_of(url)
    state = asyncio.run(_closed(address, close))
    path = part.with_name(part.name + ".sorting")
    sorting = Sorting(path)
    which = f"{state[CLOSED]['S']} {url}"
    if sorting.note("which") != which:
        sorting.remove()
        sorting = Sorting(path)
        sorting.save((), {"which": which})
    try:
        yield TablesSource(address, state, sorting, on_progress)
    except UpkeepError:  # what was read does not fit together: the next try reads it anew
        sorting.remove()
        raise
    except BaseException:
        sorting.close()
        raise
    sorting.remove()


async def _closed(address: Address, close: bool) -> Item:
    async with at(address) as driver:
        if await find_retention(driver, directory_of(address.prefix).name) is not None:
            raise UpkeepError("a store that keeps messages for some days only can't be exported as yet")
        state = await close_for(driver, address) if close else await find_state(driver, address)
    if CLOSED not in state:
        raise UpkeepError("a store on many nodes can be exported only while it takes no writes: --close sees to that")
    return state


async def scan(driver: Driver, address: Address, sorting: Sorting, on_count: Callable[[int], None]) -> None:
    """Read both tables from where it was left, each segment to its end."""
    counts: dict[str, int] = {}

    def count(name: str, more: int) -> None:
        counts[name] = counts.get(name, 0) + more
        on_count(sum(counts.values()))

    for table in tables(address.prefix):
        await together(
            [_scan_segment(driver, table.name, tuple(table.keys), n, sorting, count) for n in range(_SEGMENTS)]
        )


async def _scan_segment(
    driver: Driver, table: str, keys: tuple[str, ...], segment: int, sorting: Sorting, count: Callable[[str, int], None]
) -> None:
    name = f"{table} {segment}"
    place = sorting.note(name)
    request: dict[str, Any] = {"TableName": table, "ConsistentRead": True}
    request |= {"Segment": segment, "TotalSegments": _SEGMENTS}
    while place != _END:
        if place is not None:
            request["ExclusiveStartKey"] = msgspec.json.decode(place)
        due = asyncio.get_running_loop().time() + LONG_S
        answer = await driver.read("scan", due, **request)
        found: list[Item] = answer["Items"]
        last = answer.get("LastEvaluatedKey")
        place = _END if last is None else msgspec.json.encode(last).decode()
        times = [items.plain(item, "ts") for item in found]
        clock = max([int(sorting.note("clock") or 0), *times])
        sorting.save((_sorted(item, keys) for item in found), {name: place, "clock": str(clock)})
        count(table, len(found))


def _sorted(item: Item, keys: tuple[str, ...]) -> tuple[str, int | str, bytes]:
    """Where an item stands: `d` and the partition of the directory's, `m` and that of the messages'."""
    if keys[0] == "pk":
        return f"d{item['pk']['S']}", item["sk"]["S"], _pack(item)
    return f"m{item['box']['S']}", items.plain(item, "seq"), _pack(item)


def told(sorting: Sorting, clock: int) -> Iterator[Entry]:
    """What was sorted, as lines. Raises UpkeepError where it does not fit together."""
    for _, place, thing in sorting.things("dstore"):
        if place.startswith(RUN):
            item = _unpack(thing)
            number = int(place.removeprefix(RUN))
            yield Run(number, items.plain(item, "id"), items.plain(item, "first"), items.plain(item, "last"))
    for box, place, thing in sorting.things("dg#"):
        if place == items.PROFILE:
            item = _unpack(thing)
            yield Group(box[3:], item["title"]["S"], items.plain(item, "members"))
    for box, rows in groupby(sorting.things("du#"), itemgetter(0)):
        yield from _user(box[3:], {place: _unpack(thing) for _, place, thing in rows})
    for box, rows in groupby(sorting.things("du#"), itemgetter(0)):
        yield from _left(box[3:], rows)
    for box, _, thing in sorting.things("dk#"):
        item = _unpack(thing)
        at_ms = _time_of(item)
        if "answer" in item and at_ms > clock - KEYS_MS:
            yield Answer(box[3:], item["content"]["B"].hex(), item["answer"]["S"], at_ms)
    yield from _messages(sorting, clock)


def _user(user_id: str, found: dict[str, Item]) -> Iterator[User]:
    profile = found.get(items.PROFILE)
    if profile is None:
        return
    blocks = [place.removeprefix(items.BLOCK) for place in found if place.startswith(items.BLOCK)]
    stays = [items.membership(item) for place, item in found.items() if place.startswith(items.GROUP)]
    groups = [Stay(m.group_id, m.group_name, m.key, m.joined_seq) for m in stays if m is not None]
    yield User(user_id, profile["title"]["S"], blocks, groups)


def _left(user_id: str, rows: Iterator[tuple[str, Any, bytes]]) -> Iterator[Left]:
    for _, place, thing in rows:
        if place.startswith(items.GROUP):
            item = _unpack(thing)
            if items.membership(item) is None:
                group_id, key, joined = (
                    place.removeprefix(items.GROUP),
                    items.plain(item, "stay"),
                    items.plain(item, "joined"),
                )
                yield Left(user_id, group_id, item["title"]["S"], key, joined, items.plain(item, "left"))


def _messages(sorting: Sorting, clock: int) -> Iterator[Message]:
    """Mailbox by mailbox. Each has no hole, and the copies are those that messages name: or it was still written to."""
    named = 0
    for mark in ("mg#", "mu#"):
        for item, mailbox in _whole(sorting, mark):
            posted = items.posted(item, mailbox)
            message, at_ms = posted.message, int(posted.message.timestamp)
            key = _intent(sorting, item) if "intent" in item and at_ms > clock - KEYS_MS else None
            if posted.sent_seq:
                named += _digest(f"{message.sender_id} {posted.sent_seq} {message.message_id}")
            place = (mailbox, message.seq, message.sender_id, at_ms, message.message_id, message.message)
            yield Message(*place, posted.sent_seq, key)
    there = sum(
        _digest(f"{box[1:]} {items.plain(item, 'seq')} {item['id']['S']}") for item, box in _whole(sorting, "ms#")
    )
    if named != there:
        raise UpkeepError(
            "the copies of messages are not those that their messages name: a node still wrote; export again"
        )


def _whole(sorting: Sorting, mark: str) -> Iterator[tuple[Item, str]]:
    """All messages of mailboxes of a kind, and their mailboxes. Raises UpkeepError at a hole."""
    for box, rows in groupby(sorting.things(mark), itemgetter(0)):
        mailbox, before = _mailbox(box), 0
        for _, seq, thing in rows:
            item = _unpack(thing)
            if seq != before + 1:
                raise UpkeepError(
                    f"the mailbox {mailbox} has a hole at seq {before + 1}: a node still wrote; export again"
                )
            before = seq
            yield item, mailbox


def _intent(sorting: Sorting, item: Item) -> Intent | None:
    name: bytes = item["intent"]["B"]
    thing = sorting.find(f"dk#{name.hex()}", "key")
    return None if thing is None else Intent(name.hex(), _unpack(thing)["content"]["B"].hex())


def _time_of(item: Item) -> int:
    """When a key was put, in Unix ms."""
    return items.plain(item, "ts") or items.plain(item, EXPIRES) * 1000 - KEPT_MS


def _mailbox(box: str) -> str:
    return box[1] + box[3:]


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "big")
