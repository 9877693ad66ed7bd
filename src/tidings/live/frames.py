"""The frames of one WebSocket (RFC 6455), by the Sans-I/O layer of `websockets`; a close says why as compact JSON."""

import logging
from typing import cast

import msgspec
from websockets.frames import BINARY, CLOSE, PONG, CloseCode, Frame
from websockets.protocol import Protocol, Side, State

from tidings.api.openapi import STATUS
from tidings.live.session import Ending

OWN = 4_000  # added to the status that a poll would have been refused with: RFC 6455, 7.4.2, private use
CODES = {
    "closed": int(CloseCode.NORMAL_CLOSURE),
    "protocol_error": int(CloseCode.PROTOCOL_ERROR),
    "binary_frame": int(CloseCode.UNSUPPORTED_DATA),
    "bad_text": int(CloseCode.INVALID_DATA),
    "frame_too_large": int(CloseCode.MESSAGE_TOO_BIG),
    "internal": int(CloseCode.INTERNAL_ERROR),
    "shutting_down": int(CloseCode.SERVICE_RESTART),
    "slow_reader": OWN + 408,
    "no_pong": OWN + 409,
}
NAMES = {code: name for name, code in CODES.items()}

# The library tells each closed connection as news, and with debugging on each frame, which are people's letters.
_quiet = logging.getLogger("tidings.frames")
_quiet.setLevel(logging.ERROR)

__all__ = ["BINARY", "CLOSE", "PONG", "Frame", "Frames", "State", "said_of"]


class Frames(Protocol):
    """What goes over one socket, both ways; `max_size` bounds a message in bytes, however many frames it takes."""

    def __init__(self, max_size: int) -> None:
        super().__init__(Side.SERVER, state=State.OPEN, max_size=max_size, logger=_quiet)
        self.is_failed = False

    def received(self, data: bytes) -> list[Frame]:
        """The frames that are whole with this."""
        self.receive_data(data)
        return cast(list[Frame], self.events_received())  # behind the handshake there is nothing else

    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        """End it for what the other side did wrong; the library calls this as well."""
        self.is_failed = True
        name = NAMES.get(int(code), "protocol_error")
        super().fail(code, _reason(name, None))

    def end(self, ending: Ending) -> None:
        """Begin to close: why, and whether and when to come back."""
        self.send_close(said_of(ending.code), _reason(ending.code, ending.retry_s))

    def let_go(self) -> None:
        """Be no circle of references any more, since those are looked for rarely."""
        self.parser.close()


def said_of(code: str) -> int:
    """The close code for a code as in problem+json."""
    return CODES.get(code) or OWN + STATUS.get(code, 500)


class _Reason(msgspec.Struct):
    code: str
    retry: bool
    after: float


def _reason(code: str, retry_s: float | None) -> str:
    """At most 123 bytes, which is what fits (RFC 6455, 5.5)."""
    reason = _Reason(code, retry_s is not None, round(retry_s or 0.0, 3))
    return msgspec.json.encode(reason).decode()
