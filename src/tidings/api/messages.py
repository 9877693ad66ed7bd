"""Messages over HTTP: sending, and asking for news."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from tidings.api.call import Call
from tidings.api.operation import GROUP, MESSAGE, OTHER, READS, USER, WRITES, Link, Param, operation, page_limit
from tidings.api.parse import Form, Id, Text, read_body
from tidings.api.query import find_key, find_limit, find_timestamp, query, wait_s, with_sent
from tidings.api.replies import Reply, Stream, reply
from tidings.config import Settings
from tidings.errors import Malformed
from tidings.model import Message
from tidings.service import Answer, Question


class PrivateMessage(msgspec.Struct, rename="camel"):
    """A message to one user."""

    sender_id: Id
    receiver_id: Id
    message: Text


class GroupMessage(msgspec.Struct, rename="camel"):
    """A message to everybody in a group."""

    sender_id: Id
    group_id: Id
    message: Text


class AnyMessage(msgspec.Struct, rename="camel"):
    """What both kinds of message have."""

    sender_id: Id
    message: Text


class Messages(msgspec.Struct, omit_defaults=True):
    """Messages, oldest first, or null; `more` and `expired` only if true; no cursor for a question by timestamp."""

    messages: Sequence[Message] | None
    more: bool = False
    expired: bool = False
    cursor: str | msgspec.UnsetType = msgspec.UNSET


PRIVATE = Form(PrivateMessage, receiver_id="recipientId")
GROUPWIDE = Form(GroupMessage, group_id="recipientId")
FORMS: Mapping[str, Form[Any]] = {"private": PRIVATE, "group": GROUPWIDE}
ANY = Form(AnyMessage)

TEXT = "Are you coming?"
AS_SENDER = {"userId": "$response.body#/senderId"}


@operation(
    "sendMessage",
    "Send a message to a user or to a group",
    bodies={
        "private": (PRIVATE, {"senderId": USER, "receiverId": OTHER, "message": TEXT}),
        "group": (GROUPWIDE, {"senderId": USER, "groupId": GROUP, "message": TEXT}),
    },
    params=(Param("type", "To whom.", {"enum": ["private", "group"]}, "private", required=True),),
    answer=Message,
    example=MESSAGE,
    codes=(
        *("unknown_type", "message_too_large", "unknown_user", "unknown_group", "blocked", "not_a_member"),
        *("mailbox_busy", *WRITES),
    ),
    links=(
        Link("readMessages", "Read it as its sender.", {"userId": "$response.body#/senderId", "sent": "include"}),
        Link("readMessages", "Read it as its receiver.", {"userId": "$response.body#/recipientId"}),
        Link("readHistory", "Read it in its group.", {"groupId": "$response.body#/recipientId", **AS_SENDER}),
    ),
)
async def send(call: Call) -> Reply:
    """Send a message."""
    kind = query(call, "type").get("type", "")
    sender_id, recipient_id, text = wanted(kind, await read_body(call), call.settings)
    key = find_key(call, kind, recipient_id, text, scope=sender_id)
    return reply(await call.services.messages.send(sender_id, recipient_id, text, kind == "group", key))


def wanted(kind: str, body: bytes, settings: Settings) -> tuple[str, str, str]:
    """Sender, recipient and text of a message of a kind. Raises Malformed, TooLarge."""
    form = FORMS.get(kind)
    if form is None:
        ANY.read(body, settings)  # what is wrong with the body is said first
        raise Malformed("unknown_type", "The parameter type must be private or group.")
    sender_id, recipient_id, text = form.values(body, settings)
    return sender_id, recipient_id, text


@operation(
    "readMessages",
    "A user's messages: all, or what is later than a timestamp, or what the cursor's holder was not given yet",
    params=(
        Param("cursor", "The last answer's; `now` for one without messages. Empty is none.", {"type": "string"}, "now"),
        Param(
            "timestamp",
            "Only messages strictly after it, Unix ms; empty, 0 or less is none. Not with cursor.",
            {"type": "string", "pattern": "^([+-]?[0-9]+)?$"},
            "1715000000123",
        ),
        Param("limit", "At most so many, and `more`; without it, all are streamed.", page_limit, 100),
        Param(
            "wait",
            "Seconds to wait for news if there is none (long-poll).",
            lambda settings: {"type": "number", "minimum": 0, "maximum": settings.wait_max_s},
            20,
        ),
        Param("sent", "`include` for copies of what the user sent privately.", {"enum": ["include", ""]}, "include"),
    ),
    answer=Messages,
    example=Messages([MESSAGE], cursor="AQAAAY9..."),
    codes=(
        *("malformed", "bad_timestamp", "bad_limit", "bad_wait", "bad_sent", "bad_cursor", "both_cursor_and_timestamp"),
        *("unknown_user", "cursor_of_another_history", "too_many_waits", *READS),
    ),
    links=(
        Link(
            "readMessages",
            "Ask for what is new.",
            {"userId": "$request.path.userId", "cursor": "$response.body#/cursor"},
        ),
    ),
)
async def read(call: Call) -> Reply | Stream:
    """Answer a poll: one page if there is a limit, else everything."""
    question, is_page = _question(call)
    messages, wait = call.services.messages, question.wait_s
    if is_page:
        polled = messages.poll(question)
        return _page(await call.while_connected(polled, wait) if wait else await polled)
    pages = messages.pages(question)
    began = anext(pages)  # before any header goes out, so that what refuses the question gets its status
    first = await call.while_connected(began, wait) if wait else await began
    return Stream(_document(first, pages)) if first.more else _page(first)


def _question(call: Call) -> tuple[Question, bool]:
    settings = call.settings
    given = query(call, "cursor", "timestamp", "limit", "wait", "sent")
    cursor, timestamp = given.get("cursor") or None, find_timestamp(given)
    limit = find_limit(given, settings.page_max)
    if cursor is not None and timestamp is not None:
        raise Malformed("both_cursor_and_timestamp", "cursor and timestamp are two ways to ask; give one.")
    question = Question(
        user_id=call.path("userId"),
        cursor=cursor,
        timestamp=timestamp,
        limit=limit or settings.page_max,
        with_sent=with_sent(given),
        wait_s=wait_s(given, settings.wait_max_s),
    )
    return question, limit is not None


def _page(answer: Answer) -> Reply:
    cursor = msgspec.UNSET if answer.cursor is None else answer.cursor
    return reply(Messages(answer.messages or None, answer.more, answer.expired, cursor))


async def _document(first: Answer, rest: AsyncIterator[Answer]) -> AsyncGenerator[bytes, None]:
    """All pages as one JSON document: messages, then what is known only at the end."""
    answer, expired, opening = first, False, b'{"messages":['
    while True:
        if answer.messages:
            yield opening + msgspec.json.encode(answer.messages)[1:-1]
            opening = b","
        expired = expired or answer.expired
        following = await anext(rest, None)
        if following is None:
            break
        answer = following
    yield b'{"messages":null' if opening != b"," else b"]"
    if expired:
        yield b',"expired":true'
    if answer.cursor is not None:
        yield b',"cursor":' + msgspec.json.encode(answer.cursor)
    yield b"}"
