"""WebSocket: a stream where the way to the server lets one through (RFC 6455; subprotocol `tidings.v1`)."""

from functools import partial
from typing import Any

import aiohttp
import msgspec

from tidings.client.pages import Page
from tidings.client.refusals import NotUnderstood, refusal
from tidings.client.transports import Broken, Unfit
from tidings.client.transports.stream import Pages, Streaming
from tidings.client.wire import Wire
from tidings.errors import TidingsError
from tidings.model import Message

PROTOCOL = "tidings.v1"
# Close codes after which the stream may be opened again: normal, going away, no code, lost, fault of the server's,
# stopping; too slow to take, no pong.
_MAY_RETURN = {1000, 1001, 1005, 1006, 1011, 1012, 4408, 4409}
_SAID = {1012, 4408, 4409}
_STATUS = range(4400, 4600)  # what a poll would have been answered, 4000 above its status


class _Frame(msgspec.Struct):
    type: str
    cursor: str = ""
    message: Any = None


class _Reason(msgspec.Struct):
    code: str = ""
    retry: bool = False
    after: float = 0.0


_frames, _reasons = msgspec.json.Decoder(_Frame), msgspec.json.Decoder(_Reason)


def web_sockets(wire: Wire, user_id: str, *, with_sent: bool, limit: int) -> Streaming:
    """The transport."""
    return Streaming("websocket", partial(_pages, wire, user_id, "include" if with_sent else None), wire, limit)


async def _pages(wire: Wire, user_id: str, sent: str | None, cursor: str | None) -> Pages:
    path = ("messages", user_id, "live")
    query = {"cursor": cursor, "sent": sent}
    async with wire.socket(path, query, PROTOCOL) as socket:
        if socket.protocol != PROTOCOL:
            raise Unfit(NotUnderstood(f"The WebSocket of {wire.url} is not one of Tidings."))
        while True:
            frame = await socket.receive()  # which answers pings
            if frame.type == aiohttp.WSMsgType.TEXT:
                page = _page(frame.data)
                if page is not None:
                    yield page
            elif frame.type == aiohttp.WSMsgType.CLOSE:
                raise _ending(frame.data, frame.extra or "")
            elif frame.type == aiohttp.WSMsgType.BINARY:
                raise Unfit(NotUnderstood("The WebSocket gave bytes, which Tidings never does."))
            else:  # CLOSING, CLOSED, ERROR
                raise Broken("The WebSocket was lost.")


def _page(text: str) -> Page | None:
    try:
        frame = _frames.decode(text)
        if frame.type == "expired":
            return Page((), None, expired=True)
        if frame.type not in ("message", "heartbeat"):
            return None
        messages = (msgspec.convert(frame.message, Message),) if frame.type == "message" else ()
    except msgspec.MsgspecError as error:
        raise Unfit(NotUnderstood(f"A frame is not as Tidings sends them: {error}.")) from None
    if not frame.cursor:
        raise Unfit(NotUnderstood("A frame has no cursor."))
    return Page(messages, frame.cursor)


def _ending(code: int, text: str) -> TidingsError | Unfit:
    """What a close frame says."""
    try:
        reason = _reasons.decode(text)
    except msgspec.MsgspecError:
        reason = _Reason()
    said = f"The WebSocket was closed: {reason.code or code}."
    if code in _MAY_RETURN:
        return Broken(said, retry_s=reason.after, is_told=code in _SAID)
    if code not in _STATUS:
        return Unfit(NotUnderstood(said))
    error = refusal(code - 4000, text.encode(), reason.after)
    return error if reason.retry else Unfit(error)
