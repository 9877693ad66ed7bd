"""Groups: making them, letting people in and out, and what members may look at."""

from tidings.errors import Refused, unknown_group
from tidings.model import Group, GroupJoined, Key, Membership, Message, Start, User, mint, room
from tidings.service.node import Node


class Groups:
    """What can be done with groups; whoever asks is looked up first, and may see what their membership shows."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def create(self, group_name: str, key: Key | None) -> Group:
        """A new group without members."""
        return await self._node.told(await self._node.store.create_group(Group(mint("group"), group_name), key))

    async def add(self, group_id: str, user_id: str, key: Key | None) -> None:
        """Let a user in. Raises Unknown (group, then user), Conflict."""
        await self._node.told(await self._node.store.add_member(group_id, user_id, key))

    async def remove(self, group_id: str, user_id: str, key: Key | None) -> None:
        """From its answer on, no read by this user returns the group's messages. Raises Unknown, Conflict."""
        await self._node.told(await self._node.store.remove_member(group_id, user_id, key))

    async def show(self, group_id: str, asker_id: str) -> GroupJoined:
        """A group as a member sees it. Raises Unknown, Refused."""
        async with self._node.in_time():
            membership = await self._membership(group_id, asker_id)
        return GroupJoined(group_id, membership.group_name, membership.joined_seq)

    async def members(self, group_id: str, asker_id: str, after: str, limit: int) -> tuple[list[User], bool]:
        """Members with ids above `after`, in order, and whether there are more. Raises Unknown, Refused."""
        async with self._node.in_time():
            await self._membership(group_id, asker_id)
            found = await self._node.store.members(group_id, after, limit + 1)
        return found[:limit], len(found) > limit

    async def history(
        self, group_id: str, asker_id: str, after: int | None, before: int | None, limit: int
    ) -> tuple[list[Message], bool]:
        """Messages by seq, oldest first: the first after `after`, or the last before `before`; and if there are more.

        Raises Unknown, Refused.
        """
        store, mailbox = self._node.store, room(group_id)
        async with self._node.in_time():
            await self._node.sight()
            until = self._node.tail.position  # nothing that comes after the look at the membership
            await self._membership(group_id, asker_id)
            if before is None:
                found = await store.read([Start(mailbox, after or 0)], limit + 1, until)
            else:
                found = await store.read_before(mailbox, before, limit + 1, until)
        wanted = found[:limit] if before is None else found[-limit:]
        return [item.message for item in wanted], len(found) > limit

    async def _membership(self, group_id: str, asker_id: str) -> Membership:
        sight = await self._node.sight()
        membership = (await sight.entry(asker_id)).membership(group_id)
        if membership is None:
            if await self._node.store.find_group(group_id) is None:
                raise unknown_group(group_id)
            raise Refused("not_a_member", "Only members look into a group.")
        return membership
