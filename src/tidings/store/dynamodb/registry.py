"""The table of the directory, looked over: blocks, memberships, counts, keys. letters.py says what `anew` is for."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from tidings.model import room
from tidings.store.dynamodb import items
from tidings.store.dynamodb.driver import Item
from tidings.store.dynamodb.faults import Fault
from tidings.store.dynamodb.looking import Looking
from tidings.store.dynamodb.tables import EXPIRES

_STAY = {"stay": "N", "joined": "N", "title": "S"}
_KEY = {"content": "B", EXPIRES: "N"}
_STORE = ("generation", "floor", "retention")
_RUN = {"id": "N", "first": "N", "last": "N"}


class Registry:
    """What is known while the table is gone through: the ties of the user whose partition is being met."""

    def __init__(self, looking: Looking) -> None:
        self._looking = looking
        self._of = ""  # a partition
        self._blocks = self._stays = 0
        self.rows = {"users": 0, "groups": 0, "memberships": 0, "blocks": 0, "keys": 0}

    async def look(self, page: Sequence[Item], *, anew: bool = False) -> list[Fault]:
        """What is wrong with some items; `anew`: with these alone, as they are now."""
        faults = [Fault("malformed", item, _worded(item)) for item in page if not _is_ours(item)]
        sound = [item for item in page if _is_ours(item)]
        profiles = (
            self._met(sound) if not anew else [(item, await self._ties(item)) for item in sound if _is_user(item)]
        )
        parts = await asyncio.gather(
            self._people(sound, anew),
            self._joined([item for item in sound if items.membership(item) is not None]),
            self._members([item for item in sound if _is_group(item)]),
            self._answers([item for item in sound if "answer" in item], anew),
        )
        faults += [fault for part in parts for fault in part]
        for item, (blocks, stays) in profiles:
            for name, count in (("blocks", blocks), ("groups", stays)):
                if items.plain(item, name) != count:
                    example = f"{_worded(item)} counts {items.plain(item, name)} {name}, has {count}"
                    faults.append(Fault("counts", item, example))
        return faults

    def _met(self, page: Sequence[Item]) -> list[tuple[Item, tuple[int, int]]]:
        """Count rows; and each profile with the ties met before it, which in a partition's order are all of them."""
        profiles: list[tuple[Item, tuple[int, int]]] = []
        for item in page:
            partition, sort = items.place(item)
            if partition != self._of:
                self._of, self._blocks, self._stays = partition, 0, 0
            if _is_user(item):
                self.rows["users"] += 1
                profiles.append((item, (self._blocks, self._stays)))
            elif _is_group(item):
                self.rows["groups"] += 1
            elif sort.startswith(items.BLOCK):
                self.rows["blocks"] += 1
                self._blocks += 1
            elif items.membership(item) is not None:
                self.rows["memberships"] += 1
                self._stays += 1
            elif partition.startswith("k#"):
                self.rows["keys"] += 1
        return profiles

    async def _ties(self, profile: Item) -> tuple[int, int]:
        return await self._looking.ties(profile["pk"]["S"])

    async def _people(self, page: Sequence[Item], anew: bool) -> list[Fault]:
        """Both ends of a block or a stay, ended or not, are there."""
        ties = [(item, tie) for item in page if (tie := _tie(item)) is not None]
        strangers = await self._looking.strangers([key for _, tie in ties for key in tie], anew=anew)
        return [
            Fault("block of nobody" if _is_block(item) else "membership of nobody", item, _worded(item))
            for item, tie in ties
            if strangers & {key["pk"]["S"] for key in tie}
        ]

    async def _joined(self, stays: Sequence[Item]) -> list[Fault]:
        """Nobody joined behind the head of the group."""
        groups = sorted({item["member_of"]["S"] for item in stays})
        heads = dict(zip(groups, await asyncio.gather(*map(self._head, groups)), strict=True))
        return [
            Fault("joined", item, f"{_worded(item)} from seq {item['joined']['N']}")
            for item in stays
            if not 0 <= items.plain(item, "joined") <= heads[item["member_of"]["S"]]
        ]

    async def _head(self, group_id: str) -> int:
        return await self._looking.head(items.box_of(room(group_id)))

    async def _members(self, groups: Sequence[Item]) -> list[Fault]:
        """A group counts as many members as its index has."""
        counts = await asyncio.gather(*(self._looking.members(item["pk"]["S"][2:]) for item in groups))
        return [
            Fault("counts", item, f"{_worded(item)} counts {items.plain(item, 'members')} members, has {count}")
            for item, count in zip(groups, counts, strict=True)
            if items.plain(item, "members") != count
        ]

    async def _answers(self, keys: Sequence[Item], anew: bool) -> list[Fault]:
        """Whom a key says that it made is there."""
        made = [(item, key) for item in keys if (key := _made(item)) is not None]
        strangers = await self._looking.strangers([key for _, key in made], anew=anew)
        return [
            Fault("key to nowhere", item, f"{_worded(item)} made {key['pk']['S'][2:]}")
            for item, key in made
            if key["pk"]["S"] in strangers
        ]


