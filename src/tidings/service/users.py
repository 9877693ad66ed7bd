"""Users: signing up, blocking, and what a user is told of themselves."""

from tidings.model import GroupJoined, Key, User, UserShown, mint
from tidings.service.node import Node


class Users:
    """What can be done with users."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def create(self, username: str, key: Key | None) -> User:
        """A new user; names need not be unique."""
        return await self._node.told(await self._node.store.create_user(User(mint("user"), username), key))

    async def block(self, user_id: str, other_id: str, key: Key | None) -> None:
        """From its answer on, no private send from `other_id` to `user_id` is accepted. Raises Unknown, Conflict."""
        await self._node.told(await self._node.store.block(user_id, other_id, key))

    async def unblock(self, user_id: str, other_id: str, key: Key | None) -> None:
        """Take a block back. Raises Unknown, Conflict."""
        await self._node.told(await self._node.store.unblock(user_id, other_id, key))

    async def show(self, user_id: str) -> UserShown:
        """A user with groups and blocks of now. Raises Unknown."""
        async with self._node.in_time():
            sight = await self._node.sight()
            profile = (await sight.entry(user_id)).profile
            blocks = await self._node.store.blocks(user_id)
        groups = [GroupJoined(m.group_id, m.group_name, m.joined_seq) for m in profile.memberships]
        return UserShown(user_id, profile.user.username, groups, blocks)
