"""Live delivery over HTTP: a stream of Server-Sent Events, and where the way to a WebSocket begins."""

import math

from tidings.api.call import WAIT, Call
from tidings.api.operation import READS, Param, operation
from tidings.api.query import parameters, with_sent
from tidings.api.replies import Headers, Reply
from tidings.live.handshake import upgrade_required
from tidings.live.sse import EventStream
from tidings.service import Question
from tidings.service.messages import NOW

EXAMPLE = 'id: AQAAAY9...\nevent: message\ndata: {"senderId":"...","message":"Are you coming?","recipientId":"..."}\n\n'

PARAMS = (
    Param("cursor", "Go on behind it; without one, from now.", {"type": "string"}, "now"),
    Param("sent", "`include` for copies of what the user sent privately.", {"enum": ["include", ""]}, "include"),
)


def question_of(user_id: str, query: str, last_event_id: str = "") -> Question:
    """What a stream is asked for. Raises Malformed."""
    given = parameters(query, "cursor", "sent")
    return Question(user_id, cursor=last_event_id or given.get("cursor") or NOW, with_sent=with_sent(given))


@operation(
    "streamMessages",
    "A user's messages as they come, as Server-Sent Events",
    params=(
        *PARAMS,
        Param(
            "Last-Event-ID",
            "The id of the last event received: a cursor, which goes before the one in the query.",
            {"type": "string"},
            "AQAAAY9...",
            place="header",
        ),
    ),
    answer=str,
    example=EXAMPLE,
    media="text/event-stream",
    codes=(
        *("malformed", "bad_sent", "bad_cursor", "unknown_user", "cursor_of_another_history", "too_many_waits"),
        *READS,
    ),
)
async def stream(call: Call) -> EventStream:
    """Open a stream: refused as a poll would be, or begun."""
    headers = dict(call.scope["headers"])
    last = headers.get(b"last-event-id", b"").decode("latin-1")
    question = question_of(call.path("userId"), _query_of(call), last)
    streams = call.shared.streams
    session = streams.holding(question)
    try:
        await session.open()
    except BaseException:
        session.let_go()
        raise
    call.scope[WAIT] = math.inf  # it is not slow, however long it lasts
    return EventStream(streams, session, _allowing(headers))


@operation(
    "openSocket",
    "A user's messages as they come, and sending, over a WebSocket (RFC 6455), subprotocol `tidings.v1`",
    params=PARAMS,
    answer=str,
    example="",
    codes=("malformed", "bad_sent", "bad_subprotocol", "upgrade_required"),
    status="101",
)
async def live(call: Call) -> Reply:
    """Refuse who comes without a handshake; handshakes don't come here, the protocol takes them."""
    question_of(call.path("userId"), _query_of(call))  # what is wrong with the query is said first
    raise upgrade_required()


def _query_of(call: Call) -> str:
    query: bytes = call.scope["query_string"]
    return query.decode("latin-1")


def _allowing(headers: dict[bytes, bytes]) -> Headers:
    """What lets a page of an origin that was let in read the answer (Fetch, 3.2.5: CORS)."""
    origin = headers.get(b"origin")
    return () if origin is None else ((b"access-control-allow-origin", origin), (b"vary", b"origin"))
