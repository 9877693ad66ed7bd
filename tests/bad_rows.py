"""The table of bad input: for every operation, everything that can be wrong with a call, and what it is answered."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.bad_doors import door_rows, unwanted_body_rows
from tests.bad_input import UNKNOWN, Row
from tests.bad_queries import group_rows, poll_rows
from tests.bad_streams import stream_rows
from tests.bad_wire import wire_rows
from tidings.routes import ROUTES

NAME_MAX, TEXT_MAX, BODY_MAX = 128, 16_384, 65_536


@dataclass(frozen=True)
class Good:
    """A call without fault: from it every row departs by one thing. `fields` are its body, ids and texts."""

    target: str
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def body(self) -> bytes:
        return json.dumps(dict(self.fields)).encode()


PRIVATE = (("senderId", "<ann>"), ("receiverId", "<bob>"), ("message", "hi"))
GROUPWIDE = (("senderId", "<ann>"), ("groupId", "<hikers>"), ("message", "hi"))
GOOD = {
    "POST /v1/messages/send": Good("/v1/messages/send?type=private", PRIVATE),
    "GET /v1/messages/{userId}": Good("/v1/messages/<ann>"),
    "POST /v1/users/create": Good("/v1/users/create", (("username", "dora"),)),
    "POST /v1/users/{userId}": Good("/v1/users/<ann>?op=block", (("blockedUserId", "<bob>"),)),
    "GET /v1/users/{userId}": Good("/v1/users/<ann>"),
    "POST /v1/groups/create": Good("/v1/groups/create", (("groupName", "divers"),)),
    "POST /v1/groups/{groupId}": Good("/v1/groups/<hikers>?op=add", (("userId", "<eve>"),)),
    "GET /v1/groups/{groupId}": Good("/v1/groups/<hikers>?userId=<ann>"),
    "GET /v1/groups/{groupId}/members": Good("/v1/groups/<hikers>/members?userId=<ann>"),
    "GET /v1/groups/{groupId}/messages": Good("/v1/groups/<hikers>/messages?userId=<ann>"),
    **{f"GET {path}": Good(path) for path in ("/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")},
}
SEND_TO_GROUP = Good("/v1/messages/send?type=group", GROUPWIDE)
POSTS = {operation: good for operation, good in GOOD.items() if operation.startswith("POST")}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
# No id of anybody: made up, the other kind's, empty but for a space, with NUL, beyond ASCII, and very long.
NO_USER = (UNKNOWN["user"], "<hikers>", " ", "\0", "\u2603", "../<ann>", "%00", "u" * 10_000)
NO_GROUP = (UNKNOWN["group"], "<ann>", " ", "\0", "\u2603", "g" * 10_000)


def good_row(operation: str, good: Good) -> Row:
    """The faultless call as a row."""
    method = operation.partition(" ")[0]
    body = good.body if method == "POST" else None
    return Row("good", 200, "", operation, method, good.target.encode(), body=body)


def rows() -> list[Row]:
    """The whole table."""
    made = [row for operation, good in GOOD.items() for row in door_rows(good_row(operation, good))]
    gets = [good_row(operation, good) for operation, good in GOOD.items() if operation not in POSTS]
    made += [row for good in gets for row in unwanted_body_rows(good)]
    made += [row for operation, good in POSTS.items() for row in _body_rows(good_row(operation, good), good)]
    made += [replace(row, name=f"to a group, {row.name}") for row in send_rows(SEND_TO_GROUP)]
    made += [
        *_method_rows(),
        *_path_rows(),
        *_nobody_rows(),
        *_state_rows(),
        *stream_rows(),
        *poll_rows(),
        *group_rows(),
        *wire_rows(),
    ]
    return made


def send_rows(good: Good) -> list[Row]:
    """What can be wrong with the body of a send."""
    return list(_body_rows(good_row("POST /v1/messages/send", good), good))


def _body_rows(good: Row, good_call: Good) -> Iterator[Row]:
    """What can be wrong with a body, whatever its fields; then with each field."""
    wrong = {
        "no body, no length": (None, "malformed"),
        "empty": (b"", "malformed"),
        "half": (good.body[:-1] if good.body else b"", "malformed"),
        "a form": (b"username=ann&message=hi", "malformed"),
        "xml": (b"<x></x>".replace(b"<x>", b"<a b='c'>"), "malformed"),
        "two documents": ((good.body or b"") * 2, "malformed"),
        "a mark before": (b"\xef\xbb\xbf" + (good.body or b""), "malformed"),
        "utf-16": ((good.body or b"").decode().encode("utf-16"), "malformed"),
        "nan": (b'{"x":NaN}', "malformed"),
        "deep arrays": (b'{"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}", "malformed"),
        "deep objects": (b'{"x":' * 10_000 + b"1" + b"}" * 10_000, "malformed"),
        "an endless number": (b'{"x":' + b"9" * 60_000, "malformed"),
        **{value: (value.encode(), "wrong_type") for value in ("null", "[]", "7", "true", '"ann"', "1e999")},
        "a name not in utf-8": (b'{"\xff":"ann"}', "malformed"),
        "no field": (b"{}", "missing_field"),
        "other fields": (b'{"x":1}', "missing_field"),
    }
    for name, (body, code) in wrong.items():
        yield replace(good, name=f"body: {name}", status=400, code=code, body=body)
        if good.target != good.target.partition(b"?")[0]:  # what is wrong with the body is said first
            bare = good.target.partition(b"?")[0] + b"?op=x&type=x"
            yield replace(good, name=f"body first: {name}", status=400, code=code, target=bare, body=body)
    for field, _ in good_call.fields:
        yield from _field_rows(good, dict(good_call.fields), field)
    over = b" " * (BODY_MAX + 1)
    yield replace(good, name="over-long body", status=413, code="body_too_large", body=over, ends=True)
    told = b"Content-Length: %d" % (1 << 40)
    unsent = replace(good, body=None, headers=(told,))
    yield replace(unsent, name="over-long body, not sent", status=413, code="body_too_large", ends=True)
    asked = (told, b"Expect: 100-continue")
    yield replace(unsent, name="over-long body, asked for", status=413, code="body_too_large", headers=asked, ends=True)
    yield from _key_rows(good)


def _field_rows(good: Row, fields: dict[str, str], field: str) -> Iterator[Row]:
    def row(name: str, code: str, body: bytes, status: int = 400) -> Row:
        return replace(good, name=f"{field}: {name}", status=status, code=code, body=body)

    def with_value(raw: bytes) -> bytes:
        marked = json.dumps({**fields, field: "\N{BULLET}"}, ensure_ascii=False).encode()
        return marked.replace('"\N{BULLET}"'.encode(), raw)

    yield row("missing", "missing_field", json.dumps({k: v for k, v in fields.items() if k != field}).encode())
    yield row("empty", "empty_field", with_value(b'""'))
    for raw in (b"null", b"7", b"1.5", b"true", b"[]", b"{}", b'["x"]'):
        yield row(raw.decode(), "wrong_type", with_value(raw))
    for name, raw in (
        ("lone high surrogate", rb'"\ud800"'),
        ("lone low surrogate", rb'"\udc00x"'),
        ("surrogates turned", rb'"\udc00\ud800"'),
        ("a surrogate's bytes", b'"\xed\xa0\x80"'),
        ("not utf-8", b'"\xff"'),
        ("overlong utf-8", b'"\xc0\xaf"'),
        ("bare NUL", b'"\x00"'),
        ("bare line end", b'"\n"'),
        ("bad escape", rb'"\x41"'),
    ):
        yield row(name, "malformed", with_value(raw))
    other_case = {**{k: v for k, v in fields.items() if k != field}, field.upper(): {}}
    yield row("other case, object", "wrong_type", json.dumps(other_case).encode())
    upper = json.dumps({**{k: v for k, v in fields.items() if k != field}, field.upper(): "a", field.title(): "b"})
    yield row("two cases", "ambiguous_field", upper.encode())
    if field in ("username", "groupName"):
        yield row("too long", "name_too_long", with_value(b'"' + b"n" * (NAME_MAX + 1) + b'"'))
        yield row("too long, astral", "name_too_long", with_value(json.dumps("\U0001f9ed" * (NAME_MAX + 1)).encode()))
        yield row("escaped NUL", "malformed", with_value(rb'"a\u0000b"'))
        yield row("two lines", "malformed", with_value(rb'"a\nb"'))
    elif field == "message":
        yield row("too long", "message_too_large", with_value(b'"' + b"m" * (TEXT_MAX + 1) + b'"'), 413)
        snow = "\u2603".encode() * (TEXT_MAX // 3 + 1)
        yield row("too long in UTF-8", "message_too_large", with_value(b'"' + snow + b'"'), 413)
    else:
        kind = "group" if field == "groupId" else "user"
        for other in NO_GROUP if kind == "group" else NO_USER:
            yield row(f"of nobody: {other[:16]!r}", f"unknown_{kind}", with_value(json.dumps(other).encode()), 404)


def _key_rows(good: Row) -> Iterator[Row]:
    for key in (b"", b"two words", b"k" * 256, "\u00e9".encode(), b"tab\there"):
        headers = (b"Idempotency-Key: " + key,)
        yield replace(good, name=f"key {key[:9]!r}", status=400, code="bad_idempotency_key", headers=headers)
    twice = (b"Idempotency-Key: one", b"Idempotency-Key: one")
    yield replace(good, name="two keys", status=400, code="bad_idempotency_key", headers=twice)
    used = (b"Idempotency-Key: used",)
    yield replace(good, name="used key", status=422, code="idempotency_key_reused", headers=used)


def _method_rows() -> Iterator[Row]:
    for path, methods in ROUTES.items():
        allowed = sorted({*methods, *(["HEAD"] if "GET" in methods else [])})
        target = path.replace("{userId}", "<ann>").replace("{groupId}", "<hikers>").encode()
        for method in (*METHODS, "HEAD"):
            if method not in allowed:
                operation = f"{next(iter(methods))} {path}"
                yield Row(
                    f"{method} {path}", 405, "method_not_allowed", operation, method, target, allow=", ".join(allowed)
                )


def _path_rows() -> Iterator[Row]:
    for path in (
        *(
            "/v1",
            "/v1/",
            "/v2/users/create",
            "//",
            "/healthz/",
            "/Healthz",
            "/healthz;x",
            "/v1/users/",
            "/v1/users/a/b",
        ),
        *("/v1/users/create/", "/v1//users/create", "/v1/messages/", "/v1/messages/<ann>/", "/v1/messages/<ann>/live/"),
        *("/v1/groups/<hikers>/members/", "/v1/groups/<hikers>/x", "/%2e%2e/etc/passwd", "/v1/../healthz", "/%00"),
        *("/v1/users/%2f", "/v1/users/a%2Fb", "/.env", "/favicon.ico", "/v1/messages/%2F<ann>", "/health%7A/x"),
    ):
        yield Row(f"path {path}", 404, "unknown_path", target=path.encode())
        yield Row(f"path {path}, POST", 404, "unknown_path", method="POST", target=path.encode(), body=b"{}")


def _nobody_rows() -> Iterator[Row]:
    """Ids in the path that are nobody's."""
    for no_one in (UNKNOWN["user"], "<hikers>", "%00", "%FF", "%ED%A0%80", "%E2%98%83", "u" * 9_000, "%20", "<ann>%20"):
        for operation, target in (
            ("GET /v1/messages/{userId}", f"/v1/messages/{no_one}"),
            ("GET /v1/messages/{userId}", f"/v1/messages/{no_one}?timestamp=7"),
            ("GET /v1/messages/{userId}", f"/v1/messages/{no_one}?cursor=now"),
            ("GET /v1/messages/{userId}", f"/v1/messages/{no_one}?cursor=<cursor>&wait=9"),
            ("GET /v1/users/{userId}", f"/v1/users/{no_one}"),
        ):
            yield Row(f"nobody: {target[-60:]}", 404, "unknown_user", operation, target=target.encode())
        body = b'{"blockedUserId":"<bob>"}'
        target = f"/v1/users/{no_one}?op=block"
        yield Row(
            f"nobody: {target[-60:]}",
            404,
            "unknown_user",
            "POST /v1/users/{userId}",
            "POST",
            target.encode(),
            body=body,
        )
    for no_group in (UNKNOWN["group"], "<ann>", "%00", "%FF", "g" * 9_000):
        for part in ("", "/members", "/messages"):
            target = f"/v1/groups/{no_group}{part}?userId=<ann>"
            operation = f"GET /v1/groups/{{groupId}}{part}"
            yield Row(f"no group: {target[-60:]}", 404, "unknown_group", operation, target=target.encode())
        target = f"/v1/groups/{no_group}?op=add"
        body = b'{"userId":"<eve>"}'
        yield Row(
            f"no group: {target[-60:]}",
            404,
            "unknown_group",
            "POST /v1/groups/{groupId}",
            "POST",
            target.encode(),
            body=body,
        )


