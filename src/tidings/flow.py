"""How much is read of a connection, and how long it may be idle: what uvicorn leaves without a bound."""

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_S = 1.0  # a refused client that still sends reads the answer in this time, instead of a reset connection
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
