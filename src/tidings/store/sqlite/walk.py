"""Along every mailbox, for the doctor: what is told by its messages in the order of seq. Memory stays flat.

`places` has that order. Whether it has it of all messages and of nothing else is told by a sum: each row's hash,
added up once along the log and once along `places`. So a sound store is read twice in order, and never here and there.
"""

from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Any

import apsw

from tidings.store.ledger import Ledger
from tidings.store.sqlite.rules import BACKUP, EDITED, MESSAGE_OF_NOBODY, TRIMMED

PLACES = "the index of the mailboxes does not fit the log: messages would not be shown, or the wrong ones"

Row = tuple[str, int, int]  # mailbox, seq, position

_PLACES = "SELECT mailbox, seq, position FROM places ORDER BY mailbox, seq"
_MESSAGES = """
SELECT mailbox, seq, position FROM messages WHERE position > ?1
UNION ALL SELECT 's' || sender, sent_seq, position FROM messages WHERE position > ?1 AND sent_seq IS NOT NULL
ORDER BY 1, 2, 3
"""
_WRONG = """
SELECT places.mailbox, places.seq, places.position, CASE WHEN messages.position IS NULL THEN 'where no message is'
  WHEN places.position > ?1 THEN 'whose place is not made yet' ELSE 'where another message is' END
FROM places LEFT JOIN messages ON messages.position = places.position
WHERE messages.position IS NULL OR places.position > ?1 OR NOT (
  places.mailbox = messages.mailbox AND places.seq = messages.seq
  OR places.mailbox = 's' || sender AND places.seq IS sent_seq)
"""
_LACKING = """
SELECT mailbox, seq, position, 'but has no place' FROM messages
WHERE position <= ?1
  AND NOT EXISTS (SELECT 1 FROM places WHERE places.mailbox = messages.mailbox AND places.seq = messages.seq)
UNION ALL SELECT 's' || sender, sent_seq, position, 'but has no place' FROM messages
WHERE position <= ?1 AND sent_seq IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM places WHERE places.mailbox = 's' || sender AND places.seq = sent_seq)
"""
_OWNERS = {"u": "SELECT 1 FROM users WHERE id = ?", "g": "SELECT 1 FROM groups WHERE id = ?"}


class Tally:
    """Rows counted, and their hashes added up: equal for equal rows, in whatever order."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0

    def add(self, row: Row) -> None:
        """Count one."""
        self.count += 1
        self.sum += _digest(*row)

    def counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The same rows; they are counted once all were taken."""
        count = total = 0
        for row in rows:
            count += 1
            total += _digest(*row)
            yield row
        self.count += count
        self.sum += total

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tally) and (self.count, self.sum) == (other.count, other.sum)

    __hash__ = None  # type: ignore[assignment]  # it changes


def _digest(mailbox: str, seq: int, position: int) -> int:
    """64 bits by SipHash, as Python has it for text: sums of a tuple's own hash hide rows that were exchanged."""
    return hash(f"{mailbox} {seq} {position}")


class Walk:
    """A way along all mailboxes; `placed` and `right` say of which messages `places` must have the rows."""

    def __init__(self, db: apsw.Connection, placed: int, right: Tally) -> None:
        self._db = db
        self._placed = placed
        self._right = right
        self._has_trimmed = db.execute("SELECT 1 FROM trimmed LIMIT 1").get is not None
        self.missing = 0  # numbers up to the heads that no message has, copies not counted
        self.is_placed = False  # whether `places` fits the log
        self._ledger = Ledger()

    def along(self, ledger: Ledger) -> None:
        """Walk, and write down what is found."""
        found = Tally()
        unplaced: Iterable[Any] = self._db.cursor().execute(_MESSAGES, (self._placed,))
        placed: Iterable[Any] = self._db.cursor().execute(_PLACES)
        self._go(merge(found.counted(placed), unplaced))
        self.is_placed = found == self._right
        if not self.is_placed:  # go by the log alone then: sorting it takes longer
            self._compare(ledger)
            self._ledger, self.missing = Ledger(), 0
            rows: Iterable[Any] = self._db.cursor().execute(_MESSAGES, (0,))
            self._go(rows)
        ledger.take(self._ledger)

    def _compare(self, ledger: Ledger) -> None:
        """Say which rows of `places` do not fit."""
        for query in (_WRONG, _LACKING):
            rows: Iterable[Any] = self._db.execute(query, (self._placed,))
            for mailbox, seq, position, how in rows:
                ledger.add("places", PLACES, EDITED, f"{worded(mailbox)}, seq {seq}: at position {position}, {how}")

    def _go(self, rows: Iterable[Row]) -> None:
        for mailbox, its_rows in groupby(rows, itemgetter(0)):
            self._look_at(mailbox, its_rows)

    def _look_at(self, mailbox: str, rows: Iterator[Row]) -> None:
        """One mailbox: its seqs are 1, 2, 3, ... but for the first ones, if that is noted, and positions grow."""
        _, low, before = next(rows)
        high, count, jump = low, 1, 0
        for _, seq, position in rows:
            if position <= before:
                self._say_order(mailbox, seq, position)
            before = position
            if seq == high:
                what = "one seq was given to two messages of a mailbox"
                self._ledger.add("twice", what, EDITED, f"{worded(mailbox)}, seq {seq} at position {position}")
                continue
            if seq != high + 1 and not jump:
                jump = high + 1
            high = seq
            count += 1
        if mailbox[0] != "s":
            self.missing += high - count
            self._look_for_owner(mailbox)
        self._look_for_hole(mailbox, low, high, count, jump)

    def _say_order(self, mailbox: str, seq: int, position: int) -> None:
        what = "a mailbox's seqs are not in the order of the log"
        self._ledger.add("order", what, EDITED, f"{worded(mailbox)}, seq {seq} at position {position}")

    def _look_for_hole(self, mailbox: str, low: int, high: int, count: int, jump: int) -> None:
        gone = 0
        if self._has_trimmed:
            gone = self._db.execute("SELECT seq FROM trimmed WHERE mailbox = ?", (mailbox,)).get or 0
        if low <= gone:
            example = f"{worded(mailbox)}: kept from seq {low}, noted as gone up to {gone}"
            self._ledger.add(TRIMMED.kind, TRIMMED.what, TRIMMED.advice, example)
        elif count != high - gone:
            missing, first = high - gone - count, gone + 1 if low > gone + 1 else jump
            what = "messages that were given out are not there"
            example = f"{worded(mailbox)}: {missing} of seq {gone + 1} to {high}, first {first}"
            self._ledger.add("hole", what, BACKUP, example)

    def _look_for_owner(self, mailbox: str) -> None:
        query = _OWNERS.get(mailbox[:1])
        if query is not None and self._db.execute(query, (mailbox[1:],)).get is None:
            rule = MESSAGE_OF_NOBODY
            self._ledger.add(rule.kind, rule.what, rule.advice, worded(mailbox))


def worded(mailbox: str) -> str:
    """A mailbox in words."""
    return f"the {'copies' if mailbox[:1] == 's' else 'mailbox'} of {mailbox[1:]}"