def _state_rows() -> Iterator[Row]:
    """What is understood and refused for what is so already, is not so, or is full."""

    def post(name: str, status: int, code: str, operation: str, target: str, **fields: str) -> Row:
        return Row(name, status, code, f"POST {operation}", "POST", target.encode(), body=json.dumps(fields).encode())

    user, group, send = "/v1/users/{userId}", "/v1/groups/{groupId}", "/v1/messages/send"
    yield post("block twice", 409, "already_blocked", user, "/v1/users/<carol>?op=block", blockedUserId="<eve>")
    yield post("unblock", 409, "not_blocked", user, "/v1/users/<carol>?op=unblock", blockedUserId="<ann>")
    yield post("one block more", 409, "too_many_blocks", user, "/v1/users/<carol>?op=block", blockedUserId="<ann>")
    yield post("add twice", 409, "already_a_member", group, "/v1/groups/<hikers>?op=add", userId="<ann>")
    yield post("remove", 409, "not_a_member_of_it", group, "/v1/groups/<hikers>?op=remove", userId="<eve>")
    yield post("a group more", 409, "too_many_groups", group, "/v1/groups/<hikers>?op=add", userId="<bob>")
    yield post("a member more", 409, "group_full", group, "/v1/groups/<full>?op=add", userId="<ann>")
    private = {"senderId": "<eve>", "receiverId": "<carol>", "message": "hi"}
    yield post("blocked", 403, "blocked", send, f"{send}?type=private", **private)
    groupwide = {"senderId": "<bob>", "groupId": "<hikers>", "message": "hi"}
    yield post("no member", 403, "not_a_member", send, f"{send}?type=group", **groupwide)
    for operation, code, target in (
        (send, "unknown_type", send),
        (user, "unknown_operation", "/v1/users/<ann>"),
        (group, "unknown_operation", "/v1/groups/<hikers>"),
    ):
        fields = dict(GOOD[f"POST {operation}"].fields)
        name = "type" if operation == send else "op"
        for value in ("", "x", "ADD", "Private", "add%00", "add,remove", "%F0%9F", "private%20"):
            yield post(f"{name}={value}", 400, code, operation, f"{target}?{name}={value}", **fields)
        yield post(f"no {name}", 400, code, operation, target, **fields)
        yield post(f"two of {name}", 400, "malformed", operation, f"{target}?{name}=add&{name}=add", **fields)
