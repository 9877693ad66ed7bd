"""The client: one method for each call."""

import secrets
from collections.abc import AsyncIterator
from functools import partial
from types import TracebackType
from typing import Generic, Literal, Self, TypeVar

import msgspec

from tidings.client.best import Best
from tidings.client.following import Calls, Following, Save, Tell
from tidings.client.pages import History, Page
from tidings.client.transports import Transport
from tidings.client.transports.poll import Polling
from tidings.client.transports.sse import event_streams
from tidings.client.transports.websocket import web_sockets
from tidings.client.wire import Retries, Wire
from tidings.model import Group, GroupJoined, Message, User, UserShown

T = TypeVar("T")
Way = Literal["auto", "websocket", "sse", "poll"]

URL = "http://127.0.0.1:8080"  # where `tidings serve` listens unless told otherwise
CONNECTIONS_MAX = 500  # a long-poll holds one; half of the 1,024 files that a process may usually open
PAGE = 100  # messages or members in one answer


class _Messages(msgspec.Struct):
    messages: tuple[Message, ...] | None
    cursor: str | None = None
    more: bool = False
    expired: bool = False


class _Members(msgspec.Struct):
    members: tuple[User, ...]
    more: bool = False


class _Done(msgspec.Struct):
    pass


class _Reader(Generic[T]):
    """A type's decoder, made once."""

    def __init__(self, kind: type[T]) -> None:
        self.json = msgspec.json.Decoder(kind)


_user, _group, _message = _Reader(User).json, _Reader(Group).json, _Reader(Message).json
_user_shown, _group_joined = _Reader(UserShown).json, _Reader(GroupJoined).json
_messages, _members, _done = _Reader(_Messages).json, _Reader(_Members).json, _Reader(_Done).json


