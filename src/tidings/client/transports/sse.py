"""Server-Sent Events: a stream through whatever lets an answer of HTTP through that does not end."""

from collections.abc import AsyncIterator
from functools import partial

import msgspec

from tidings.client.pages import Page
from tidings.client.refusals import NotUnderstood, refusal
from tidings.client.transports import Broken, Unfit
from tidings.client.transports.eventstream import Event, Parser
from tidings.client.transports.stream import Pages, Streaming
from tidings.client.wire import ANSWER_MAX_BYTES, Wire, seconds
from tidings.model import Message

REFUSAL_MAX_BYTES = 65_536
# Nothing on the way should compress it: that takes memory for each stream, and holds events back until a block is full.
_HEADERS = {"Accept": "text/event-stream", "Accept-Encoding": "identity", "Cache-Control": "no-store"}


class _Closed(msgspec.Struct):
    """Why the server ends a stream."""

    code: str
    detail: str = ""
    retry: bool = False


_messages, _closings = msgspec.json.Decoder(Message), msgspec.json.Decoder(_Closed)


def event_streams(wire: Wire, user_id: str, *, with_sent: bool, limit: int) -> Streaming:
    """The transport."""
    return Streaming("sse", partial(_pages, wire, user_id, "include" if with_sent else None), wire, limit)


async def _pages(wire: Wire, user_id: str, sent: str | None, cursor: str | None) -> Pages:
    path = ("messages", user_id, "stream")
    query = {"cursor": cursor, "sent": sent}
    async with wire.answer(path, query, _HEADERS) as answer:
        if answer.status != 200:
            body = await answer.content.read(REFUSAL_MAX_BYTES)
            error = refusal(answer.status, body, seconds(answer.headers.get("Retry-After", "")))
            may_help = error.retry_s is not None and not error.code.startswith("http_")
            raise error if may_help else Unfit(error)
        if answer.content_type != "text/event-stream":
            raise Unfit(NotUnderstood(f"What answers at {wire.url} gives no stream of events."))
        async for page in _parsed(answer.content.iter_any()):
            yield page


async def _parsed(pieces: AsyncIterator[bytes]) -> Pages:
    parser = Parser(ANSWER_MAX_BYTES)
    try:
        async for piece in pieces:
            for event in parser.feed(piece):
                page = _page(event, parser)
                if page is not None:
                    yield page
    except Broken as broken:
        if broken.is_told:
            raise
        raise Broken(str(broken), retry_s=_retry_s(parser)) from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise Unfit(NotUnderstood(f"The stream is not as Tidings streams: {error}.")) from None
    raise Broken("The stream ended.", retry_s=_retry_s(parser))


def _page(event: Event, parser: Parser) -> Page | None:
    if event.kind == "closed":
        closed = _closings.decode(event.data)
        if closed.retry:
            raise Broken(closed.detail or closed.code, retry_s=_retry_s(parser), is_told=True)
        raise Unfit(NotUnderstood(f"The stream was closed: {closed.detail or closed.code}"))
    if event.kind == "expired":
        return Page((), None, expired=True)
    if event.kind not in ("message", "heartbeat"):
        return None
    if not event.id:
        raise ValueError("an event has no id to go on from")
    return Page((_messages.decode(event.data),) if event.kind == "message" else (), event.id)


def _retry_s(parser: Parser) -> float:
    return (parser.retry_ms or 0) / 1000
