"""Mailboxes, as read: each function sees one snapshot, inside a transaction that its caller opened.

A message is found by its row in `places`; the last ones have none yet, and are looked for in the end of the log.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import Any

import apsw
import msgspec

from tidings.model import NO_HEAD, Found, Head, Message, Start

ANY_POSITION = 2**62  # above every position

_STEP = 20_000  # of a store that was filled by hand, or by an older version: 10 MB to sort

_PLACE = """
INTO places
SELECT mailbox, seq, position FROM messages WHERE position > ?1 AND position <= ?2
UNION ALL SELECT 's' || sender, sent_seq, position FROM messages
  WHERE position > ?1 AND position <= ?2 AND sent_seq IS NOT NULL
ORDER BY 1, 2
"""
_PLACED = """
SELECT messages.position, timestamp, places.seq, sender, messages.mailbox, id, text
FROM places CROSS JOIN messages ON messages.position = places.position WHERE places.mailbox = ?
"""
_UNPLACED = """
SELECT {box}, position, timestamp, {number}, sender, mailbox FROM messages
WHERE position > (SELECT placed FROM clock) AND {number} IS NOT NULL
  AND {owner} IN (SELECT value FROM json_each(?)) ORDER BY position
"""
_UNPLACED_IN = _UNPLACED.format(box="mailbox", number="seq", owner="mailbox")
_UNPLACED_COPIES = _UNPLACED.format(box="'s' || sender", number="sent_seq", owner="sender")
_UNPLACED_HEADS = """
SELECT mailbox, max(seq) FROM messages WHERE position > ?1 GROUP BY mailbox UNION ALL
SELECT 's' || sender, max(sent_seq) FROM messages WHERE position > ?1 AND sent_seq IS NOT NULL GROUP BY sender
"""

_Place = tuple[int, int, int, str, str]  # position, timestamp, seq, sender, mailbox
_Row = tuple[int, int, int, str, str, str, str]  # the same, id, text


def place_messages(db: apsw.Connection, after: int, last: int) -> None:
    """Make the places of messages with `after < position <= last`, in the order of the table that they go to.

    If this fails, the caller must roll its whole transaction back. To be able to undo the one statement, SQLite would
    keep a copy of each page that it changes, which took a third of its time (measured).
    """
    db.execute(f"INSERT OR FAIL {_PLACE}", (after, last))


def place_all(db: apsw.Connection, lag_max: int = 0) -> None:
    """Make the places that are missing, if those of more than `lag_max` positions are."""
    last, placed = db.execute("SELECT position, placed FROM clock").get
    if last - placed <= lag_max:
        return
    while placed < last:
        end = min(last, placed + _STEP)
        db.execute(f"INSERT {_PLACE}", (placed, end))
        placed = end
    db.execute("UPDATE clock SET placed = ?", (last,))


def unplaced_heads(db: apsw.Connection, placed: int) -> dict[str, int]:
    """The last seq of each mailbox that has messages without a place."""
    return dict(db.execute(_UNPLACED_HEADS, (placed,)))


class _End:
    """The messages of some mailboxes that have no place yet, by mailbox: read once, when first asked for.

    What is long of them is read of those that are given, since the end of the log may be far more than a page.
    """

    def __init__(self, db: apsw.Connection, mailboxes: Sequence[str]) -> None:
        self._db = db
        self._mailboxes = mailboxes
        self._found: Mapping[str, list[_Place]] | None = None

    def of(self, mailbox: str) -> Sequence[_Place]:
        """Those of one mailbox, in the order of seq."""
        if self._found is None:
            self._found = self._find()
        return self._found.get(mailbox, ())

    def whole(self, place: _Place) -> _Row:
        """All of a message."""
        message_id, text = self._db.execute("SELECT id, text FROM messages WHERE position = ?", place[:1]).get
        return (*place, message_id, text)

    def _find(self) -> Mapping[str, list[_Place]]:
        received = [mailbox for mailbox in self._mailboxes if mailbox[0] != "s"]
        senders = [mailbox[1:] for mailbox in self._mailboxes if mailbox[0] == "s"]
        found: dict[str, list[_Place]] = {}
        for query, names in ((_UNPLACED_IN, received), (_UNPLACED_COPIES, senders)):
            rows: Iterable[Any] = self._db.execute(query, (msgspec.json.encode(names).decode(),)) if names else ()
            for mailbox, *row in rows:
                found.setdefault(mailbox, []).append(tuple(row))
        return found


def head(db: apsw.Connection, mailbox: str) -> Head:
    """The last seq given out, its timestamp, and up to where the messages are kept no more."""
    return heads(db, (mailbox,))[0]


def heads(db: apsw.Connection, mailboxes: Sequence[str]) -> list[Head]:
    """The same of several."""
    end = _End(db, mailboxes)
    return [_head(db, mailbox, end) for mailbox in mailboxes]


def _head(db: apsw.Connection, mailbox: str, end: _End) -> Head:
    unplaced = end.of(mailbox)
    if unplaced:
        last = (unplaced[-1][2], unplaced[-1][1])
    else:
        last = db.execute(
            "SELECT places.seq, timestamp FROM places CROSS JOIN messages ON messages.position = places.position"
            " WHERE places.mailbox = ? ORDER BY places.seq DESC LIMIT 1",
            (mailbox,),
        ).get
    gone = db.execute("SELECT seq, timestamp FROM trimmed WHERE mailbox = ?", (mailbox,)).get
    if gone is None:
        return Head(*last) if last else NO_HEAD
    return Head(*(last or gone), *gone)


def read(db: apsw.Connection, starts: Sequence[Start], limit: int, until: int) -> list[Found]:
    """The first `limit` messages after the starts, merged by (timestamp, mailbox), none with a position above `until`.

    Rows are taken one by one from each mailbox as the merge asks for them: what is held is `limit`, a row a start, and,
    without their texts, those of the log's end.
    """
    end = _End(db, [start.mailbox for start in starts])
    streams = [_stream(db, end, start, limit, until) for start in starts]
    try:
        merged = streams[0] if len(streams) == 1 else merge(*streams, key=_by_time)
        return list(islice(merged, limit))
    finally:
        for stream in streams:
            stream.close()  # a statement left open would hold the snapshot


def _by_time(found: Found) -> tuple[int, str]:
    return found.timestamp, found.mailbox


def _stream(db: apsw.Connection, end: _End, start: Start, limit: int, until: int) -> Generator[Found, None, None]:
    mailbox = start.mailbox
    seq = start.seq if start.time is None else _seq_at(db, mailbox, start.time, end)
    rows = db.cursor().execute(f"{_PLACED} AND places.seq > ? ORDER BY places.seq LIMIT ?", (mailbox, seq, limit))
    try:
        yield from _found(_both(rows, mailbox, seq, end), mailbox, until)
    finally:
        rows.close()


def _both(placed: Iterable[Any], mailbox: str, seq: int, end: _End) -> Iterator[_Row]:
    """What has places, then what has none yet."""
    yield from placed
    for place in end.of(mailbox):
        if place[2] > seq:
            yield end.whole(place)


def _found(rows: Iterable[_Row], mailbox: str, until: int) -> Iterator[Found]:
    """Rows as messages, up to the first above a position: positions grow along a mailbox."""
    is_sent = mailbox[0] == "s"
    for position, timestamp, seq, sender, received_in, message_id, text in rows:
        if position > until:
            return
        message = Message(sender, text, received_in[1:], str(timestamp), message_id, seq, is_sent)
        yield Found(timestamp, mailbox, message)


def read_before(db: apsw.Connection, mailbox: str, before: int, limit: int, until: int) -> list[Found]:
    """The last `limit` messages with a seq below `before` and no position above `until`, oldest first."""
    end = _End(db, (mailbox,))
    unplaced = [place for place in end.of(mailbox) if place[2] < before and place[0] <= until]
    last = [end.whole(place) for place in unplaced[max(0, len(unplaced) - limit) :]]
    query = f"{_PLACED} AND places.seq < ? AND places.position <= ? ORDER BY places.seq DESC LIMIT ?"
    rows: list[Any] = db.execute(query, (mailbox, before, until, limit - len(last))).fetchall()
    return list(_found([*rows[::-1], *last], mailbox, ANY_POSITION))


def _seq_at(db: apsw.Connection, mailbox: str, time: int, end: _End) -> int:
    """The seq of the last message not later than `time`: bisection, since both strictly increase without holes."""
    state = _head(db, mailbox, end)
    unplaced = {row[2]: row[1] for row in end.of(mailbox)}
    low, high = state.gone, state.seq  # it is in low..high
    query = (
        "SELECT timestamp FROM places CROSS JOIN messages ON messages.position = places.position"
        " WHERE places.mailbox = ? AND places.seq = ?"
    )
    while low < high:
        middle = (low + high + 1) // 2
        timestamp = unplaced.get(middle)
        if (db.execute(query, (mailbox, middle)).get if timestamp is None else timestamp) <= time:
            low = middle
        else:
            high = middle - 1
    return low