class Client:
    """A Tidings server, as an async context manager; one task or many may call it.

    A call is tried again, within the bounds of `retries`, when there was no answer or one that says that this may
    help. A change carries an idempotency key, the same at each attempt, so it takes effect once; give a `key` of
    your own to go on with it after the method has given up, or in another process. Raises TidingsError
    (`code`, `detail`, `status`): what the server refused, Unreachable, or NotUnderstood.
    """

    def __init__(
        self, url: str = URL, *, retries: Retries | None = None, connections_max: int = CONNECTIONS_MAX
    ) -> None:
        self._wire = Wire(url, retries or Retries(), connections_max)

    async def __aenter__(self) -> Self:
        self._wire.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections, as leaving `async with` does."""
        await self._wire.close()

    async def create_user(self, username: str, *, key: str | None = None) -> User:
        """Sign a user up; names are not unique."""
        return await self._wire.post(_user, "users", "create", body={"username": username}, key=key or _new_key())

    async def user(self, user_id: str) -> UserShown:
        """A user, the groups they are in, and the ids they block."""
        return await self._wire.get(_user_shown, "users", user_id)

    async def block(self, user_id: str, other_id: str, *, key: str | None = None) -> None:
        """From now on, refuse the other's private messages to the user."""
        body = {"blockedUserId": other_id}
        await self._wire.post(_done, "users", user_id, op="block", body=body, key=key or _new_key())

    async def unblock(self, user_id: str, other_id: str, *, key: str | None = None) -> None:
        """Take a block back."""
        body = {"blockedUserId": other_id}
        await self._wire.post(_done, "users", user_id, op="unblock", body=body, key=key or _new_key())

    async def create_group(self, group_name: str, *, key: str | None = None) -> Group:
        """Make a group; it starts empty."""
        return await self._wire.post(_group, "groups", "create", body={"groupName": group_name}, key=key or _new_key())

    async def add_member(self, group_id: str, user_id: str, *, key: str | None = None) -> None:
        """Let a user into a group."""
        body = {"userId": user_id}
        await self._wire.post(_done, "groups", group_id, op="add", body=body, key=key or _new_key())

    async def remove_member(self, group_id: str, user_id: str, *, key: str | None = None) -> None:
        """From now on, the user reads none of the group's messages, old or new."""
        body = {"userId": user_id}
        await self._wire.post(_done, "groups", group_id, op="remove", body=body, key=key or _new_key())

    async def group(self, group_id: str, user_id: str) -> GroupJoined:
        """A group as the user, one of its members, sees it."""
        return await self._wire.get(_group_joined, "groups", group_id, userId=user_id)

    async def members(self, group_id: str, user_id: str) -> AsyncIterator[User]:
        """A group's members in the order of their ids, page by page; the user is one of them."""
        after, more = "", True
        while more:
            page = await self._wire.get(_members, "groups", group_id, "members", userId=user_id, after=after)
            for member in page.members:
                yield member
            more = page.more and bool(page.members)
            after = page.members[-1].user_id if page.members else after

    async def send(self, sender_id: str, receiver_id: str, message: str, *, key: str | None = None) -> Message:
        """Send a private message; once this returns, it is on the server's disk."""
        body = {"senderId": sender_id, "receiverId": receiver_id, "message": message}
        return await self._wire.post(_message, "messages", "send", type="private", body=body, key=key or _new_key())

    async def send_to_group(self, sender_id: str, group_id: str, message: str, *, key: str | None = None) -> Message:
        """Send to everybody in a group; once this returns, it is on the server's disk."""
        body = {"senderId": sender_id, "groupId": group_id, "message": message}
        return await self._wire.post(_message, "messages", "send", type="group", body=body, key=key or _new_key())

    async def read(
        self,
        user_id: str,
        *,
        cursor: str | None = None,
        timestamp: int | str | None = None,
        limit: int = PAGE,
        wait_s: float = 0.0,
        with_sent: bool = False,
    ) -> Page:
        """One page: of everything, of what the cursor's holder was not given, or of what is later (Unix ms).

        Waits up to `wait_s` seconds for news if there is none. `cursor="now"` gives a cursor and no messages.
        """
        found = await self._wire.get(
            _messages,
            "messages",
            user_id,
            cursor=cursor,
            timestamp=timestamp,
            limit=limit,
            wait=wait_s or None,
            sent="include" if with_sent else None,
            wait_s=wait_s,
        )
        return Page(found.messages or (), found.cursor, found.more, found.expired)

    async def history(
        self, group_id: str, user_id: str, *, after: int | None = None, before: int | None = None, limit: int = PAGE
    ) -> History:
        """A page of a group's messages by seq: the first after `after`, or the last before `before`."""
        found = await self._wire.get(
            _messages, "groups", group_id, "messages", userId=user_id, after=after, before=before, limit=limit
        )
        return History(found.messages or (), found.more)

    def follow(
        self,
        user_id: str,
        cursor: str | None = None,
        *,
        save: Save | None = None,
        tell: Tell | None = None,
        with_sent: bool = False,
        wait_s: float = 30.0,
        limit: int = PAGE,
        give_up_s: float | None = None,
        transport: Way = "auto",
    ) -> Following:
        """All messages meant for the user, each once, for ever: `async for message in tidings.follow(bob): ...`.

        From everything, or from after the `cursor`; `"now"` for only what is new. `save` is given each cursor, after
        all messages before it were handled. Faults of server and network are outlasted, unless there was no answer
        for `give_up_s` seconds; `tell` is told of each. They come by `transport`: "websocket", "sse", "poll", or
        ("auto") the best of these that can be had. What else is raised, and when, Following says.
        """
        looks = Polling(self, user_id, with_sent=with_sent, limit=limit, wait_s=0.0)
        polls = Polling(self, user_id, with_sent=with_sent, limit=limit, wait_s=wait_s)
        ways: dict[str, Transport] = {
            "websocket": web_sockets(self._wire, user_id, with_sent=with_sent, limit=limit),
            "sse": event_streams(self._wire, user_id, with_sent=with_sent, limit=limit),
            "poll": polls,
        }
        if transport not in ("auto", *ways):
            raise ValueError(f"there is no transport {transport!r}, only auto, {', '.join(ways)}")
        chosen = [*ways.values()] if transport == "auto" else [ways[transport]]
        news = Best(chosen, first=polls if transport == "poll" else looks)
        calls = Calls(partial(self.user, user_id), looks)
        return Following(calls, news, user_id, cursor, save=save, tell=tell, give_up_s=give_up_s)


def _new_key() -> str:
    return secrets.token_urlsafe(16)
