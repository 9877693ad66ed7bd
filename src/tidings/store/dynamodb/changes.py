"""What is written, but for messages (sends.py): conditional writes, each with all of its parts in one transaction.

Nothing is read to be written back. How many blocks, groups and members there are is counted in the same transaction,
so that the limits are exact. The conditions say what a change meets; of several unmet ones the first is told.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import uuid4

import msgspec

from tidings.errors import Conflict, Internal, TidingsError, unknown_group, unknown_user
from tidings.model import Altered, Batch, Change, Group, Key, User, Written, room
from tidings.store.dynamodb import items
from tidings.store.dynamodb.driver import Check, Driver, Item, Unmet
from tidings.store.dynamodb.keys import Keys, reused
from tidings.store.dynamodb.mailboxes import Mailboxes, together
from tidings.store.dynamodb.people import People

T = TypeVar("T")

_NEW = "attribute_not_exists(#pk)"


class Limits(msgspec.Struct, frozen=True):
    """How many of a thing there may be."""

    groups_per_user: int
    blocks_per_user: int
    members_per_group: int


class Changes:
    """Writes to the directory's table; `due` is a time of the loop."""

    def __init__(
        self, driver: Driver, table: str, people: People, boxes: Mailboxes, keys: Keys, limits: Limits
    ) -> None:
        self._driver = driver
        self._table = table
        self._people = people
        self._boxes = boxes
        self._keys = keys
        self._limits = limits

    async def create_user(self, user: User, key: Key | None, due: float) -> Written[User]:
        """Add a user; ids are ours and random, so there is nothing to check."""
        item = {**items.user_key(user.user_id), "title": items.text(user.username)}
        writes = [self._put(item, _NEW, "pk")]
        return await self._write(user, User, lambda made: [Altered(0, made.user_id)], writes, _taken, key, due)

    async def create_group(self, group: Group, key: Key | None, due: float) -> Written[Group]:
        """Add a group without members."""
        item = {**items.group_key(group.group_id), "title": items.text(group.group_name)}
        return await self._write(group, Group, lambda _: [], [self._put(item, _NEW, "pk")], _taken, key, due)

    async def block(self, user_id: str, other_id: str, key: Key | None, due: float) -> Written[None]:
        """Add a block, unless there is one or the user has too many."""
        await self._need_users(user_id, other_id, due)
        most = self._limits.blocks_per_user
        writes = [
            self._put(items.user_key(user_id, items.BLOCK + other_id), _NEW, "pk"),
            self._count(items.user_key(user_id), "blocks", 1, most),
        ]

        def refusal(checks: Sequence[Check]) -> TidingsError:
            if not checks[0].is_met:
                return Conflict("already_blocked", "That user is blocked already.")
            return Conflict("too_many_blocks", f"A user can block {most} others.")

        return await self._write(None, type(None), _altering(user_id), writes, refusal, key, due)

    async def unblock(self, user_id: str, other_id: str, key: Key | None, due: float) -> Written[None]:
        """Take a block back."""
        await self._need_users(user_id, other_id, due)
        gone = {
            "Key": items.user_key(user_id, items.BLOCK + other_id),
            "ConditionExpression": "attribute_exists(#pk)",
            "ExpressionAttributeNames": {"#pk": "pk"},
        }
        writes = [{"Delete": self._told(gone)}, self._count(items.user_key(user_id), "blocks", -1, None)]
        return await self._write(
            None,
            type(None),
            _altering(user_id),
            writes,
            lambda _: Conflict("not_blocked", "That user is not blocked."),
            key,
            due,
        )

    async def add_member(self, group_id: str, user_id: str, key: Key | None, due: float) -> Written[None]:
        """Let a user in under a new membership key, which a cursor names instead of the group."""
        (group, user), head = await together(
            [self._need_both(group_id, user_id, due), self._boxes.head(room(group_id), due)]
        )
        item = {
            **items.user_key(user_id, items.GROUP + group_id),
            "member_of": items.text(group_id),
            "title": items.text(group),
            "username": items.text(user),
            "stay": items.number(_random_64()),
            "joined": items.number(head.seq),
        }
        limits = self._limits
        writes = [
            self._put(item, "attribute_not_exists(#member_of)", "member_of"),
            self._count(items.user_key(user_id), "groups", 1, limits.groups_per_user),
            self._count(items.group_key(group_id), "members", 1, limits.members_per_group),
        ]

        def refusal(checks: Sequence[Check]) -> TidingsError:
            if not checks[0].is_met:
                return Conflict("already_a_member", "That user is a member already.")
            if not checks[1].is_met:
                return Conflict("too_many_groups", f"A user can be in {limits.groups_per_user} groups.")
            return Conflict("group_full", f"A group can have {limits.members_per_group} members.")

        return await self._write(None, type(None), _altering(user_id), writes, refusal, key, due)

    async def remove_member(self, group_id: str, user_id: str, key: Key | None, due: float) -> Written[None]:
        """Put a user out; the stay is kept, as one that has ended, until a later joining takes its place."""
        await self._need_both(group_id, user_id, due)
        end = {
            "Key": items.user_key(user_id, items.GROUP + group_id),
            "UpdateExpression": "SET #left = :left, #op = :op REMOVE #member_of",
            "ConditionExpression": "attribute_exists(#member_of)",
            "ExpressionAttributeNames": {"#member_of": "member_of", "#left": "left", "#op": "op"},
            "ExpressionAttributeValues": {":left": items.number(time.time_ns() // 1_000_000)},
        }
        writes = [
            {"Update": self._told(end)},
            self._count(items.user_key(user_id), "groups", -1, None),
            self._count(items.group_key(group_id), "members", -1, None),
        ]
        return await self._write(
            None,
            type(None),
            _altering(user_id),
            writes,
            lambda _: Conflict("not_a_member_of_it", "That user is not a member."),
            key,
            due,
        )

    async def _need_users(self, user_id: str, other_id: str, due: float) -> None:
        """Raises Unknown, the first of them named."""
        names = await self._people.names([items.user_key(user_id), items.user_key(other_id)], due)
        for an_id, name in zip((user_id, other_id), names, strict=True):
            if name is None:
                raise unknown_user(an_id)

    async def _need_both(self, group_id: str, user_id: str, due: float) -> tuple[str, str]:
        """The names of a group and a user. Raises Unknown, the group first."""
        group, user = await self._people.names([items.group_key(group_id), items.user_key(user_id)], due)
        if group is None:
            raise unknown_group(group_id)
        if user is None:
            raise unknown_user(user_id)
        return group, user

    async def _write(
        self,
        value: T,
        kind: type[T],
        news: Callable[[T], Sequence[Change]],
        writes: list[dict[str, Any]],
        refusal: Callable[[Sequence[Check]], TidingsError],
        key: Key | None,
        due: float,
    ) -> Written[T]:
        """All writes or none. A repeat of its key gives the first answer, and the news again: it may be untold."""
        op = items.text(uuid4().hex)
        for write in writes:
            if "Put" in write:
                write["Put"]["Item"]["op"] = op
            elif "#op" in write.get("Update", {}).get("ExpressionAttributeNames", ()):
                write["Update"]["ExpressionAttributeValues"][":op"] = op
        if key is not None:
            answer = items.text(msgspec.json.encode(value).decode())
            writes = [*writes, {"Put": self._keys.put(key, answer=answer, op=op)}]
        try:
            await self._commit(writes, op["S"], due)
        except Unmet as unmet:
            if not any(check.found is not None and check.found.get("op") == op for check in unmet.checks):
                value = self._outcome(unmet.checks, kind, refusal, key)  # else it was done, and its answer was lost
        return Written(value, Batch(0, 0, tuple(news(value))))

    async def _commit(self, writes: list[dict[str, Any]], token: str, due: float) -> None:
        if len(writes) == 1 and "Put" in writes[0]:
            await self._driver.write("put_item", due, **writes[0]["Put"])
        else:
            await self._driver.write("transact_write_items", due, TransactItems=writes, ClientRequestToken=token)

    def _outcome(
        self,
        checks: Sequence[Check],
        kind: type[T],
        refusal: Callable[[Sequence[Check]], TidingsError],
        key: Key | None,
    ) -> T:
        """What a key that was used gave then, or why the change may not be."""
        if key is None or checks[-1].is_met:
            raise refusal(checks)
        found = checks[-1].found or {}
        if "answer" not in found or found["content"]["B"] != key.content:
            raise reused()
        return msgspec.json.decode(found["answer"]["S"], type=kind)

    def _put(self, item: Item, condition: str, name: str) -> dict[str, Any]:
        request = {
            "Item": item,
            "ConditionExpression": condition,
            "ExpressionAttributeNames": {f"#{name}": name},
        }
        return {"Put": self._told(request)}

    def _count(self, key: Item, name: str, more: int, most: int | None) -> dict[str, Any]:
        """Count one more or less of a thing, if there are not `most` of them."""
        request: dict[str, Any] = {
            "Key": key,
            "UpdateExpression": "ADD #name :more",
            "ExpressionAttributeNames": {"#name": name},
            "ExpressionAttributeValues": {":more": items.number(more)},
        }
        if most is not None:
            request["ConditionExpression"] = "attribute_not_exists(#name) OR #name < :most"
            request["ExpressionAttributeValues"][":most"] = items.number(most)
        return {"Update": self._told(request)}

    def _told(self, request: dict[str, Any]) -> dict[str, Any]:
        """The request for this table; what is in its way is told."""
        more = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"} if "ConditionExpression" in request else {}
        return {"TableName": self._table, **request, **more}


def _altering(user_id: str) -> Callable[[object], Sequence[Change]]:
    return lambda _: [Altered(0, user_id)]


def _taken(_: Sequence[Check]) -> TidingsError:
    return Internal("internal", "The server failed.")  # an id of ours was minted twice


def _random_64() -> int:
    return random.getrandbits(64) - (1 << 63)
