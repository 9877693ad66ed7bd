"""The HTTP/1.1 protocol: uvicorn's own, with bounds on what it buffers before the application sees a request.

uvicorn keeps a request's target and headers however long they are, waits for ever for a first request, and answers
what it can't parse in plain text. Here each has a limit, and refusals are problem+json like all others.
"""

import asyncio
from typing import Any, NoReturn

import httptools
from uvicorn import Config
from uvicorn.server import ServerState

from tidings.api.replies import Reply, problem
from tidings.api.sends import PlainSend
from tidings.api.wire import Wire
from tidings.config import Settings
from tidings.errors import Malformed, TidingsError, body_too_large, headers_too_large, uri_too_long
from tidings.flow import LINGER_S, Flow, PatientProtocol
from tidings.live.handshake import Handshake, without_offer
from tidings.live.sse import CONNECTION, Carrier

PIECE = 16_384  # bytes of what came that are parsed at a time: some 400 of the shortest requests, 2 MB in memory
WITH_BODY = (b"content-length", b"transfer-encoding")


class BoundedProtocol(PatientProtocol):
    """One connection. `limits` gives the bounds: bytes of target, headers and body, seconds for a whole request."""

    limits: Settings
    wire: Wire

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.url = b""  # uvicorn's own attribute, there only from the first request on
        self._is_refused = False
        self._is_answered = False  # the request being read was a hot poll
        self._refusal: TidingsError | None = None
        self._replay: bytes | None = None
        self._handshake: Handshake | None = None
        self._running: Any = None  # the cycle that a task has; what comes behind it takes its place as `cycle`
        self._in_body = False
        self._body_left = 0
        self._stalled: asyncio.TimerHandle | None = None
        self.carrier: Carrier | None = None  # of a stream that is written straight to the transport
        # Bytes of the request being read, counted by chunks: those before it in its first chunk included, and left out.
        self._at_most = self._at_least = self._chunk = 0
        self._uri_max, self._headers_max = self.limits.uri_max_bytes, self.limits.headers_max_bytes
        self._head_max = self._uri_max + self._headers_max
        # A body sent in chunks of one byte takes six on the wire for each.
        self._message_max = self._head_max + 8 * self.limits.body_max_bytes

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Begin, with the time for a whole first request running."""
        super().connection_made(transport)
        self.flow: Flow = Flow(transport)
        self._await_client()

    def data_received(self, data: bytes) -> None:
        """Parse what came, a piece at a time: no more while requests wait behind the one being answered."""
        if self.flow.held:
            data, self.flow.held = self.flow.held + data, b""
        while data and not self._is_refused and self.parser is not None:
            if self.pipeline:
                self.flow.hold(data)
                return
            piece, data = data[:PIECE], data[PIECE:]
            self._parse(piece, data)

    def _parse(self, data: bytes, behind: bytes) -> None:
        """Parse a piece; what is malformed or over a limit is refused, and the connection ended."""
        self._chunk = len(data)
        self._at_most += self._chunk
        self._at_least += self._chunk
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                if self._handshake is not None:
                    self._hand_over(self._handshake, data[upgrade.args[0] :] + behind)
                    return
                # An offer of something not spoken here is passed over (RFC 9110, 7.8). The parser has skipped the body
                # behind it, and Java's client offers h2c with a body: so all is parsed again as if nothing was offered.
                head, self._replay = self._replay or b"", None
                data = head + data[upgrade.args[0] :]
            except httptools.HttpParserError:
                self.send_400_response("")
                return
        if self._at_least > (self._message_max if self._in_body else self._head_max):
            self._refusal = self._too_large()
            self.send_400_response("")

    def on_headers_complete(self) -> None:
        """Check the whole head, and hand the request to the application."""
        if len(self.url) > self._uri_max or (
            self._at_most > self._headers_max  # else nothing need be added up
            and sum(len(name) + len(value) + 4 for name, value in self.headers) > self._headers_max
        ):
            self._refuse(self._too_large())
        if self.parser.should_upgrade():
            self._handshake = self._find_handshake()
            self._replay = self._without_upgrade() if self._handshake is None else None
            return
        self._body_left = self.limits.body_max_bytes
        if self._is_taken_without_asgi():
            return
        if any(name == b"content-length" and int(value) > self._body_left for name, value in self.headers):
            self._refuse(body_too_large(self.limits.body_max_bytes))  # at once: nothing of it is read
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = headers
        self.scope[CONNECTION] = self  # type: ignore[literal-required]  # a name of ours
        super().on_headers_complete()
        if self._is_last_call:
            self.cycle.keep_alive = False
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body, or refuse the whole: sent in chunks, its length shows only now."""
        self._body_left -= len(body)
        if self._body_left < 0:
            self._refuse(body_too_large(self.limits.body_max_bytes))
        cycle: Any = self.cycle
        if isinstance(cycle, PlainSend):
            cycle.body += body  # nobody waits for a part of it
        else:
            super().on_body(body)

    def on_message_begin(self) -> None:
        """Begin a request; the scope, which only the application needs, is made once it is known to be its."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def _is_taken_without_asgi(self) -> bool:
        """Take a request that is in no way special, with nothing before it on this connection, if it is one of ours."""
        parser, cycle = self.parser, self.cycle
        is_plain = parser.get_http_version() == "1.1" and parser.should_keep_alive() and not self.flow.write_paused
        if not is_plain or self._is_last_call or (cycle is not None and not cycle.response_complete):
            return False
        try:
            method = parser.get_method()
            return self._is_hot_poll() if method == b"GET" else method == b"POST" and self._is_plain_send()
        except Exception:  # the parser would take a fault of ours for one of the client's
            self.logger.exception("a request could not be taken on the spot")
            return False

    def _is_hot_poll(self) -> bool:
        """Answer it here and now, if it is one."""
        if any(name in WITH_BODY for name, _ in self.headers):
            return False
        response = self.config.loaded_app.find_response(self.url, self.headers, self.server_state.default_headers)
        if response is None:
            return False
        self._is_answered = True
        self.transport.write(response)
        self.server_state.total_requests += 1
        self._await_client()
        return True

    def _is_plain_send(self) -> bool:
        """Take it, if it is one: its body comes, and then it needs neither task nor ASGI."""
        found = self.config.loaded_app.sends.find(self.url, self.headers, self._answer)
        if found is None:
            return False
        self._in_body = True
        self.cycle = found
        return True

    def _answer(self, cycle: PlainSend, reply: Reply) -> None:
        """Answer a plain send as uvicorn would."""
        if cycle.disconnected or self.transport.is_closing():
            return
        common = self.server_state.default_headers
        self.transport.write(self.wire.response(reply, common, keep_alive=cycle.keep_alive))
        cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def pause_writing(self) -> None:
        """Wait for a client that takes its answers too slowly, but not for ever."""
        super().pause_writing()
        if self.carrier is not None:
            self.carrier.paused()
            return
        # A little longer than a stream waits before it is broken off: closing alone would wait for the client again.
        self._stalled = self.loop.call_later(self.limits.keep_alive_s + LINGER_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: it took them."""
        super().resume_writing()
        self._stop_stalling()
        if self.carrier is not None:
            self.carrier.resumed()

    def _stop_stalling(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def connection_lost(self, exc: Exception | None) -> None:
        """End; a send whose body did not come whole is none."""
        super().connection_lost(exc)  # which tells the last cycle alone
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        self._stop_stalling()
        self._let_go_of_timer()
        if self.carrier is not None:
            self.carrier.gone()
        cycle: Any = self.cycle
        if isinstance(cycle, PlainSend) and not cycle.is_begun:
            self.config.loaded_app.sends.gone(cycle)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Go on with what waits behind an answer, as uvicorn does; a request that came in part has its time, too."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        if self.flow.held:
            self.data_received(b"")
        self.flow.resume_reading()
        if self._in_body or self.cycle.response_complete:
            self._await_client()

    def on_message_complete(self) -> None:
        """End a request: it came whole and in time."""
        if self._replay is not None or self._handshake is not None:
            return
        self._at_most, self._at_least = self._chunk, 0
        if self._is_answered:
            self._is_answered = False
            return
        self._in_body = False
        cycle: Any = self.cycle
        if not cycle.response_complete:
            self._unset_keepalive_if_required()
        if isinstance(cycle, PlainSend):
            cycle.is_begun = True
            self.config.loaded_app.sends.begin(cycle)
        else:
            super().on_message_complete()

    def _find_handshake(self) -> Handshake | None:
        """The handshake that this request is, if it is one, with nothing before it that is not answered."""
        is_free = self.cycle is None or self.cycle.response_complete
        head = (self.parser.get_method(), self.parser.get_http_version(), self._get_upgrade())
        if not is_free or head != (b"GET", "1.1", b"websocket") or any(name in WITH_BODY for name, _ in self.headers):
            return None
        try:
            found: Handshake | None = self.config.loaded_app.sockets.find_handshake(self.url, self.headers)
        except TidingsError as refusal:
            self._refuse(refusal)
        return found

    def _hand_over(self, handshake: Handshake, rest: bytes) -> None:
        """Leave the connection to a socket, which counts in the place of this among all."""
        self._let_go_of_timer()
        self._stop_stalling()
        self.server_state.total_requests += 1
        self.parser = None  # type: ignore[assignment]  # as uvicorn, where a connection ends
        socket = self.config.loaded_app.sockets.open(handshake, self.transport, self.server_state)
        self.connections.add(socket)
        self.connections.remove(self)  # `discard` would tell that a connection ended
        self.transport.set_protocol(socket)
        if self.flow.write_paused:
            socket.pause_writing()
        if rest:
            socket.data_received(rest)

    def send_400_response(self, msg: str) -> None:
        """Refuse what comes in now, for `_refusal` or as malformed, and end the connection."""
        self._is_refused = True
        self._unset_keepalive_if_required()
        if self._in_body:
            self._give_up_body()
        elif self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False  # the requests before this one get their answers, and nothing follows them
        else:
            self._write(self._refusal or Malformed("malformed", "This is not a well-formed HTTP/1.1 request."))

    def _give_up_body(self) -> None:
        """Refuse a request that the application has already, because of what its body turns out to be."""
        cycle = self.cycle
        cycle.disconnected = True
        cycle.message_event.set()
        if cycle.response_complete:
            self._linger()
        elif cycle.response_started or self.pipeline:
            self.transport.close()  # no answer can be put into another, or before it
        else:
            self._write(self._refusal or Malformed("malformed", "The body can't be read to its end."))

    def _write(self, refusal: TidingsError) -> None:
        self.transport.write(self.wire.response(problem(refusal), self.server_state.default_headers, keep_alive=False))
        self._linger()

    def _linger(self) -> None:
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._let_go_of_timer()
        self.timeout_keep_alive_task = self.loop.call_later(LINGER_S, self.transport.close)

    def _refuse(self, refusal: TidingsError) -> NoReturn:
        self._refusal = refusal
        raise refusal

    def _too_large(self) -> TidingsError:
        if self._in_body:
            return body_too_large(self.limits.body_max_bytes)
        return uri_too_long(self._uri_max) if len(self.url) > self._uri_max else headers_too_large(self._headers_max)

    def _without_upgrade(self) -> bytes:
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(Malformed("malformed", "This server is no proxy."))
        return without_offer(method, self.url, self.parser.get_http_version(), self.headers)


def bounded_by(settings: Settings) -> type[BoundedProtocol]:
    """The protocol with the bounds of these settings."""
    return type("BoundedProtocol", (BoundedProtocol,), {"limits": settings, "wire": Wire()})