def _is_ours(item: Item) -> bool:
    """Whether there is such an item, and it has what it must have, each of its type."""
    partition, sort = items.place(item)
    kind = partition[:2]
    if partition == "store":
        return _has(item, _RUN) if sort.startswith("run#") else sort in _STORE and _has(item, {"value": "N"})
    if kind == "k#":
        has_one = ("base" in item) != ("answer" in item)
        return sort == "key" and has_one and _has(item, _KEY) and (_made(item, strict=True) is not False)
    if sort == items.PROFILE and kind in ("u#", "g#"):
        counts = [item.get(name, {"N": "0"}) for name in ("blocks", "groups", "members")]
        return _has(item, {"title": "S"}) and all("N" in count for count in counts)
    if kind != "u#":
        return False
    if sort.startswith(items.GROUP):
        group_id = sort.removeprefix(items.GROUP)
        return _has(item, _STAY) and item.get("member_of", items.text(group_id)) == items.text(group_id)
    return sort.startswith(items.BLOCK)


def _has(item: Item, must: dict[str, str]) -> bool:
    return all(kind in item.get(name, {}) for name, kind in must.items())


def _is_user(item: Item) -> bool:
    return items.place(item)[1] == items.PROFILE and item["pk"]["S"].startswith("u#")


def _is_group(item: Item) -> bool:
    return items.place(item)[1] == items.PROFILE and item["pk"]["S"].startswith("g#")


def _is_block(item: Item) -> bool:
    return items.place(item)[1].startswith(items.BLOCK)


def _tie(item: Item) -> tuple[Item, Item] | None:
    """The profiles' keys of both ends of a block or a stay."""
    partition, sort = items.place(item)
    if _is_block(item):
        return items.user_key(partition[2:]), items.user_key(sort.removeprefix(items.BLOCK))
    if sort.startswith(items.GROUP):
        return items.user_key(partition[2:]), items.group_key(sort.removeprefix(items.GROUP))
    return None


def _made(item: Item, *, strict: bool = False) -> Any:
    """The profile's key of whom a key's call made, if it made anybody; `strict`: False if it can't be read."""
    if "answer" not in item:
        return None
    try:
        answer = msgspec.json.decode(item["answer"]["S"])
    except (msgspec.DecodeError, KeyError):
        return False if strict else None
    made = answer if isinstance(answer, dict) else {}
    if "userId" in made:
        return items.user_key(str(made["userId"]))
    return items.group_key(str(made["groupId"])) if "groupId" in made else None


def _worded(item: Item) -> str:
    """An item in words: what it is of, by ids."""
    partition, sort = items.place(item)
    if partition.startswith("k#"):
        return f"key {partition[2:]}"
    if _is_block(item):
        return f"{partition[2:]} blocks {sort.removeprefix(items.BLOCK)}"
    if sort.startswith(items.GROUP):
        return f"{partition[2:]} in {sort.removeprefix(items.GROUP)}"
    return f"{partition} {sort}"
