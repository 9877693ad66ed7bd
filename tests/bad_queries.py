"""The rows of the table of bad input whose fault is in the query."""

from collections.abc import Iterator

from tests.bad_input import UNKNOWN, Row

POLL = "GET /v1/messages/{userId}"
BAD_PARAMS = {
    "bad_timestamp": "timestamp=x 1.5 1e3 0x10 1,000 %D9%A1 1_000 --1 +-1 1%00 %201 1%20 now nan inf null 2026-11-24",
    "bad_limit": "limit= 0 -1 1001 1.0 x 1e1 %D9%A1 99999999999999999999 null",
    "bad_wait": "wait= -1 61 60.001 x nan inf 1e9 1e999 .5 5. 0x1 null 1%00",
    "bad_sent": "sent=x true 1 INCLUDE include%20 include,include",
    "malformed": (
        "cursor=now&cursor=now timestamp=1&timestamp=1 limit=1&limit=1 wait=0&wait=0 sent=&sent= cursor=a&%63ursor=a"
    ),
    "both_cursor_and_timestamp": (
        "cursor=<cursor>&timestamp=1 timestamp=7&cursor=now timestamp=1&cursor=x timestamp=1&cursor=<others>"
    ),
    "bad_cursor": (
        "cursor=x NOW now%20 null -1 1715000000123 %00 %FF %E2%98%83 %ED%A0%80 ==== AAAA <cut> <cut_short> <longer> "
        "<altered> <padded> <next_version> <others> <no_vector> <odd_vector> <endless_vector> %20<cursor> <cursor>%0A"
    ),
}
BAD_CURSORS = BAD_PARAMS["bad_cursor"].removeprefix("cursor=").split(" ")
# Strange, and meant: any integer is a time, 0 or less or nothing is none; an empty cursor is none.
TAKEN = (
    "timestamp=-1 timestamp=0 timestamp= timestamp=-99999999999999999999999 timestamp=99999999999999999999999999999 "
    "timestamp=%2B7 timestamp=007 cursor= cursor=&timestamp=1 cursor=now&timestamp=-1 sent= x=1&x=1 & &&= %00=%00 "
    "limit=1&wait=0 cursor=now&wait=60 timestamp=9223372036854775807 limit=1000 wait=1e-9"
)
GONE = "other_generation other_run later_position negative_position above_the_head above_all above_a_groups_head"


def poll_rows() -> Iterator[Row]:
    """Polls with parameters that are none, cursors of every wrong kind, and what is strange but meant."""
    for code, text in BAD_PARAMS.items():
        first, *others = text.split(" ")
        name = first.partition("=")[0] + "="
        for query in (first, *(other if "&" in other else name + other for other in others)):
            target = f"/v1/messages/<ann>?{query}".encode()
            yield Row(f"poll {query}", 400, code, POLL, target=target)
            if "limit" not in query:
                yield Row(f"poll {query}, a page", 400, code, POLL, target=target + b"&limit=7")
    for word in GONE.split():
        for more in ("", "&limit=7", "&wait=9", "&sent=include"):
            target = f"/v1/messages/<ann>?cursor=<{word}>{more}".encode()
            yield Row(f"cursor {word} {more}", 410, "cursor_of_another_history", POLL, target=target)
    for query in TAKEN.split(" "):
        yield Row(f"poll {query}", 200, "", POLL, target=f"/v1/messages/<ann>?{query}".encode())


def group_rows() -> Iterator[Row]:
    """The same for what a group shows its members."""
    for part in ("", "/members", "/messages"):
        operation, path = f"GET /v1/groups/{{groupId}}{part}", f"/v1/groups/<hikers>{part}"
        wrong = [
            *((query, 400, "missing_field") for query in ("", "userId=", "userID=<ann>", "userid=<ann>")),
            *((f"userId={no_one}", 404, "unknown_user") for no_one in (UNKNOWN["user"], "%00", "%FF", "<hikers>")),
            ("userId=<ann>&userId=<ann>", 400, "malformed"),
            ("userId=<bob>", 403, "not_a_member"),
        ]
        if part:
            wrong += [(f"userId=<ann>&limit={n}", 400, "bad_limit") for n in ("", "0", "-1", "1001", "x", "1.5")]
        if part == "/messages":
            for name in ("after", "before"):
                for value in ("", "x", "-1", "1.5", "%00", "1e3", "null"):
                    wrong.append((f"userId=<ann>&{name}={value}", 400, "bad_seq"))
            wrong.append(("userId=<ann>&after=1&before=1", 400, "both_after_and_before"))
        for query, status, code in wrong:
            yield Row(f"{path}?{query}", status, code, operation, target=f"{path}?{query}".encode())
    for query in ("after=99999999999999999999", "before=99999999999999999999", "before=0", "after=007", "before=%2B1"):
        target = f"/v1/groups/<hikers>/messages?userId=<ann>&{query}".encode()
        yield Row(f"history {query}", 200, "", "GET /v1/groups/{groupId}/messages", target=target)
    for after in ("%00", "%FF", "x" * 9_000, "%E2%98%83"):
        target = f"/v1/groups/<hikers>/members?userId=<ann>&after={after}".encode()
        yield Row(f"members after {after[:9]}", 200, "", "GET /v1/groups/{groupId}/members", target=target)
