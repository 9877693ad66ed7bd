"""What goes over the wire: a turn's question and answer, and the entries of the stream.

News travels as one msgpack array of a batch's changes: a message as an array, the directory entry to drop as its id.
What the script adds to it (numbers, the settled time, timestamps given anew) stands beside it in a header.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tidings.model import Altered, Batch, Change, Message, Posted, sent

_Told = tuple[str, int, str, str, str, str, str, int]  # of a message; see `_pack`


class Place(NamedTuple):
    """A place in the stream: after the change with this number, and so many beats behind it."""

    number: int
    beat: int


class Stamped(msgspec.Struct, frozen=True):
    """A message of a batch: its id, at which index, its timestamp, and the mailboxes in which that must increase."""

    name: str
    index: int
    timestamp: int
    mailboxes: Sequence[str]


class Offer(msgspec.Struct, frozen=True):
    """A batch to be taken: its number among those of its node, how many changes, and the messages among them."""

    number: int
    count: int
    posted: Sequence[Stamped]


class Ask(msgspec.Struct):
    """A turn's question; times in ms.

    `found` is a floor read from the store (-1: not read), `floor` one raised there; `shown` what an earlier feed may
    have said to be settled.
    """

    id: str
    seed: str
    found: int
    floor: int
    shown: int
    keep: int
    expire_ms: int
    ahead_ms: int
    drops: Sequence[str] = ()
    batches: Sequence[Offer] = ()
    opens: Sequence[str] = ()
    is_beat: bool = False


class Told(msgspec.Struct):
    """Its answer. If `id` is another than was asked for, there is no more in it, and nothing was done."""

    id: str
    last: int = 0
    beats: int = 0
    settled: int = 0
    now: int = 0
    floor: int = 0
    positions: Sequence[int] = ()
    stamps: Sequence[int] = ()
    anew: int = 0


class Header(msgspec.Struct, array_like=True):
    """What the script says of an entry: `later` has the timestamps given anew, by the index of their message.

    No message was told up to there with a timestamp later than `clock`.
    """

    id: str
    settled: int
    count: int
    later: Sequence[tuple[int, int]]
    clock: int


class Entry(NamedTuple):
    """One entry: its place, its header, and the news as it was packed (b"" for a beat)."""

    place: Place
    header: Header
    packed: bytes


_pack_any = msgspec.msgpack.Encoder().encode
_unpack_changes = msgspec.msgpack.Decoder(list[_Told | str]).decode
_unpack_header = msgspec.msgpack.Decoder(Header).decode
unpack_told = msgspec.msgpack.Decoder(Told).decode


def pack_ask(ask: Ask) -> bytes:
    """For the script."""
    return _pack_any(ask)


def pack_changes(batch: Batch) -> bytes:
    """A batch without its positions."""
    return _pack_any([_pack(change) for change in batch.changes])


def stamped(batch: Batch) -> list[Stamped]:
    """The messages of a batch."""
    return [
        Stamped(
            change.message.message_id,
            index,
            int(change.message.timestamp),
            (change.mailbox, sent(change.message.sender_id)) if change.sent_seq else (change.mailbox,),
        )
        for index, change in enumerate(batch.changes)
        if isinstance(change, Posted)
    ]


def read_entry(raw: Sequence[object]) -> Entry:
    """An entry as the server gives it. Raises msgspec.MsgspecError, ValueError if it is none of ours."""
    match raw:
        case [bytes(place), [_, bytes(header), _, bytes(packed)]]:
            return Entry(_place(place), _unpack_header(header), packed)
        case [bytes(place), [_, bytes(header)]]:
            return Entry(_place(place), _unpack_header(header), b"")
    raise ValueError(f"no entry of a feed: {raw!r:.200}")


def unpack_changes(entry: Entry) -> list[Change]:
    """The changes of an entry, numbered. Raises msgspec.MsgspecError, ValueError if they are none of ours."""
    told = _unpack_changes(entry.packed)
    header = entry.header
    if len(told) != header.count:
        raise ValueError(f"{len(told)} changes where {header.count} are numbered")
    first = entry.place.number - header.count + 1
    later = dict(header.later)
    return [_unpack(change, first + index, later.get(index)) for index, change in enumerate(told)]


def _place(raw: bytes) -> Place:
    number, _, beat = raw.partition(b"-")
    return Place(int(number), int(beat))


def _pack(change: Change) -> _Told | str:
    if isinstance(change, Altered):
        return change.user_id
    message = change.message
    return (
        change.mailbox,
        change.sent_seq,
        message.sender_id,
        message.message,
        message.recipient_id,
        message.timestamp,
        message.message_id,
        message.seq,
    )


def _unpack(told: _Told | str, position: int, later: int | None) -> Change:
    if isinstance(told, str):
        return Altered(position, told)
    mailbox, sent_seq, sender_id, text, recipient_id, timestamp, message_id, seq = told
    given = timestamp if later is None else str(later)
    return Posted(position, mailbox, Message(sender_id, text, recipient_id, given, message_id, seq), sent_seq)
