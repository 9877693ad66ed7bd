"""The table of bad input on a socket: what is wrong with how it is asked for, and with what its client says."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from tests.bad_input import Row
from tests.bad_queries import BAD_CURSORS, GONE
from tests.bad_rows import BODY_MAX, GOOD, GROUPWIDE, PRIVATE, SEND_TO_GROUP, send_rows
from tests.bad_streams import NOBODY

SEND = "POST /v1/messages/send"
REF = "this one"
TOO_LARGE, NO_TEXT = 1009, 1007


@dataclass(frozen=True)
class Target:
    """A handshake that is taken, for a socket that is closed again at once; `<word>` as in the table of calls."""

    path: str
    close: int
    code: str


@dataclass(frozen=True)
class Said:
    """The text of a frame on Ann's socket: refused as `code` under `ref`, or, with a `close`, the socket's end."""

    name: str
    text: bytes
    code: str
    status: int = 400
    ref: str | None = REF
    close: int = 0


def targets() -> Iterator[Target]:
    """What a poll would be refused for."""
    path = "/v1/messages/<ann>/live"
    for cursor in BAD_CURSORS:
        yield Target(f"{path}?cursor={cursor}", 4400, "bad_cursor")
    for word in GONE.split():
        yield Target(f"{path}?cursor=<{word}>", 4410, "cursor_of_another_history")
    for query in ("sent=x", "sent=INCLUDE", "sent=include,include", "sent=true", "sent=%00", "sent=include%20"):
        yield Target(f"{path}?{query}", 4400, "bad_sent")
    for query in ("cursor=now&cursor=now", "sent=&sent=", "x=1&x=1&cursor=a&%63ursor=a"):
        yield Target(f"{path}?{query}", 4400, "malformed")
    for no_one in NOBODY:
        for query in ("", "?cursor=<cursor>", "?cursor=now&sent=include"):
            yield Target(f"/v1/messages/{no_one}/live{query}", 4404, "unknown_user")


def frames() -> list[Said]:
    """Everything that can be wrong with the body of a send, and what only a frame has."""
    made = [_as_said("private", row) for row in send_rows(GOOD[SEND]) if _is_a_frames(row)]
    made += [_as_said("group", row) for row in send_rows(SEND_TO_GROUP) if _is_a_frames(row)]
    made += [*_state_frames(), *_own_frames()]
    return made


def _is_a_frames(row: Row) -> bool:
    """Whether a row of the POST has a meaning here; without a senderId it is the socket's user who sends."""
    is_about_the_body = row.body is not None and not row.headers and "?op=x" not in row.target.decode()
    return is_about_the_body and row.name not in ("senderId: missing", "body: no field", "body: other fields")


def _as_said(kind: str, row: Row) -> Said:
    """The same body as a frame; an object of fields is marked as a send."""
    body, name = row.body or b"", f"{kind} {row.name}"
    if row.code == "body_too_large":
        return Said(name, body, "frame_too_large", close=TOO_LARGE)
    if row.code == "malformed" and "deep" not in row.name:  # not JSON at all
        return Said(name, _marked(body), "bad_text", close=NO_TEXT)
    is_send = body.startswith(b"{") and "deep" not in row.name
    return Said(name, _marked(body) if is_send else body, row.code, row.status, REF if is_send else None)


def _marked(body: bytes) -> bytes:
    return body.replace(b"{", b'{"type":"send","ref":"%s",' % REF.encode(), 1)


def _send(name: str, code: str, status: int = 400, ref: str | None = REF, /, **changed: object) -> Said:
    """A send with fields changed, or left out (`...`)."""
    fields = {"type": "send", "ref": REF, **dict(PRIVATE), **changed}
    kept = {name: value for name, value in fields.items() if value is not ...}
    return Said(name, json.dumps(kept).encode(), code, status, ref)


def _state_frames() -> Iterator[Said]:
    """What is understood, and may not be."""
    yield _send("blocked", "blocked", 403, senderId="<eve>", receiverId="<carol>")
    group: dict[str, object] = {**dict(GROUPWIDE), "receiverId": ...}
    yield _send("no member", "not_a_member", 403, **{**group, "senderId": "<bob>"})
    yield _send("used key", "idempotency_key_reused", 422, idempotencyKey="used")
    for key in ("", "two words", "k" * 256, "\u00e9", "tab\there", "a\0b"):
        yield _send(f"key {key[:9]!r}", "bad_idempotency_key", idempotencyKey=key)


def _own_frames() -> Iterator[Said]:
    """What a POST says in its address and headers, a frame says in its fields."""
    yield _send("no type", "unknown_type", type=...)
    for kind in ("", "x", "SEND", "private", "send\0", "send,send", None):
        yield _send(f"type {kind!r}", "unknown_type", type=kind)
    wrong: tuple[object, ...] = (7, True, 1.5, [], {}, ["send"])
    for value in wrong:
        yield _send(f"type {value!r}", "wrong_type", type=value)
        yield _send(f"ref {value!r}", "wrong_type", 400, None, ref=value)
        yield _send(f"key {value!r}", "wrong_type", idempotencyKey=value)
    yield _send("ref too long", "malformed", 400, None, ref="r" * 129)
    yield _send("two receivers", "ambiguous_field", groupId="<hikers>")
    yield _send("two receivers in two cases", "ambiguous_field", GROUPID="<hikers>")
    yield _send("no receiver", "missing_field", receiverId=...)
    yield _send("a recipient of no kind", "missing_field", receiverId=..., recipientId="<bob>")
    yield _send("two spellings", "ambiguous_field", recipientId="<eve>")
    yield Said("no field", b"{}", "unknown_type", ref=None)
    yield Said("other fields", b'{"x":1}', "unknown_type", ref=None)
    yield Said("over-long, and blank", b" " * BODY_MAX + b"{}", "frame_too_large", close=TOO_LARGE)
