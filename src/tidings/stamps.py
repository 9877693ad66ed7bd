"""Timestamps where many nodes write at once: who gives them, and what the store keeps of them.

A message's timestamp is taken before it is stored, so that there is a moment below which none can be stored any more:
a reader by timestamp who is shown nothing above it misses nothing.
"""

from collections.abc import Sequence
from typing import Protocol

from tidings.model import Posted


class Stamps(Protocol):
    """Gives timestamps that are not passed until they are closed."""

    async def open(self, name: str) -> int:
        """A timestamp, in Unix ms, for the message with this id; its news closes it. Raises Unavailable."""

    def drop(self, name: str) -> None:
        """Close it soon, without news: the message was refused, or could not be stored."""


class Times(Protocol):
    """What the store keeps of time."""

    async def floor(self) -> int:
        """A time below which the clock that gives stamps never begins, whatever machine it runs on, in Unix ms.

        0 if it was never raised. Raises StoreUnavailable.
        """

    async def raise_floor(self, to: int) -> None:
        """Let it be `to` at least. Raises StoreUnavailable."""

    async def postdate(self, posts: Sequence[Posted]) -> None:
        """Let these messages, and their copies, have the timestamps given here, if those are later than they have.

        What is stored behind one of them is moved on as well, so that timestamps increase along each mailbox. Raises
        StoreUnavailable.
        """
