"""The format text/event-stream: read as the WHATWG has it, however it is cut into pieces."""

import itertools
import re
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.client.transports.eventstream import Event, Parser

LINE_MAX = 1_000


def parsed(stream: bytes, *cuts: int) -> tuple[list[Event], int | None]:
    """The events of a stream that comes in pieces."""
    parser = Parser(LINE_MAX)
    events: list[Event] = []
    ends = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    for start, end in itertools.pairwise(ends):
        events += parser.feed(stream[start:end])
    return events, parser.retry_ms


class Reference(NamedTuple):
    """The rules of HTML 9.2.6, word for word, over the whole stream at once."""

    events: list[Event]
    retry: int | None

    @classmethod
    def read(cls, stream: bytes) -> "Reference":
        text = stream.decode(errors="replace").removeprefix("\ufeff")
        lines = re.split("\r\n|\n|\r", text)[:-1]  # what has no line end yet is not a line
        data, kind, identity, retry = "", "", "", None
        events = []
        for line in lines:
            if line == "":
                if data != "":
                    events.append(Event(kind or "message", data.removesuffix("\n"), identity))
                data, kind = "", ""
                continue
            if line.startswith(":"):
                continue
            field, value = line.split(":", 1) if ":" in line else (line, "")
            value = value[1:] if value.startswith(" ") else value
            if field == "event":
                kind = value
            elif field == "data":
                data += value + "\n"
            elif field == "id" and "\0" not in value:
                identity = value
            elif field == "retry" and re.fullmatch("[0-9]+", value):
                retry = int(value)
        return cls(events, retry)


SCRAPS = st.sampled_from(
    [
        *(b"data", b"data:", b"data: ", b"id: ", b"id", b"event: ", b"retry: ", b"retry:7", b":", b" ", b"\0", b"x"),
        *(
            b"\n",
            b"\r",
            b"\r\n",
            b"\n\n",
            b"\r\n\r\n",
            b"\xef\xbb\xbf",
            b"\xc3\xa4",
            b"\xc3",
            b"\xf0\x9f\xa7\xad",
            b"42",
        ),
    ]
)


@given(st.lists(SCRAPS, max_size=40).map(b"".join), st.lists(st.integers(0, 120), max_size=12))
def test_a_stream_is_read_as_the_standard_reads_it(stream: bytes, cuts: list[int]) -> None:
    """Scraps of every field, line end and letter, cut anywhere: the events are those of the standard's own words."""
    wanted = Reference.read(stream)
    assert parsed(stream, *cuts) == (wanted.events, wanted.retry)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_each_byte_by_itself(end: bytes) -> None:
    """What Tidings sends, with each kind of line end, and each byte by itself: the same events."""
    lines = (
        *(
            b"\xef\xbb\xbfretry: 1000",
            b"",
            b": a comment",
            b"id: c1",
            b"event: message",
            b'data: {"text":',
            b'data: "\xc3\xa4"}',
        ),
        *(
            b"",
            b"id: not\0one",
            b"data:no space",
            b"",
            b"event: heartbeat",
            b"",
            b"id: c2",
            b"data",
            b"",
            b"data: cut off",
        ),
    )
    stream = end.join(lines)
    wanted = [Event("message", '{"text":\n"ä"}', "c1"), Event("message", "no space", "c1"), Event("message", "", "c2")]
    assert parsed(stream, *range(len(stream))) == (wanted, 1000)
    assert parsed(stream) == (wanted, 1000)


def test_what_never_ends_is_refused() -> None:
    """A line, or an event, that grows without an end is refused before it fills the memory."""
    for piece in (b"x" * 100, b"data: " + b"x" * 90 + b"\n"):
        parser = Parser(LINE_MAX)
        with pytest.raises(ValueError, match="longer than"):
            feed_for_ever(parser, piece)


def feed_for_ever(parser: Parser, piece: bytes) -> None:
    for _ in range(LINE_MAX):
        parser.feed(piece)
