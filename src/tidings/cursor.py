"""The cursor: how far its holder has been given each of their mailboxes, as an opaque string that only we mint.

    version 1 | checksum 8 | generation 8 | run 8 | position 8 | digest 8 | vector ...

The *vector* is the truth: the last seq given from each mailbox. `run` and `position` place the minting in the store's
history, so that a store put back from an older copy is noticed. `digest` is the hint: unless 0, everything of the
mailboxes it stands for was given up to `position`. The checksum covers all that follows it and the user, so that a
mangled or borrowed cursor is refused; it is no secret, since what may be read is decided anew at each call.
"""

import struct
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Mapping
from hashlib import blake2b

import msgspec

from tidings.errors import Malformed

VERSION = 1
_CHECKSUM_END = 9
_HEADER = struct.Struct(">qqqQ")  # generation, run, position, digest: signed where SQLite keeps them
_VECTOR_START = _CHECKSUM_END + _HEADER.size
_COUNTS = struct.Struct(">BBH")  # width of a seq, whether sent is there, how many memberships
_WIDTHS = {1: "B", 2: "H", 4: "I", 8: "Q"}
# A foreign alphabet's letters become one that is refused.
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/!!!")
_TO_URL = bytes.maketrans(b"+/", b"-_")
WITH_SENT = 1  # set in the digest of mailboxes to which the sent copies belong
_SHORTEST = _VECTOR_START + _COUNTS.size + 1


class Hint(msgspec.Struct, frozen=True, gc=False):
    """The part of a cursor that a poll without news needs; `raw` is the vector, as it came."""

    generation: int
    run: int
    position: int
    digest: int
    raw: bytes


class Vector(msgspec.Struct, frozen=True):
    """The last seq given: from one's own mailbox, from the sent copies (None: never asked for), by membership key."""

    own: int
    sent: int | None
    groups: Mapping[int, int]


def digest_of(keys: Iterable[int], with_sent: bool) -> int:
    """A number, never 0, that stands for a set of memberships and whether the sent copies belong to it (WITH_SENT)."""
    packed = b"".join(key.to_bytes(8, "big", signed=True) for key in sorted(keys))
    number = int.from_bytes(blake2b(packed, digest_size=8).digest(), "big") >> 4  # 60 bits: an int of 32 bytes, not 48
    return (number & ~WITH_SENT or 2) | (WITH_SENT if with_sent else 0)


def pack_vector(vector: Vector) -> bytes:
    """The bytes of a vector: sorted by membership, seqs as wide as the largest needs, so that equal ones are equal."""
    keys = sorted(vector.groups)
    seqs = [vector.own, *([vector.sent] if vector.sent is not None else []), *(vector.groups[k] for k in keys)]
    largest = max(seqs)
    width = next(w for w in _WIDTHS if largest < 1 << 8 * w)
    counts = _COUNTS.pack(width, vector.sent is not None, len(keys))
    raw = counts + struct.pack(f">{len(seqs)}{_WIDTHS[width]}{len(keys)}q", *seqs, *keys)
    return raw + bytes(-(_VECTOR_START + len(raw)) % 3)  # so that base64 needs no padding and has no spare bits


def unpack_vector(raw: bytes) -> Vector:
    """The vector of a cursor that was read by `read`. Raises Malformed `bad_cursor`."""
    try:
        width, has_sent, count = _COUNTS.unpack_from(raw)
        head = 1 + has_sent
        values = struct.unpack_from(f">{head + count}{_WIDTHS[width]}{count}q", raw, _COUNTS.size)
        if not 0 <= len(raw) - _COUNTS.size - (head + count) * width - count * 8 < 3 or has_sent > 1:
            raise _bad()
    except (struct.error, KeyError):
        raise _bad() from None
    seqs, keys = values[head : head + count], values[head + count :]
    return Vector(values[0], values[1] if has_sent else None, dict(zip(keys, seqs, strict=True)))


class Marks:
    """A vector that moves on, message by message, and is minted after each: what an open stream keeps.

    `keys` has the mailboxes in the order of a vector: the reader's own, the sent copies if they are asked for, and each
    group's with the key of the membership.
    """

    __slots__ = (
        "_groups",
        "_own",
        "_packed",
        "_places",
        "_sent",
        "_sent_kept",
        "_seqs",
        "_store",
        "_user_id",
        "_width",
    )

    def __init__(
        self,
        user_id: str,
        store: tuple[int, int],
        seqs: Mapping[str, int],
        *,
        mailboxes: tuple[str, str | None],
        groups: Mapping[str, int],
        sent_kept: int | None,
    ) -> None:
        self._user_id = user_id
        self._store = store
        self._seqs = dict(seqs)
        self._own, self._sent = mailboxes
        self._groups = groups
        self._sent_kept = sent_kept
        self._pack()

    def seq(self, mailbox: str) -> int | None:
        """The last seq given from a mailbox; None for one that is not among them."""
        return self._seqs.get(mailbox)

    def move(self, mailbox: str, seq: int) -> None:
        """One more message was given."""
        self._seqs[mailbox] = seq
        if seq >> 8 * self._width:
            self._pack()
        else:
            end = self._places[mailbox] + self._width
            self._packed[end - self._width : end] = seq.to_bytes(self._width, "big")

    def mint(self, position: int, digest: int) -> str:
        """The cursor; `digest` is 0 unless everything up to `position` was given."""
        return mint(self._user_id, Hint(*self._store, position, digest, bytes(self._packed)))

    def _pack(self) -> None:
        kept = self._seqs[self._sent] if self._sent is not None else self._sent_kept
        by_key = {key: self._seqs[mailbox] for mailbox, key in self._groups.items()}
        self._packed = bytearray(pack_vector(Vector(self._seqs[self._own], kept, by_key)))
        self._width = self._packed[0]
        has_sent = kept is not None
        sorted_groups = sorted(self._groups, key=self._groups.__getitem__)
        order = [self._own, *([self._sent or ""] if has_sent else []), *sorted_groups]
        self._places = {mailbox: _COUNTS.size + self._width * n for n, mailbox in enumerate(order)}


def mint(user_id: str, hint: Hint) -> str:
    """The cursor's text: base64 in the URL-safe alphabet."""
    content = _HEADER.pack(hint.generation, hint.run, hint.position, hint.digest) + hint.raw
    return b2a_base64(b"\x01" + _checksum(user_id, content) + content, newline=False).translate(_TO_URL).decode()


def read(user_id: str, text: bytes) -> Hint:
    """What a cursor says before its vector is looked at. Raises Malformed `bad_cursor` if it is not this user's."""
    try:
        data = a2b_base64(text.translate(_FROM_URL), strict_mode=True)
    except ValueError:
        raise _bad() from None
    content = data[_CHECKSUM_END:]
    if len(data) < _SHORTEST or data[0] != VERSION or data[1:_CHECKSUM_END] != _checksum(user_id, content):
        raise _bad()
    generation, run, position, digest = _HEADER.unpack_from(content)
    return Hint(generation, run, position, digest, content[_HEADER.size :])


def _checksum(user_id: str, content: bytes) -> bytes:
    return blake2b(user_id.encode() + b"\0" + content, digest_size=8).digest()


def _bad() -> Malformed:
    return Malformed("bad_cursor", "The cursor is not one that this server gave to this user.")
