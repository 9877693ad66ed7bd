"""What the client of one socket sends: so much at a time, each answered once by its ref."""

import time
from collections import deque
from collections.abc import Callable
from functools import partial

import msgspec

from tidings.api.replies import Problem, internal, jittered, shown
from tidings.config import Settings
from tidings.errors import TidingsError, Unavailable
from tidings.live.asked import Fields, NotJson, fields_of, ref_of, send_of
from tidings.metrics import Metrics
from tidings.model import Message
from tidings.service import Messages

AT_A_TIME = 16  # of one socket waiting for the store: its device is written on by hand
ROUTE = "/v1/messages/send"


class _Sent(msgspec.Struct, tag_field="type", tag="sent"):
    ref: str | None
    message: Message


class _Problem(Problem, frozen=True):
    retryAfter: int | msgspec.UnsetType = msgspec.UNSET  # noqa: N815  # as it stands in the JSON


class _Refused(msgspec.Struct, tag_field="type", tag="refused"):
    ref: str | None
    problem: _Problem


class Sending:
    """The sends of one socket. `say` writes an answer, `on_settled` hears of each send that is through."""

    __slots__ = ("_messages", "_metrics", "_on_settled", "_say", "_settings", "_user_id", "_waiting", "in_flight")

    def __init__(
        self,
        messages: Messages,
        settings: Settings,
        metrics: Metrics,
        user_id: str,
        say: Callable[[bytes], None],
        on_settled: Callable[[], None],
    ) -> None:
        self._messages = messages
        self._settings = settings
        self._metrics = metrics
        self._user_id = user_id
        self._say = say
        self._on_settled = on_settled
        self._waiting: deque[bytes] = deque()
        self.in_flight = 0

    @property
    def is_busy(self) -> bool:
        """Whether some wait for others."""
        return bool(self._waiting)

    def take(self, text: bytes) -> None:
        """Do what is asked for, now or when it is its turn. Raises NotJson."""
        if self.in_flight >= AT_A_TIME:
            self._waiting.append(text)
            return
        ref, began = None, time.perf_counter()
        try:
            fields = fields_of(text)
            ref = ref_of(fields)
            self._send(fields, text, ref, began)
        except NotJson:
            raise
        except Exception as error:
            self._answer(ref, began, None, error)

    def stop(self) -> None:
        """Send no more of what waits: its client does not hear of it any more, and will send it again."""
        self._waiting.clear()

    def refuse(self, text: bytes) -> None:
        """Take no more: the socket is about to close. Raises NotJson."""
        began, closing = time.perf_counter(), Unavailable("shutting_down", "This socket is closing.", retry_s=1)
        try:
            ref = ref_of(fields_of(text))
        except TidingsError as error:
            self._answer(None, began, None, error)
        else:
            self._answer(ref, began, None, closing)

    def _send(self, fields: Fields, text: bytes, ref: str | None, began: float) -> None:
        send = send_of(fields, text, self._user_id, self._settings)
        settle = partial(self._settle, ref, began)
        self._messages.submit(send.sender_id, send.recipient_id, send.text, send.is_group, send.key, settle)
        self.in_flight += 1

    def _settle(self, ref: str | None, began: float, message: Message | None, error: Exception | None) -> None:
        self.in_flight -= 1
        self._answer(ref, began, message, error)
        self._on_settled()

    def go_on(self) -> None:
        """Take what waits, as far as there is room. Raises NotJson."""
        while self._waiting and self.in_flight < AT_A_TIME:
            self.take(self._waiting.popleft())

    def _answer(self, ref: str | None, began: float, message: Message | None, error: Exception | None) -> None:
        """Answer a send, which is counted as the POST that it might have been."""
        if message is not None:
            status, answer = "200", msgspec.json.encode(_Sent(ref, message))
        else:
            refusal = error if isinstance(error, TidingsError) else internal(ROUTE, error or RuntimeError("no outcome"))
            problem = msgspec.structs.asdict(shown(refusal))
            if refusal.retry_s is not None:
                problem["retryAfter"] = jittered(refusal.retry_s)
            status, answer = str(refusal.status), msgspec.json.encode(_Refused(ref, _Problem(**problem)))
        self._say(answer)
        self._metrics.answered(ROUTE, "POST", status, time.perf_counter() - began)
