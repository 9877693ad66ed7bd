"""Timestamps where many nodes write at once: who gives them, and the floor under them.

A message's timestamp is taken before it is stored, so that there is a moment below which none can be stored any more:
a reader by timestamp who is shown nothing above it misses nothing.
"""

from typing import Protocol


class Stamps(Protocol):
    """Gives timestamps that are not passed until they are closed."""

    async def open(self, name: str) -> int:
        """A timestamp, in Unix ms, for the message with this id; its news closes it. Raises Unavailable."""

    def drop(self, name: str) -> None:
        """Close it soon, without news: the message was refused, or could not be stored."""


class Floor(Protocol):
    """A time in the store below which the clock that gives stamps never begins, whatever machine it runs on."""

    async def floor(self) -> int:
        """The floor, in Unix ms; 0 if it was never raised. Raises StoreUnavailable."""

    async def raise_floor(self, to: int) -> None:
        """Let it be `to` at least. Raises StoreUnavailable."""
