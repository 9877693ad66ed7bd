"""The directory and the news, as read: each function sees one snapshot, in a transaction that its caller opened."""

from typing import Any

import apsw

from tidings.errors import Forgotten
from tidings.model import Altered, Batch, Change, Group, Membership, Message, Posted, Profile, User

_NEWS = "SELECT position, timestamp, mailbox, seq, sender, sent_seq, id, text FROM messages"
_RUN_EXTRA = 500  # a commit's most: writer.BATCH_MAX


def profile(db: apsw.Connection, user_id: str) -> Profile | None:
    """A user with the memberships of now, in the order of group ids."""
    name = db.execute("SELECT name FROM users WHERE id = ?", (user_id,)).get
    if name is None:
        return None
    rows = db.execute(
        "SELECT group_id, name, key, joined_seq FROM memberships JOIN groups ON groups.id = group_id"
        " WHERE user_id = ? ORDER BY group_id",
        (user_id,),
    )
    return Profile(User(user_id, name), tuple(Membership(*row) for row in rows))


def group(db: apsw.Connection, group_id: str) -> Group | None:
    """A group."""
    name = db.execute("SELECT name FROM groups WHERE id = ?", (group_id,)).get
    return None if name is None else Group(group_id, name)


def blocks(db: apsw.Connection, user_id: str) -> list[str]:
    """The ids that a user blocks, in order."""
    rows = db.execute("SELECT other_id FROM blocks WHERE user_id = ? ORDER BY other_id", (user_id,))
    return [other_id for (other_id,) in rows]


def members(db: apsw.Connection, group_id: str, after: str, limit: int) -> list[User]:
    """At most `limit` members with ids above `after`, in order of ids."""
    rows = db.execute(
        "SELECT user_id, name FROM memberships JOIN users ON users.id = user_id"
        " WHERE group_id = ? AND user_id > ? ORDER BY user_id LIMIT ?",
        (group_id, after, limit),
    )
    return [User(*row) for row in rows]


def posted(db: apsw.Connection, position: int) -> Posted:
    """The message at a position, as news."""
    row = db.execute(f"{_NEWS} WHERE position = ?", (position,)).get
    return _news(row)[1]


def changes(db: apsw.Connection, after: int, limit: int) -> Batch:
    """The news after a position, whole commits; a commit's changes are those with its timestamp. Raises Forgotten."""
    last, forgotten = db.execute("SELECT position, forgotten FROM clock").get
    if after < forgotten:
        raise Forgotten
    most = limit + _RUN_EXTRA
    messages = db.execute(f"{_NEWS} WHERE position > ? ORDER BY position LIMIT ?", (after, most))
    altered = db.execute(
        "SELECT position, timestamp, user_id FROM alterations WHERE position > ? ORDER BY position LIMIT ?",
        (after, most),
    )
    news: list[tuple[int, Change]] = [_news(row) for row in messages]
    news += [(timestamp, Altered(position, user_id)) for position, timestamp, user_id in altered]
    news.sort(key=lambda item: item[1].position)
    if len(news) <= limit:
        return Batch(after, last, tuple(change for _, change in news))
    end = limit
    while end < len(news) and news[end][0] == news[end - 1][0]:
        end += 1
    return Batch(after, news[end - 1][1].position, tuple(change for _, change in news[:end]))


def _news(row: Any) -> tuple[int, Posted]:
    position, timestamp, mailbox, seq, sender, sent_seq, message_id, text = row
    message = Message(sender, text, mailbox[1:], str(timestamp), message_id, seq)
    return timestamp, Posted(position, mailbox, message, sent_seq or 0)


def recent(db: apsw.Connection, oldest: int, limit: int) -> int:
    """A position after which lie at most `limit` changes, all with timestamps of at least `oldest`."""
    last, forgotten = db.execute("SELECT position, forgotten FROM clock").get
    low, high = max(forgotten, last - limit), last
    while low < high:
        middle = (low + high) // 2
        if _time_after(db, middle) < oldest:
            low = middle + 1
        else:
            high = middle
    return _commit_end(db, low)


def _time_after(db: apsw.Connection, position: int) -> int:
    """The timestamp of the first change after a position."""
    query = "SELECT position, timestamp FROM {table} WHERE position > ? ORDER BY position LIMIT 1"
    firsts = [db.execute(query.format(table=table), (position,)).get for table in ("messages", "alterations")]
    return int(min(first for first in firsts if first)[1])


def _commit_end(db: apsw.Connection, position: int) -> int:
    """The end of the commit that a position is in."""
    query = (
        "SELECT max(position) FROM {table} WHERE position <= ?1 + ?2"
        " AND timestamp = (SELECT timestamp FROM messages WHERE position = ?1"
        " UNION ALL SELECT timestamp FROM alterations WHERE position = ?1)"
    )
    ends = [
        db.execute(query.format(table=table) + " AND position >= ?1", (position, _RUN_EXTRA)).get
        for table in ("messages", "alterations")
    ]
    return max(position, *(end or 0 for end in ends))
