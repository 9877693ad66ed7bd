"""Answers that are pages."""

import msgspec

from tidings.model import Message


class Page(msgspec.Struct, frozen=True):
    """Messages, oldest first. `more`: there are more now; `expired`: some before these are not kept any more.

    `cursor` is None in an answer by timestamp.
    """

    messages: tuple[Message, ...]
    cursor: str | None = None
    more: bool = False
    expired: bool = False


class History(msgspec.Struct, frozen=True):
    """Messages of a group by seq, oldest first; `more` if there are any beyond them in the way asked for."""

    messages: tuple[Message, ...]
    more: bool = False
