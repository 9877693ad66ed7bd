"""A plain send, taken from the protocol and answered to it without ASGI, task and future.

Those cost as much as all else that a send does on the event loop. Only the plainest form of the call is taken (nothing
encoded, no header twice, a length that fits); the route answers any other the same, a little slower. What is checked,
in which order, and what is said are the route's: it reads with the same functions.
"""

import time
from collections.abc import Callable
from functools import partial

from tidings.api.limits import Guard
from tidings.api.messages import wanted
from tidings.api.query import key_of
from tidings.api.replies import Reply, fault, problem, reply
from tidings.api.wire import Headers
from tidings.config import Settings
from tidings.errors import TidingsError
from tidings.metrics import Metrics
from tidings.model import Message
from tidings.service import Messages

ROUTE = "/v1/messages/send"
_KINDS = {f"{ROUTE}?type={kind}".encode(): kind for kind in ("private", "group")}
_AS_A_WHOLE = 65_536  # bytes of a body that are kept before anything reads it; uvicorn's own bound


class Nobody:
    """Who waits for a plain send's body: nobody is woken when it comes."""

    def set(self) -> None:
        """Wake nobody."""


class PlainSend:
    """A send under way without ASGI, in the place of uvicorn's RequestResponseCycle: what uvicorn asks of one.

    So what comes behind it on its connection waits, and a server that stops waits for it.
    """

    __slots__ = (
        *("_answer", "began", "body", "disconnected", "is_begun", "keep_alive", "key", "kind", "response_complete"),
    )
    message_event = Nobody()
    response_started = False

    def __init__(self, kind: str, key: bytes | None, answer: Callable[["PlainSend", Reply], None]) -> None:
        self.kind = kind
        self.key = key
        self.body = b""
        self.began = time.perf_counter()
        self.is_begun = self.disconnected = self.response_complete = False
        self.keep_alive = True
        self._answer = answer

    def answer(self, reply: Reply) -> None:
        """Answer it on its connection."""
        self._answer(self, reply)


class Sends:
    """What the protocol asks for each POST: `find` at the end of its headers, `begin` at the end of its body."""

    def __init__(self, messages: Messages, guard: Guard, settings: Settings, metrics: Metrics) -> None:
        self._messages = messages
        self._guard = guard
        self._settings = settings
        self._metrics = metrics
        self._body_max = min(settings.body_max_bytes, _AS_A_WHOLE)

    def find(self, target: bytes, headers: Headers, answer: Callable[["PlainSend", Reply], None]) -> PlainSend | None:
        """The plain send that a head begins; None if it is for the application."""
        kind = _KINDS.get(target)
        if kind is None:
            return None
        by_name = self._guard.find_plain(headers)
        if by_name is None or b"transfer-encoding" in by_name or b"expect" in by_name:
            return None
        if not 0 <= int(by_name.get(b"content-length", b"-1")) <= self._body_max:
            return None
        return PlainSend(kind, by_name.get(b"idempotency-key"), answer)

    def begin(self, sending: PlainSend) -> None:
        """Send what came whole; it is answered once, now or later, with what the route would reply."""
        settle = partial(self._settle, sending)
        try:
            kind = sending.kind
            sender_id, recipient_id, text = wanted(kind, sending.body, self._settings)
            key = None if sending.key is None else key_of(sending.key, sender_id, kind, recipient_id, text)
            self._messages.submit(sender_id, recipient_id, text, kind == "group", key, settle)
        except Exception as error:
            settle(None, error)

    def gone(self, sending: PlainSend) -> None:
        """The client left before the body came whole."""
        self._metrics.answered(ROUTE, "POST", "gone", time.perf_counter() - sending.began)

    def _settle(self, sending: PlainSend, message: Message | None, error: Exception | None) -> None:
        answer = reply(message) if message is not None else _refusal(error)
        sending.answer(answer)
        self._metrics.answered(ROUTE, "POST", str(answer.status), time.perf_counter() - sending.began)


def _refusal(error: Exception | None) -> Reply:
    if isinstance(error, TidingsError):
        return problem(error)
    return fault(f"POST {ROUTE}", error or RuntimeError("neither a message nor a reason"))
