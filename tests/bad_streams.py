"""The rows of the table of bad input whose call asks for a stream or a socket: who may not have one."""

from collections.abc import Iterator
from dataclasses import replace

from tests.bad_doors import door_rows, unwanted_body_rows
from tests.bad_input import UNKNOWN, Row
from tests.bad_queries import BAD_CURSORS, GONE

STREAM, SOCKET = "GET /v1/messages/{userId}/stream", "GET /v1/messages/{userId}/live"
HANDSHAKE = (
    *(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
    *(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", b"Sec-WebSocket-Protocol: tidings.v1"),
)
NOBODY = (UNKNOWN["user"], "<hikers>", "%00", "%FF", "%ED%A0%80", "%E2%98%83", "u" * 9_000, "%20", "<ann>%20")
# As they stand in a header, where nothing is unquoted.
BAD_LAST_IDS = (
    *(
        b"x",
        b"NOW",
        b"null",
        b"-1",
        b"1715000000123",
        b"%00",
        b"\xff\xfe",
        "\u2603".encode(),
        b"====",
        b"AAAA",
        b"now, now",
    ),
    *(b"<cut>", b"<cut_short>", b"<longer>", b"<altered>", b"<padded>", b"<next_version>", b"<others>", b"<no_vector>"),
    *(b"<odd_vector>", b"<endless_vector>", b"<cursor>%0A", b"<cursor>,<cursor>", b"<cursor> <cursor>"),
)


def stream_rows() -> Iterator[Row]:
    """Streams and sockets: what is refused at the door, and what is wrong with the query."""
    for operation in (STREAM, SOCKET):
        target = operation.partition(" ")[2].replace("{userId}", "<ann>")
        good = Row("good", 200, "", operation, target=target.encode())
        yield from door_rows(good)
        yield from unwanted_body_rows(good)
        for query in ("sent=x", "sent=INCLUDE", "sent=include,include", "sent=true", "sent=%00", "sent=include%20"):
            yield Row(query, 400, "bad_sent", operation, target=f"{target}?{query}".encode())
        for query in ("cursor=now&cursor=now", "sent=&sent=", "x=1&x=1&cursor=a&%63ursor=a"):
            yield Row(query, 400, "malformed", operation, target=f"{target}?{query}".encode())
    yield from _cursor_rows()
    for no_one in NOBODY:
        for query in ("", "?cursor=<cursor>", "?cursor=now&sent=include"):
            target = f"/v1/messages/{no_one}/stream{query}"
            yield Row(f"nobody: {target[-60:]}", 404, "unknown_user", STREAM, target=target.encode())
    good = Row("good", 200, "", SOCKET, target=b"/v1/messages/<ann>/live")
    for door in door_rows(good):
        yield replace(door, name=f"handshake, {door.name}", headers=(*HANDSHAKE, *door.headers), ends=True)
    yield Row("no handshake", 426, "upgrade_required", SOCKET, target=good.target)


def _cursor_rows() -> Iterator[Row]:
    """Cursors that are none, in the query and as the last event's id; a stream is not begun for them."""
    target = b"/v1/messages/<ann>/stream"
    for cursor in BAD_CURSORS:
        yield Row(f"cursor={cursor}", 400, "bad_cursor", STREAM, target=target + f"?cursor={cursor}".encode())
    for last in BAD_LAST_IDS:
        headers = (b"Last-Event-ID: " + last,)
        yield Row(f"last {last!r}", 400, "bad_cursor", STREAM, target=target + b"?cursor=now", headers=headers)
    for word in GONE.split():
        gone, code = f"<{word}>".encode(), "cursor_of_another_history"
        yield Row(f"cursor {word}", 410, code, STREAM, target=target + b"?sent=include&cursor=" + gone)
        yield Row(f"last {word}", 410, code, STREAM, target=target, headers=(b"Last-Event-ID: " + gone,))
