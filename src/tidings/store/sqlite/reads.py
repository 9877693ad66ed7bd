"""What is read: each function sees one snapshot, inside a transaction that its caller opened."""

from collections.abc import Generator, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Any, NamedTuple

import apsw

from tidings.errors import Forgotten
from tidings.model import (
    NO_HEAD,
    Altered,
    Batch,
    Change,
    Found,
    Group,
    Head,
    Membership,
    Message,
    Posted,
    Profile,
    Start,
    User,
)


class _Log(NamedTuple):
    """A mailbox seen as rows: which column names it, which one numbers it."""

    owner: str
    number: str
    by: str


_RECEIVED = _Log("mailbox", "seq", "messages_by_mailbox")
_SENT = _Log("sender", "sent_seq", "messages_by_sender")

_NEWS = "SELECT position, timestamp, mailbox, seq, sender, sent_seq, id, text FROM messages"
ANY_POSITION = 2**62  # above every position
_RUN_EXTRA = 500  # a commit's most: writer.BATCH_MAX


def _log(mailbox: str) -> tuple[_Log, str]:
    """Where a mailbox is found, and under which name: copies by their sender, the rest by mailbox."""
    return (_SENT, mailbox[1:]) if mailbox[0] == "s" else (_RECEIVED, mailbox)


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


def head(db: apsw.Connection, mailbox: str) -> Head:
    """The last seq given out, its timestamp, and up to where the messages are kept no more."""
    log, name = _log(mailbox)
    last = db.execute(
        f"SELECT {log.number}, timestamp FROM messages INDEXED BY {log.by}"
        f" WHERE {log.owner} = ? AND {log.number} > 0 ORDER BY {log.number} DESC LIMIT 1",
        (name,),
    ).get
    gone = db.execute("SELECT seq, timestamp FROM trimmed WHERE mailbox = ?", (mailbox,)).get
    if gone is None:
        return Head(*last) if last else NO_HEAD
    return Head(*(last or gone), *gone)


def read(db: apsw.Connection, starts: Sequence[Start], limit: int, until: int) -> list[Found]:
    """The first `limit` messages after the starts, merged by (timestamp, mailbox), none with a position above `until`.

    Rows are taken one by one from each mailbox as the merge asks for them: what is held is `limit` and a row a start.
    """
    streams = [_stream(db, start, limit, until) for start in starts]
    try:
        merged = streams[0] if len(streams) == 1 else merge(*streams, key=_by_time)
        return list(islice(merged, limit))
    finally:
        for stream in streams:
            stream.close()  # a statement left open would hold the snapshot


def _by_time(found: Found) -> tuple[int, str]:
    return found.timestamp, found.mailbox


def _stream(db: apsw.Connection, start: Start, limit: int, until: int) -> Generator[Found, None, None]:
    mailbox = start.mailbox
    log, name = _log(mailbox)
    seq = start.seq if start.time is None else place(db, mailbox, start.time)
    rows = db.cursor().execute(
        f"SELECT position, timestamp, {log.number}, sender, mailbox, id, text FROM messages INDEXED BY {log.by}"
        f" WHERE {log.owner} = ? AND {log.number} > ? ORDER BY {log.number} LIMIT ?",
        (name, seq, limit),
    )
    try:
        yield from _found(rows, mailbox, until)
    finally:
        rows.close()


def _found(rows: Iterator[Any], mailbox: str, until: int) -> Iterator[Found]:
    """Rows as messages, up to the first above a position: positions grow along a mailbox."""
    is_sent = mailbox[0] == "s"
    for position, timestamp, seq, sender, received_in, message_id, text in rows:
        if position > until:
            return
        message = Message(sender, text, received_in[1:], str(timestamp), message_id, seq, is_sent)
        yield Found(timestamp, mailbox, message)


def read_before(db: apsw.Connection, mailbox: str, before: int, limit: int, until: int) -> list[Found]:
    """The last `limit` messages with a seq below `before` and no position above `until`, oldest first."""
    log, name = _log(mailbox)
    rows = db.execute(
        f"SELECT position, timestamp, {log.number}, sender, mailbox, id, text FROM messages INDEXED BY {log.by}"
        f" WHERE {log.owner} = ? AND {log.number} < ? AND +position <= ? ORDER BY {log.number} DESC LIMIT ?",
        (name, before, until, limit),
    )
    return list(_found(rows, mailbox, ANY_POSITION))[::-1]


def place(db: apsw.Connection, mailbox: str, time: int) -> int:
    """The seq of the last message not later than `time`: bisection, since both strictly increase without holes."""
    log, name = _log(mailbox)
    state = head(db, mailbox)
    low, high = state.gone, state.seq  # the place is in low..high
    query = f"SELECT timestamp FROM messages INDEXED BY {log.by} WHERE {log.owner} = ? AND {log.number} = ?"
    while low < high:
        middle = (low + high + 1) // 2
        if db.execute(query, (name, middle)).get <= time:
            low = middle
        else:
            high = middle - 1
    return low


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
