"""What a write sees of the commit that it is part of."""

import apsw

from tidings.model import Batch, Change


class Transaction:
    """What a write sees: the connection, the commit's timestamp, and the news that it adds to."""

    def __init__(self, db: apsw.Connection, position: int, timestamp: int) -> None:
        self.db = db
        self.after = position
        self.position = position
        self.timestamp = timestamp
        self.stamp = str(timestamp)  # as messages show it
        self.changes: list[Change] = []
        self.foreign: Batch | None = None  # what other processes committed before it, where it was read here

    def next_position(self) -> int:
        """The place in the feed of one more change."""
        self.position += 1
        return self.position

    def batch(self) -> Batch:
        """The news of this commit."""
        return Batch(self.after, self.position, tuple(self.changes))
