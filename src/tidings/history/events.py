"""What clients saw: the events of a history, and the file they are kept in, one JSON object a line.

Times are nanoseconds of one monotonic clock, read by the client just before a call and just after its answer; an event
was certainly before another if it was answered before that one was invoked. What can't be told apart so overlapped.

- `outcome` is "ok", "refused" (it certainly took no effect: every 4xx, `overloaded`, `shutting_down`), or "unknown" (no
  answer, a broken one, any other 5xx). `code` is the problem's, of a refusal.
- Every message that is meant once has a `text` of its own; a repeat of a call has the same text and the same key.
- Every add and remove, block and unblock of the users concerned belongs in the history.
- The reads of a `chain` follow each other, each passing on what the one before gave: its cursor, or the largest
  timestamp received. A read that was not answered passes nothing on. A chain begins with everything, with a timestamp,
  with `now`, or with a cursor from elsewhere.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from tidings.model import Message

Outcome = Literal["ok", "refused", "unknown"]
Operation = Literal["add", "remove", "block", "unblock"]


class Call(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event"):
    """What all calls have."""

    invoked: int
    answered: int
    outcome: Outcome = "ok"
    code: str = ""


class Sending(Call, frozen=True, kw_only=True, tag="send"):
    """A send; `answer` is the message as the server gave it, if it did."""

    sender: str
    recipient: str
    text: str
    private: bool = True
    key: str = ""
    answer: Message | None = None


class Reading(Call, frozen=True, kw_only=True, tag="read"):
    """A read by cursor (`time` None; `cursor` empty: everything) or by timestamp (`time`, 0: everything).

    `messages` are as the server gave them, in its order; `more` says that there is more, `given` is the cursor given.
    `streamed`: they came over an open stream, at any time before they were taken from it.
    """

    reader: str
    chain: str
    cursor: str = ""
    time: int | None = None
    sent: bool = False
    messages: Sequence[Message] = ()
    given: str = ""
    more: bool = False
    expired: bool = False
    streamed: bool = False


class Changing(Call, frozen=True, kw_only=True, tag="change"):
    """Putting `other` (a user) into or out of the group `of`, or a block of `other` by the user `of`."""

    operation: Operation
    of: str
    other: str
    key: str = ""


class Fault(msgspec.Struct, frozen=True, tag="fault", tag_field="event"):
    """Something done to the server, for the counts: `kill`, `restart`, `clock`, ..."""

    what: str
    at: int


class Allowance(msgspec.Struct, frozen=True, tag="allowance", tag_field="event"):
    """What the nodes of a cluster are allowed, where a server alone is allowed nothing; once in a history.

    Until the moment `until`, a read may show what was so at any moment since `lag` ns before it was asked for, and one
    by timestamp, or of everything, leave out what was acknowledged in the `settling` ns before. Later reads are judged
    without that. So many messages as `anew` may have been told under a later timestamp than they are stored with (a
    writer that stood still for too long; counted by the nodes): they may be given with either, and to one who reads by
    timestamp, twice.
    """

    lag: int
    settling: int
    until: int
    anew: int = 0


NOTHING = Allowance(0, 0, 0)

Event = Sending | Reading | Changing | Fault | Allowance

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def write_history(path: Path, events: Iterable[Event]) -> None:
    """Keep a history, replacing what the file held."""
    with path.open("wb") as file:
        for event in events:
            file.write(_encoder.encode(event) + b"\n")


def read_history(path: Path) -> Iterator[Event]:
    """The events of a file, in its order. Raises ValueError that names the line which is none."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield _decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
