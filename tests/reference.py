"""A reference model of the whole API: plain lists and dictionaries, slow, sharing nothing with the server.

It says what every call must answer by sections 4 and 5 of the design. Ids, timestamps and cursors are the server's to
choose: the model is told those of each answer, and holds them to their rules. A cursor it knows as `Given`.
"""

from collections import defaultdict
from itertools import count
from typing import Any, NamedTuple

Json = dict[str, Any]
OK = (200, "")
UNKNOWN_USER = (404, "unknown_user")
UNKNOWN_GROUP = (404, "unknown_group")


class Stay(NamedTuple):
    """A membership: a number that no other has, and the group's head at joining."""

    key: int
    joined_seq: int


class Given(NamedTuple):
    """What a cursor stands for: how far its holder was given each mailbox; `sent` is None if it was never asked for."""

    own: int
    sent: int | None
    stays: dict[int, int]


class Page(NamedTuple):
    """What a read must answer; by timestamp, `given` is None."""

    messages: list[Json]
    more: bool
    given: Given | None


class Reference:
    """Users, blocks, groups, memberships and mailboxes."""

    def __init__(self) -> None:
        self.users: dict[str, str] = {}
        self.groups: dict[str, str] = {}
        self.blocks: dict[str, set[str]] = defaultdict(set)
        self.stays: dict[str, dict[str, Stay]] = defaultdict(dict)  # by user, then group
        self.mailboxes: dict[str, list[Json]] = defaultdict(list)
        self._keys = count(1)

    def block(self, user: str, other: str) -> tuple[int, str]:
        if user not in self.users or other not in self.users:
            return UNKNOWN_USER
        if other in self.blocks[user]:
            return 409, "already_blocked"
        self.blocks[user].add(other)
        return OK

    def unblock(self, user: str, other: str) -> tuple[int, str]:
        if user not in self.users or other not in self.users:
            return UNKNOWN_USER
        if other not in self.blocks[user]:
            return 409, "not_blocked"
        self.blocks[user].remove(other)
        return OK

    def add(self, group: str, user: str) -> tuple[int, str]:
        if group not in self.groups:
            return UNKNOWN_GROUP
        if user not in self.users:
            return UNKNOWN_USER
        if group in self.stays[user]:
            return 409, "already_a_member"
        self.stays[user][group] = Stay(next(self._keys), len(self.mailboxes["g" + group]))
        return OK

    def remove(self, group: str, user: str) -> tuple[int, str]:
        if group not in self.groups:
            return UNKNOWN_GROUP
        if user not in self.users:
            return UNKNOWN_USER
        if group not in self.stays[user]:
            return 409, "not_a_member_of_it"
        del self.stays[user][group]
        return OK

    def may_send(self, sender: str, recipient: str, is_group: bool) -> tuple[int, str]:
        if is_group:
            if sender not in self.users:
                return UNKNOWN_USER
            if recipient not in self.groups:
                return UNKNOWN_GROUP
            return OK if recipient in self.stays[sender] else (403, "not_a_member")
        if recipient not in self.users:
            return UNKNOWN_USER
        if sender in self.blocks[recipient]:
            return 403, "blocked"
        return OK if sender in self.users else UNKNOWN_USER

    def took(self, message: Json, is_group: bool) -> None:
        """The server says that it took a message: it must be the next one of its mailbox, and later than the last."""
        sender, recipient = message["senderId"], message["recipientId"]
        self._append(("g" if is_group else "u") + recipient, message)
        if not is_group and sender != recipient:
            mailbox = "s" + sender
            self._append(mailbox, {**message, "seq": len(self.mailboxes[mailbox]) + 1, "sent": True})

    def took_together(self, messages: list[tuple[Json, bool]]) -> None:
        """The same of several that were sent at once: the server's timestamps and seqs say in which order."""
        for message, is_group in sorted(messages, key=lambda taken: int(taken[0]["timestamp"])):
            self.took(message, is_group)

    def _append(self, mailbox: str, message: Json) -> None:
        log = self.mailboxes[mailbox]
        assert message["seq"] == len(log) + 1, f"a hole or a repeat in {mailbox}"
        assert not log or int(message["timestamp"]) > int(log[-1]["timestamp"]), f"{mailbox} does not go on in time"
        log.append(message)

    def poll(self, user: str, given: Given | None, limit: int | None, with_sent: bool) -> Page:
        """What its holder has not been given; without cursor everything, groups from their first message.

        A page without a cursor may be gone on from by timestamp, so it never ends between equal ones either.
        """
        stays = self.stays[user]
        may_split = given is not None
        if given is None:
            given = Given(0, None, {stay.key: 0 for stay in stays.values()})
        after = {"u" + user: given.own}
        after |= {"g" + group: given.stays.get(stay.key, stay.joined_seq) for group, stay in stays.items()}
        if with_sent:
            after["s" + user] = given.sent or 0
        news = _in_order(
            [(mailbox, message) for mailbox, n in after.items() for message in self.mailboxes[mailbox][n:]]
        )
        page = news[: _end(news, limit, may_split)]
        for mailbox, message in page:
            after[mailbox] = message["seq"]
        now = Given(
            after["u" + user],
            after.get("s" + user, given.sent),
            {stay.key: after["g" + group] for group, stay in stays.items()},
        )
        return Page([message for _, message in page], len(news) > len(page), now)

    def poll_since(self, user: str, timestamp: int, limit: int | None, with_sent: bool) -> Page:
        """What is later, in the groups of now, whenever joined; a page never ends between equal timestamps."""
        mailboxes = ["u" + user, *("g" + group for group in self.stays[user]), *(["s" + user] if with_sent else [])]
        news = _in_order(
            [(box, message) for box in mailboxes for message in self.mailboxes[box] if _time(message) > timestamp]
        )
        end = _end(news, limit, may_split=False)
        return Page([message for _, message in news[:end]], len(news) > end, None)

    def now(self, user: str, with_sent: bool) -> Given:
        """What `cursor=now` stands for: everything that there is was given."""
        sent = len(self.mailboxes["s" + user]) if with_sent else None
        stays = {stay.key: len(self.mailboxes["g" + group]) for group, stay in self.stays[user].items()}
        return Given(len(self.mailboxes["u" + user]), sent, stays)

    def history(self, group: str, user: str, after: int, before: int | None, limit: int) -> Page:
        """A group's messages to a member: the first after a seq, or the last before one."""
        log = self.mailboxes["g" + group]
        if before is None:
            wanted = log[after:]
            return Page(wanted[:limit], len(wanted) > limit, None)
        wanted = log[: max(before - 1, 0)]
        return Page(wanted[-limit:], len(wanted) > limit, None)

    def may_look(self, group: str, user: str) -> tuple[int, str]:
        """Whether a user may look into a group."""
        if user not in self.users:
            return UNKNOWN_USER
        if group not in self.groups:
            return UNKNOWN_GROUP
        return OK if group in self.stays[user] else (403, "not_a_member")

    def user_shown(self, user: str) -> Json:
        """What `GET /v1/users/{userId}` says."""
        groups = [self.group_shown(group, user) for group in sorted(self.stays[user])]
        return {"userId": user, "username": self.users[user], "groups": groups, "blocks": sorted(self.blocks[user])}

    def group_shown(self, group: str, user: str) -> Json:
        """What a member is told of a group."""
        joined_seq = self.stays[user][group].joined_seq
        return {"groupId": group, "groupName": self.groups[group], "joinedSeq": joined_seq}

    def members(self, group: str, after: str) -> list[Json]:
        """The members with ids above `after`, in order."""
        inside = sorted(user for user, stays in self.stays.items() if group in stays and user > after)
        return [{"userId": user, "username": self.users[user]} for user in inside]

    def times_around(self, user: str) -> list[int]:
        """Timestamps at which an answer by timestamp can change, for tests to ask around."""
        mailboxes = ["u" + user, "s" + user, *("g" + group for group in self.groups)]
        return sorted({_time(message) for mailbox in mailboxes for message in self.mailboxes[mailbox]})


def _in_order(news: list[tuple[str, Json]]) -> list[tuple[str, Json]]:
    return sorted(news, key=lambda item: (_time(item[1]), item[0]))


def _time(message: Json) -> int:
    return int(message["timestamp"])


def _end(news: list[tuple[str, Json]], limit: int | None, may_split: bool) -> int:
    """Where a page ends: after `limit` messages, or after the last of equal timestamps."""
    end = len(news) if limit is None else min(limit, len(news))
    while not may_split and 0 < end < len(news) and _time(news[end][1]) == _time(news[end - 1][1]):
        end += 1
    return end
