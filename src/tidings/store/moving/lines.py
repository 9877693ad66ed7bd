"""An export's lines: what a store holds, one JSON object a line, the same from whichever store it comes.

The first line is the `Head`; the last is the `End`, which counts and sums up those between. Between them the order
means nothing, though each store writes them sorted. A copy of a message is no line: it is the message's `sentSeq`.
Numbers of 64 bits (generation, runs, keys of stays) stand as they are.
"""

from hashlib import blake2b

import msgspec

FORMAT = "tidings-export"
VERSION = 1
KEYS_MS = 24 * 3_600_000  # idempotency keys used longer than that before the last message are left behind


class Head(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What the file is, and which history it continues.

    `closed`: nothing is written after it, so its generation is the store's own; else it is a new one. `feeds`: cursors
    that any feed minted belong to it, since it was on many nodes. `export` is random: which export this is.
    """

    format: str
    version: int
    export: str
    generation: int
    closed: bool
    feeds: bool


class Line(msgspec.Struct, frozen=True, rename="camel", tag_field="kind", tag=str.lower, forbid_unknown_fields=True):
    """One of the lines between the first and the last."""


class Run(Line, frozen=True):
    """A start of a server on SQLite: cursors name it, with a position from `first - 1` to `last`."""

    number: int
    id: int
    first: int
    last: int


class Group(Line, frozen=True):
    """A group, and how many members it has."""

    group_id: str
    group_name: str
    members: int


class Stay(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A membership of now: `key` is in cursors, `joined_seq` the group's head at joining."""

    group_id: str
    group_name: str
    key: int
    joined_seq: int


class User(Line, frozen=True):
    """A user with all of their blocks and stays, each sorted by id."""

    user_id: str
    username: str
    blocks: list[str]
    groups: list[Stay]


class Left(Line, frozen=True):
    """A stay that ended, at `left` in Unix ms; SQLite keeps none."""

    user_id: str
    group_id: str
    group_name: str
    key: int
    joined_seq: int
    left: int


class Trimmed(Line, frozen=True):
    """A mailbox whose messages up to `seq` (the last of them at `timestamp`) are kept no more."""

    mailbox: str
    seq: int
    timestamp: int


class Intent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An idempotency key, as digests in hex: of scope and key, and of what it was used for."""

    name: str
    content: str


class Answer(Line, frozen=True):
    """An idempotency key of anything but a send, with the JSON that was answered."""

    name: str
    content: str
    answer: str
    timestamp: int


class Message(Line, frozen=True, omit_defaults=True):
    """A message; `sent_seq` is its copy's place with its sender, 0 if it has none; `key` the one it was sent with."""

    mailbox: str
    seq: int
    sender_id: str
    timestamp: int
    message_id: str
    message: str
    sent_seq: int = 0
    key: Intent | None = None


class End(msgspec.Struct, frozen=True, rename="camel", tag_field="kind", tag="end", forbid_unknown_fields=True):
    """How many of each kind the lines before it have, their sums, and the last timestamp given out, in Unix ms."""

    clock: int
    counts: dict[str, int]
    sums: dict[str, str]


Entry = Run | Group | User | Left | Trimmed | Answer | Message

KINDS = ("runs", "groups", "users", "blocks", "memberships", "left", "trimmed", "keys", "messages", "copies")

_encoder = msgspec.json.Encoder()
_body = msgspec.json.Decoder(Entry | End)
_head = msgspec.json.Decoder(Head)


def packed(line: Entry | Head | End) -> bytes:
    """A line as it stands in the file, its end left out."""
    return _encoder.encode(line)


def read_head(text: bytes) -> Head:
    """The first line. Raises ValueError."""
    return _head.decode(text)


def read_line(text: bytes) -> Entry | End:
    """Any other. Raises ValueError."""
    line: Entry | End = _body.decode(text)
    if isinstance(line, (Message, Trimmed)) and (line.mailbox[:1] not in ("u", "g", "s") or line.seq < 1):
        raise ValueError("it names no place in a mailbox")
    for key in (line, line.key) if isinstance(line, Message) else (line,):
        if isinstance(key, (Intent, Answer)):
            bytes.fromhex(key.name), bytes.fromhex(key.content)
    return line


def parts(line: Entry) -> dict[str, int]:
    """How many of each kind a line has."""
    match line:
        case User():
            return {"users": 1, "blocks": len(line.blocks), "memberships": len(line.groups)}
        case Message():
            return {"messages": 1, "copies": bool(line.sent_seq), "keys": line.key is not None}
        case Answer():
            return {"keys": 1}
        case Run() | Group():
            return {f"{type(line).__name__.lower()}s": 1}
        case _:
            return {type(line).__name__.lower(): 1}


class Tally:
    """What has been seen: how many of each, and by kind of line a sum, equal for equal lines in whatever order."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(KINDS, 0)
        self._sums: dict[str, int] = {}

    def add(self, line: Entry, text: bytes) -> None:
        """One more, and how it stands in the file."""
        for name, more in parts(line).items():
            self._counts[name] += more
        kind = type(line).__name__.lower()
        digest = int.from_bytes(blake2b(text, digest_size=16).digest(), "big")
        self._sums[kind] = (self._sums.get(kind, 0) + digest) % (1 << 128)

    def end(self, clock: int) -> End:
        """The last line."""
        return End(clock, dict(self._counts), {kind: f"{total:032x}" for kind, total in sorted(self._sums.items())})


def difference(wanted: End, found: End, *, without: frozenset[str] = frozenset()) -> str:
    """What is not alike, in words, "" if nothing; `without` has kinds of lines that one of the stores does not keep."""
    counts = [(name, found.counts.get(name, 0), wanted.counts.get(name, 0)) for name in KINDS if name not in without]
    told = [f"{name}: {there:,} of {asked:,}" for name, there, asked in counts if there != asked]
    if told:
        return ", ".join(told)
    kinds = (wanted.sums.keys() | found.sums.keys()) - without
    other = [kind for kind in sorted(kinds) if wanted.sums.get(kind) != found.sums.get(kind)]
    return f"as many, but another {' and another '.join(other)}" if other else ""
