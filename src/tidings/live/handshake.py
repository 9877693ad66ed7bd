"""The way from HTTP/1.1 to WebSocket (RFC 6455, 4.2): who may take it, and what is answered to whom may not.

What a poll would be refused for (its cursor, its user) is said on the socket, as a close code: a browser shows its page
nothing of an HTTP answer to a handshake.
"""

import re
from urllib.parse import unquote

import msgspec
from websockets.datastructures import Headers as Fields
from websockets.exceptions import InvalidHandshake, InvalidHeader, InvalidUpgrade, NegotiationError
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from tidings.api.limits import Guard
from tidings.api.wire import Headers
from tidings.errors import Malformed, TidingsError, UpgradeRequired

ROUTE = "/v1/messages/{userId}/live"
SUBPROTOCOL = "tidings.v1"
HOP_BY_HOP = (b"connection", b"upgrade", b"http2-settings")
_PATH = re.compile(r"/v1/messages/([^/]+)/live")


class Handshake(msgspec.Struct, frozen=True):
    """A handshake that is accepted: whose messages, what the query says, and the proof that it was understood."""

    user_id: str
    query: str
    accept: str

    def response(self, common: Headers) -> bytes:
        """The answer, `common` headers first; what follows it is WebSocket.

        No extension is taken: compression is work for each message of each reader, where one encoding serves all.
        """
        head = b"".join(b"%b: %b\r\n" % header for header in common)
        return b"HTTP/1.1 101 Switching Protocols\r\n%bupgrade: websocket\r\nconnection: upgrade\r\n%b" % (
            head,
            f"sec-websocket-accept: {self.accept}\r\nsec-websocket-protocol: {SUBPROTOCOL}\r\n\r\n".encode(),
        )


class Doorkeeper:
    """Reads handshakes."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._library = ServerProtocol(subprotocols=[Subprotocol(SUBPROTOCOL)])

    def find(self, target: bytes, headers: Headers) -> Handshake | None:
        """The handshake that the head of a GET is; None for a path where there is no socket.

        Raises Foreign, Malformed, UpgradeRequired and what else is refused before routing.
        """
        raw_path, _, raw_query = target.partition(b"?")
        found = _PATH.fullmatch(unquote(raw_path.decode("latin-1")))
        if found is None:
            return None
        refusal = self._guard.refuses({"raw_path": raw_path, "query_string": raw_query, "headers": headers})
        if refusal is not None:
            raise refusal
        fields = Fields([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])
        try:
            accept, _, _ = self._library.process_request(Request("", fields))
        except InvalidHandshake as error:
            raise _refusal(error) from None
        return Handshake(found[1], raw_query.decode("latin-1"), accept)


def _refusal(error: InvalidHandshake) -> TidingsError:
    if isinstance(error, NegotiationError):
        return Malformed("bad_subprotocol", f"Sec-WebSocket-Protocol must offer {SUBPROTOCOL}.")
    is_version = isinstance(error, InvalidHeader) and error.name.lower() == "sec-websocket-version"
    return (
        upgrade_required() if is_version or isinstance(error, InvalidUpgrade) else Malformed("malformed", f"{error}.")
    )


def without_offer(method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """A request's head as if nothing had been offered to upgrade to."""
    kept = b"".join(b"%b: %b\r\n" % header for header in headers if header[0] not in HOP_BY_HOP)
    return b"%b %b HTTP/%b\r\n%b\r\n" % (method, target, version.encode(), kept)


def upgrade_required() -> TidingsError:
    """The error for who comes without a handshake, or with one of another version."""
    return UpgradeRequired("upgrade_required", f"Here one speaks WebSocket, version 13, subprotocol {SUBPROTOCOL}.")
