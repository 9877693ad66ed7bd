"""What a write sees of the commit that it is part of."""

import apsw

from tidings.model import Batch, Change
from tidings.store.sqlite.mailboxes import place_messages


class Transaction:
    """What a write sees: the connection, the commit's timestamp, and the news that it adds to."""

    def __init__(self, db: apsw.Connection, position: int, timestamp: int, placed: int) -> None:
        self.db = db
        self.after = position
        self.position = position
        self.placed = placed  # messages with a position above it have no rows in `places` yet
        self.timestamp = timestamp
        self.stamp = str(timestamp)  # as messages show it
        self.changes: list[Change] = []
        self.foreign: Batch | None = None  # what other processes committed before it, where it was read here

    def next_position(self) -> int:
        """The place in the feed of one more change."""
        self.position += 1
        return self.position

    def end(self, lag_max: int) -> None:
        """Move the clock on; make the places that are missing once they are those of more than `lag_max` positions."""
        if self.position - self.placed > lag_max:
            place_messages(self.db, self.placed, self.position)
            self.placed = self.position
        self.db.execute(
            "UPDATE clock SET position = ?, timestamp = ?, placed = ?", (self.position, self.timestamp, self.placed)
        )

    def batch(self) -> Batch:
        """The news of this commit."""
        return Batch(self.after, self.position, tuple(self.changes))
