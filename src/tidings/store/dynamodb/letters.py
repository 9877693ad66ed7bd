"""The table of messages, looked over: each item against the one before it, its copy, its people, its key.

What is read may be half of a write under way, or older than what it is held against. So whoever calls looks at what is
found once more (`anew`), each item read again; what is wrong then as well is a fault.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from tidings.store.dynamodb import items
from tidings.store.dynamodb.driver import Item
from tidings.store.dynamodb.faults import Fault
from tidings.store.dynamodb.looking import Looking, Place, place
from tidings.store.dynamodb.retention import Retention
from tidings.store.dynamodb.tables import EXPIRES

_KEYS_KEPT_MS = 86_400_000  # what is promised; they are kept for longer
_MUST: dict[str, Mapping[str, str]] = {
    "u": {"ts": "N", "id": "S", "body": "S", "by": "S"},
    "g": {"ts": "N", "id": "S", "body": "S", "by": "S"},
    "s": {"ts": "N", "id": "S", "body": "S", "recipient": "S", "at": "N"},
}
_MAY: Mapping[str, str] = {"copied": "N", "intent": "B", "prev": "N", EXPIRES: "N"}
_KEPT: Mapping[str, str] = {"head": "N", "ts": "N"}  # slot 0


class Letters:
    """What is known while the table is gone through: the last item, the highest timestamp."""

    def __init__(self, looking: Looking, retention: Callable[[], Retention | None], now_ms: Callable[[], int]) -> None:
        self._looking = looking
        self._find_retention = retention
        self._find_now_ms = now_ms
        self._last: Item | None = None
        self.highest: Item | None = None  # the item with the highest timestamp
        self.rows = {"messages": 0, "copies": 0}

    @property
    def _retention(self) -> Retention | None:
        return self._find_retention()

    @property
    def _now_ms(self) -> int:
        return self._find_now_ms()

    async def look(self, page: Sequence[Item], *, anew: bool = False) -> list[Fault]:
        """What is wrong with some items, in the order of a scan; `anew`: with these alone, as they are now."""
        faults = [Fault("malformed", item, worded(item)) for item in page if not _is_ours(item)]
        sound = [item for item in page if _is_ours(item) and _number(item, "seq")]
        if not anew:
            self._count(sound)
        before = await self._before(sound, None if anew else self._last)
        if sound and not anew:
            self._last = sound[-1]
        for part in await asyncio.gather(
            self._along(sound, before),
            self._ends(sound),
            self._pairs(sound),
            self._people(sound, anew),
            self._keys(sound),
        ):
            faults += part
        return faults

    def _count(self, page: Sequence[Item]) -> None:
        for item in page:
            self.rows["copies" if _kind(item) == "s" else "messages"] += 1
            if self.highest is None or _number(item, "ts") > _number(self.highest, "ts"):
                self.highest = {name: item[name] for name in ("box", "seq", "ts")}

    async def _before(self, page: Sequence[Item], last: Item | None) -> dict[Place, Item]:
        """What is before each item in its mailbox, by its place; mostly that is the one met before it."""
        at_hand = {place(item): item for item in page}
        if last is not None:
            at_hand[place(last)] = last
        wanted = [_slot(item, _number(item, "seq") - 1) for item in page if _number(item, "seq") > 1]
        missing = [slot for slot in wanted if place(slot) not in at_hand]
        return at_hand | await self._looking.find(self._looking.messages.name, missing)

    async def _along(self, page: Sequence[Item], at_hand: Mapping[Place, Item]) -> list[Fault]:
        """Seqs are 1, 2, 3, ... without a hole, and timestamps rise along them."""
        faults: list[Fault] = []
        for item in page:
            seq = _number(item, "seq")
            if seq == 1:
                continue
            before = at_hand.get(place(_slot(item, seq - 1)))
            if before is None:
                if self._retention is not None and self._retention.may_be_first(item, self._now_ms):
                    continue  # it has expired
                faults += [fault async for fault in self._hole(item, seq)]
            elif _is_ours(before) and _number(before, "ts") >= _number(item, "ts"):
                example = f"{worded(item)}: {item['ts']['N']} after {before['ts']['N']}"
                faults.append(Fault("timestamps", item, example))
        return faults

    async def _hole(self, item: Item, seq: int) -> AsyncIterator[Fault]:
        last = 0
        async for before in self._looking.slots(item["box"]["S"], 0, seq, last=True):
            last = _number(before, "seq")
        if last < seq - 1:
            which = f"seq {last + 1}" if last == seq - 2 else f"seq {last + 1} to {seq - 1}"
            yield Fault("hole", item, f"{_mailbox(item)}: {which}", seq - 1 - last)

    async def _ends(self, page: Sequence[Item]) -> list[Fault]:
        """What has an end has another behind it, or its number is kept."""
        at_hand = {place(item) for item in page}
        alone = [
            item for item in page if EXPIRES in item and place(_slot(item, _number(item, "seq") + 1)) not in at_hand
        ]
        heads = await asyncio.gather(*(self._looking.head(item["box"]["S"]) for item in alone))
        lasts = [item for item, head in zip(alone, heads, strict=True) if head == _number(item, "seq")]
        kept = await self._looking.find(self._looking.messages.name, [_slot(item, 0) for item in lasts])
        return [
            Fault("end", item, worded(item))
            for item in lasts
            if items.plain(kept.get(place(_slot(item, 0))), "head") < _number(item, "seq")
        ]

    def _is_past(self, item: Item) -> bool:
        return self._retention is not None and self._retention.is_past(item, self._now_ms)

    async def _pairs(self, page: Sequence[Item]) -> list[Fault]:
        """A message with a copy, and the copy, name each other, and are alike."""
        others = {place(item): _other(item) for item in page if _kind(item) == "s" or "copied" in item}
        found = await self._looking.find(self._looking.messages.name, [slot for slot in others.values() if slot])
        faults: list[Fault] = []
        for item in page:
            if place(item) not in others:
                continue
            slot = others[place(item)]
            other = None if slot is None else found.get(place(slot))
            if slot is not None and other is None and self._is_past(item):
                continue  # one of the two has expired, and the other will
            what = "" if slot is None else _mismatch(item, other)
            if slot is None or what:
                faults.append(Fault("copies", item, f"{worded(item)}: {what or 'should not be there'}"))
        return faults

    async def _people(self, page: Sequence[Item], anew: bool) -> list[Fault]:
        """Who wrote, and to whom or where, is in the directory."""
        people = {place(item): _people(item) for item in page}
        wanted = [key for keys in people.values() for key in keys]
        strangers = await self._looking.strangers(wanted, anew=anew)
        return [
            Fault("message of nobody", item, f"{worded(item)}: {', '.join(sorted(name[2:] for name in lacking))}")
            for item in page
            if (lacking := strangers & {key["pk"]["S"] for key in people[place(item)]})
        ]

    async def _keys(self, page: Sequence[Item]) -> list[Fault]:
        """The key of a message is there while it counts, would find the message, and finds no other."""
        keyed = [item for item in page if "intent" in item]
        keys = await self._looking.find(self._looking.directory.name, [items.key_key(_name(item)) for item in keyed])
        faults: list[Fault] = []
        for item in keyed:
            key = keys.get(items.place(items.key_key(_name(item))))
            base = -1 if key is None else items.plain(key, "base", -1)
            if key is None:
                if _number(item, "ts") > self._now_ms - _KEYS_KEPT_MS:
                    faults.append(Fault("key to nowhere", item, f"{worded(item)}: its key is gone before its time"))
            elif not 0 <= base < _number(item, "seq"):
                faults.append(Fault("key to nowhere", item, f"{worded(item)}: its key looks for it elsewhere"))
            else:
                faults += [fault async for fault in self._twins(item, base)]
        return faults

    async def _twins(self, item: Item, base: int) -> AsyncIterator[Fault]:
        async for other in self._looking.slots(item["box"]["S"], base, _number(item, "seq")):
            if "intent" in other and _name(other) == _name(item):
                yield Fault("sent twice", item, f"{_mailbox(item)}: seq {_number(other, 'seq')} and {item['seq']['N']}")


def _is_ours(item: Item) -> bool:
    kind = _kind(item)
    must, may = _MUST.get(kind, {}), {name: one for name, one in _MAY.items() if name in item}
    if not must or item["box"]["S"][1:2] != "#" or _number(item, "seq") < 0:
        return False
    if not _number(item, "seq"):
        must, may = _KEPT, {}
    return all(one in item.get(name, {}) for name, one in {**must, **may}.items())


def _kind(item: Item) -> str:
    kind: str = item["box"]["S"][:1]
    return kind


def _number(item: Item, name: str) -> int:
    value = item[name]["N"]
    return int(value) if value.lstrip("-").isdigit() else -1  # somebody may have put a fraction there


def _name(item: Item) -> bytes:
    name: bytes = item["intent"]["B"]
    return name


def _slot(item: Item, seq: int) -> Item:
    return {"box": item["box"], "seq": items.number(seq)}


def _owner(item: Item) -> str:
    owner: str = item["box"]["S"][2:]
    return owner


def _other(item: Item) -> Item | None:
    """Where the copy of a message is, or the message of a copy; None if there should be none."""
    if _kind(item) == "s":
        mailbox, seq = f"u#{item['recipient']['S']}", item["at"]
        return None if item["recipient"]["S"] == _owner(item) else {"box": items.text(mailbox), "seq": seq}
    if _kind(item) == "g" or item["by"]["S"] == _owner(item):
        return None
    return {"box": items.text(f"s#{item['by']['S']}"), "seq": item["copied"]}


def _mismatch(item: Item, other: Item | None) -> str:
    """How a message and its copy do not fit; empty if they do."""
    names = ("its message", "its copy") if _kind(item) == "s" else ("its copy", "its message")
    if other is None:
        return f"{names[0]} is not there"
    back = ("copied", item["seq"]) if _kind(item) == "s" else ("at", item["seq"])
    alike = all(other.get(name) == item[name] for name in ("id", "ts", "body"))
    return "" if alike and other.get(back[0]) == back[1] else f"{names[0]} is another"


def _people(item: Item) -> tuple[Item, Item]:
    """The profiles' keys of who wrote, and of whose it is."""
    kind, owner = _kind(item), _owner(item)
    if kind == "s":
        return items.user_key(owner), items.user_key(item["recipient"]["S"])
    return items.user_key(item["by"]["S"]), (items.group_key if kind == "g" else items.user_key)(owner)


def _mailbox(item: Item) -> str:
    return f"the {'copies' if _kind(item) == 's' else 'mailbox'} of {_owner(item)}"


def worded(item: Item) -> str:
    """A place in the table, in words."""
    return f"{_mailbox(item)}, seq {item['seq']['N']}"
