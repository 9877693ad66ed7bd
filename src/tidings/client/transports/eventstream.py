"""The format text/event-stream, as the WHATWG has it (HTML, 9.2.5 and 9.2.6), from pieces of any size."""

import re

import msgspec

_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"


class Event(msgspec.Struct, frozen=True):
    """One event: its type, its data, and the id that was the last one given, with it or before."""

    kind: str
    data: str
    id: str


class Parser:
    """Makes events of bytes. `retry_ms` is what was said last of coming back, None if nothing was.

    Raises ValueError where one line is longer than `line_max` bytes, or an event's data.
    """

    def __init__(self, line_max: int) -> None:
        self.retry_ms: int | None = None
        self._line_max = line_max
        self._head: bytes | None = b""  # until it is known whether a byte order mark stands in front
        self._is_after_cr = False
        self._pieces: list[bytes] = []  # of a line whose end did not come yet
        self._waiting = 0  # bytes of it
        self._kind = ""
        self._data: list[str] = []
        self._held = 0  # characters of data
        self._id = ""

    def feed(self, piece: bytes) -> list[Event]:
        """The events that a piece completes."""
        if self._head is not None:
            piece = self._head + piece
            if len(piece) < len(_BOM) and _BOM.startswith(piece):
                self._head = piece
                return []
            self._head = None
            piece = piece.removeprefix(_BOM)
        if self._is_after_cr and piece:
            piece = piece.removeprefix(b"\n")  # it belongs to the line end that was seen already
            self._is_after_cr = False
        if not piece:
            return []
        *ended, rest = _END.split(piece)
        self._is_after_cr = piece.endswith(b"\r")
        events = []
        for line in ended:
            self._hold(line)
            event = self._take(b"".join(self._pieces).decode(errors="replace"))
            self._pieces, self._waiting = [], 0
            if event is not None:
                events.append(event)
        self._hold(rest)
        return events

    def _hold(self, part: bytes) -> None:
        self._waiting += len(part)
        if self._waiting > self._line_max:
            raise ValueError(f"a line is longer than {self._line_max} bytes")
        if part:
            self._pieces.append(part)

    def _take(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._held += len(value) + 1
            if self._held > self._line_max:
                raise ValueError(f"an event's data is longer than {self._line_max} characters")
            self._data.append(value)
        elif field == "event":
            self._kind = value
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value[:9])
        return None  # a comment has no field; what is not known is passed over

    def _dispatch(self) -> Event | None:
        kind, data = self._kind or "message", self._data
        self._kind, self._data, self._held = "", [], 0
        return Event(kind, "\n".join(data), self._id) if data else None
