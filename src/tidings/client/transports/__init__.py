"""Ways in which news come, alike to whoever follows: open at a cursor, take page after page, until it ends.

A page of a stream is what has come meanwhile; without messages, it is a heartbeat. One that is `expired` says that some
messages are not kept any more, and no more: whoever takes it asks by a poll.
"""

from typing import Protocol

from tidings.client.pages import Page
from tidings.errors import TidingsError


class Flow(Protocol):
    """What comes from one opening."""

    async def next(self) -> Page:
        """What came, and the cursor after it; a call that was cancelled lost nothing. Raises TidingsError, Unfit."""

    def close(self) -> None:
        """Take no more."""


class Transport(Protocol):
    """One way."""

    @property
    def name(self) -> str:
        """As it is asked for."""

    def open(self, cursor: str | None) -> Flow:
        """All after a cursor; `"now"` for only what is new."""


class Unfit(Exception):
    """News can't be had in this way, for the reason in `error`; in another one, perhaps."""

    def __init__(self, error: TidingsError) -> None:
        super().__init__(str(error))
        self.error = error


class Broken(TidingsError):
    """A stream ended that may be opened again, after `retry_s` seconds at least.

    `is_told`: the server said so; else the connection is gone, and nobody knows why.
    """

    title = "Stream ended"

    def __init__(self, detail: str, *, retry_s: float = 0.0, is_told: bool = False) -> None:
        super().__init__("stream_ended", detail, retry_s=retry_s)
        self.is_told = is_told
