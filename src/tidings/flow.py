"""How much is read of a connection, how long it may be idle, and how it ends: what uvicorn leaves unbounded or cuts."""

from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tidings.live.sse import Carrier

LINGER_S = 1.0  # a refused client that still sends reads the answer in this time, instead of a reset connection
LAST_CALL_S = 0.2  # for what a client asks before it can know that the server stops: a round trip on most networks
NEVER = float("inf")


class Flow(FlowControl):
    """Reads no more while a part of what came is held back, whoever would go on.

    Else a client that writes faster than it is answered fills all memory: by 250 MB/s, with requests of 36 bytes.
    """

    held = b""

    def hold(self, data: bytes) -> None:
        """Keep what came for later."""
        self.held = data
        self.pause_reading()

    def resume_reading(self) -> None:
        """Go on, if nothing is held back."""
        if not self.held:
            super().resume_reading()


class PatientProtocol(HttpToolsProtocol):
    """One connection, with one timer for what it waits for its client; moved at each request, it cost 0.8 us."""

    _waits_since = NEVER  # for its client, by the loop's clock
    _is_last_call = False  # the server stops: one more request is answered
    _running: Any = None  # the cycle that a task has; what comes behind it takes its place as `cycle`
    carrier: Carrier | None = None  # of a stream that is written straight to the transport
    flow: Flow

    def timeout_keep_alive_handler(self) -> None:
        """Close what is idle, and drop it where not even that is taken."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(LINGER_S, self.transport.abort)

    def _await_client(self) -> None:
        """Give the client the idle time from now on."""
        self._waits_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self._look_whether_idle)

    def _unset_keepalive_if_required(self) -> None:
        self._waits_since = NEVER

    def _look_whether_idle(self) -> None:
        self.timeout_keep_alive_task = None
        left_s = self._waits_since + self.timeout_keep_alive - self.loop.time()
        if left_s <= 0:
            self.timeout_keep_alive_handler()
        elif self._waits_since != NEVER:
            self.timeout_keep_alive_task = self.loop.call_later(left_s, self._look_whether_idle)

    def _let_go_of_timer(self) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def carry(self, carrier: Carrier) -> None:
        """Be a stream's from now on: its answer is under way."""
        self.carrier = carrier
        if self.pipeline or self.flow.held:
            self._end_with_stream()

    def _end_with_stream(self) -> None:
        """What is asked behind a stream is not answered: its end is the connection's, too.

        Held back, as behind other answers, it would hide for as long as the stream lasts that the client has left.
        """
        self._running.keep_alive = False
        self.pipeline.clear()
        self.flow.held = b""
        self.flow.resume_reading()

    def shutdown(self) -> None:
        """Answer what is being asked, or is on its way, as the last; then end.

        Of clients that ask again as soon as they are answered, each has a request on its way at any moment.
        """
        self._is_last_call = True
        if self.cycle is not None:
            self.cycle.keep_alive = False
        grace_s = self.config.timeout_graceful_shutdown or 0.0
        self.loop.call_later(min(LAST_CALL_S, grace_s / 10), self._close_if_idle)

    def _close_if_idle(self) -> None:
        is_handed_over = self.parser is None
        if not is_handed_over and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()
