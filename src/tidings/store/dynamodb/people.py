"""Users, groups, blocks and memberships, as read: always consistently, but for the list of a group's members.

That there is a user or group, and its name, is remembered: neither ever changes. Nothing else is.
"""

from collections.abc import Sequence
from typing import Any

from tidings.cache import Cache
from tidings.errors import Refused, TidingsError, unknown_group, unknown_user
from tidings.model import Draft, Group, Profile, User
from tidings.store.dynamodb import items
from tidings.store.dynamodb.driver import Driver, Item
from tidings.store.dynamodb.mailboxes import together
from tidings.store.dynamodb.tables import MEMBERS

_KNOWN_MAX = 200_000  # users and groups remembered, 0.3 KB each
_KEYS_MAX = 100  # in one BatchGetItem

_Place = tuple[str, str]


class People:
    """Reads of the directory's table; `due` is a time of the loop."""

    def __init__(self, driver: Driver, table: str) -> None:
        self._driver = driver
        self._table = table
        self._names: Cache[str] = Cache(_KNOWN_MAX)  # by partition

    def note(self, partition: str, name: str) -> None:
        """Remember that a user or group is there."""
        self._names.put(partition, name)

    async def names(self, keys: Sequence[Item], due: float) -> list[str | None]:
        """The names of users or groups, by the keys of their profiles; None for one that is not there."""
        unknown = [key for key in keys if self._names.use(key["pk"]["S"]) is None]
        items_ = await self._get(unknown, due)
        for place, item in items_.items():
            self.note(place[0], item["title"]["S"])
        return [self._names.use(key["pk"]["S"]) for key in keys]

    async def refusals(self, drafts: Sequence[Draft], due: float) -> list[TidingsError | None]:
        """Why each may not be sent, in the API's order; None if it may."""
        wanted: dict[_Place, Item] = {}
        for draft in drafts:
            for key in (_recipient(draft), items.user_key(draft.sender_id)):
                if self._names.use(key["pk"]["S"]) is None:
                    wanted[items.place(key)] = key
            tie = _tie(draft)
            wanted[items.place(tie)] = tie
        known = await self._get(list(wanted.values()), due)
        for (partition, sort), item in known.items():
            if sort == items.PROFILE:
                self.note(partition, item["title"]["S"])
        return [self._refusal(draft, known.get(items.place(_tie(draft)))) for draft in drafts]

    def _refusal(self, draft: Draft, tie: Item | None) -> TidingsError | None:
        has_recipient = self._names.use(_recipient(draft)["pk"]["S"]) is not None
        has_sender = self._names.use(items.user_key(draft.sender_id)["pk"]["S"]) is not None
        if draft.is_group:
            if not has_sender:
                return unknown_user(draft.sender_id)
            if not has_recipient:
                return unknown_group(draft.recipient_id)
            is_member = tie is not None and items.membership(tie) is not None
            return None if is_member else Refused("not_a_member", "Only members write to a group.")
        if not has_recipient:
            return unknown_user(draft.recipient_id)
        if tie is not None:
            return Refused("blocked", "The receiver does not take messages from this sender.")
        return None if has_sender else unknown_user(draft.sender_id)

    async def profile(self, user_id: str, due: float) -> Profile | None:
        """A user with the memberships of now, in the order of group ids."""
        if not items.is_possible(user_id):
            return None
        found = await self._all(
            "#sk >= :from", {":pk": items.text(f"u#{user_id}"), ":from": items.text(items.GROUP)}, due
        )
        name = next((item["title"]["S"] for item in found if item["sk"]["S"] == items.PROFILE), None)
        if name is None:
            return None
        stays = [items.membership(item) for item in found if item["sk"]["S"] != items.PROFILE]
        return Profile(User(user_id, name), tuple(stay for stay in stays if stay is not None))

    async def group(self, group_id: str, due: float) -> Group | None:
        """A group."""
        (name,) = await self.names([items.group_key(group_id)], due)
        return None if name is None else Group(group_id, name)

    async def blocks(self, user_id: str, due: float) -> list[str]:
        """The ids that a user blocks, in order."""
        if not items.is_possible(user_id):
            return []
        values = {":pk": items.text(f"u#{user_id}"), ":from": items.text(items.BLOCK)}
        found = await self._all("begins_with(#sk, :from)", values, due)
        return [item["sk"]["S"].removeprefix(items.BLOCK) for item in found]

    async def members(self, group_id: str, after: str, limit: int, due: float) -> list[User]:
        """Members in order of ids, by the index, which lags behind joins and removals by a moment."""
        if not items.is_possible(group_id) or not items.is_possible(after):
            return []
        request: dict[str, Any] = {
            "TableName": self._table,
            "IndexName": MEMBERS,
            "KeyConditionExpression": "#in = :in AND #pk > :after",
            "ExpressionAttributeNames": {"#in": "member_of", "#pk": "pk"},
            "ExpressionAttributeValues": {":in": items.text(group_id), ":after": items.text(f"u#{after}")},
        }
        found: list[Item] = []
        while len(found) < limit:
            answer = await self._driver.read("query", due, **request, Limit=limit - len(found))
            found += answer["Items"]
            if "LastEvaluatedKey" not in answer:
                break
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
        return [User(item["pk"]["S"].removeprefix("u#"), item["username"]["S"]) for item in found]

    async def find(self, key: Item, due: float) -> Item | None:
        """An item of the directory."""
        request = {"TableName": self._table, "Key": key, "ConsistentRead": True}
        return (await self._driver.read("get_item", due, **request)).get("Item")

    async def _all(self, range_: str, values: Item, due: float) -> list[Item]:
        request: dict[str, Any] = {
            "TableName": self._table,
            "ConsistentRead": True,
            "KeyConditionExpression": f"#pk = :pk AND {range_}",
            "ExpressionAttributeNames": {"#pk": "pk", "#sk": "sk"},
            "ExpressionAttributeValues": values,
        }
        found: list[Item] = []
        while True:
            answer = await self._driver.read("query", due, **request)
            found += answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return found
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def _get(self, keys: Sequence[Item], due: float) -> dict[_Place, Item]:
        """Items by their places; what is not there is left out."""
        places = {items.place(key): key for key in keys}  # once each: asked for twice, they are refused
        possible = [key for place, key in places.items() if all(items.is_possible(part) for part in place)]
        parts = [possible[at : at + _KEYS_MAX] for at in range(0, len(possible), _KEYS_MAX)]
        found: dict[_Place, Item] = {}
        for part in await together([self._get_some(part, due) for part in parts]):
            found.update(part)
        return found

    async def _get_some(self, keys: Sequence[Item], due: float) -> dict[_Place, Item]:
        if len(keys) == 1:
            item = await self.find(keys[0], due)
            return {} if item is None else {items.place(item): item}
        found: dict[_Place, Item] = {}
        left: dict[str, Any] = {self._table: {"Keys": list(keys), "ConsistentRead": True}}
        while left:
            answer = await self._driver.read("batch_get_item", due, RequestItems=left)
            found.update((items.place(item), item) for item in answer["Responses"].get(self._table, ()))
            left = answer.get("UnprocessedKeys", {})
        return found


def _recipient(draft: Draft) -> Item:
    return (items.group_key if draft.is_group else items.user_key)(draft.recipient_id)


def _tie(draft: Draft) -> Item:
    """What decides: the sender's membership, or the receiver's block."""
    if draft.is_group:
        return items.user_key(draft.sender_id, items.GROUP + draft.recipient_id)
    return items.user_key(draft.recipient_id, items.BLOCK + draft.sender_id)
