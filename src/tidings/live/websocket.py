"""A WebSocket: a session written straight to its connection, and what its client sends, answered there.

There is no ASGI, and no task but the session's own: what comes is taken where the transport hands it over, and what the
store says of a send is written from its callback. Nothing here grows with what a client does: of a client that sends
more than is answered, or reads less than is written, no more is read.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any, Protocol

from tidings.api.limits import Guard
from tidings.api.live import question_of
from tidings.api.replies import broken_off, internal
from tidings.api.wire import Headers
from tidings.config import Settings
from tidings.errors import TidingsError
from tidings.live.asked import NotJson
from tidings.live.frames import BINARY, CLOSE, PONG, Frame, Frames, State, said_of
from tidings.live.handshake import ROUTE, Doorkeeper, Handshake
from tidings.live.sending import Sending
from tidings.live.session import Ending, Event, Session
from tidings.live.streams import Streams
from tidings.metrics import Metrics
from tidings.service import Messages

PIECE = 4_096  # bytes of what came that are taken at a time: no more of it waits as objects, and others have their turn
CLOSING_S = 3.0  # for the other side to answer a close; a phone far away takes a second
LINGER_S = 1.0  # to read the last frame, once this side has said all
CUT = ("slow_reader", "no_pong")


class ServerState(Protocol):
    """What uvicorn keeps of a server, as far as a socket has to do with it."""

    connections: set[Any]
    tasks: set[asyncio.Task[None]]
    default_headers: Headers


class Sockets:
    """Takes connections over from the protocol: `find_handshake` at the end of a head, `open` behind it."""

    def __init__(
        self, messages: Messages, streams: Streams, guard: Guard, settings: Settings, metrics: Metrics
    ) -> None:
        self.messages = messages
        self.streams = streams
        self.settings = settings
        self.metrics = metrics
        self._doorkeeper = Doorkeeper(guard)

    def find_handshake(self, target: bytes, headers: Headers) -> Handshake | None:
        """The handshake that a head is; None if it is a request for the application. Raises what refuses it."""
        try:
            return self._doorkeeper.find(target, headers)
        except TidingsError as refusal:
            self.metrics.answered(ROUTE, "GET", str(refusal.status), 0.0)
            raise

    def open(self, handshake: Handshake, transport: asyncio.Transport, state: ServerState) -> "Socket":
        """A socket on a connection, whose handshake is answered."""
        transport.write(handshake.response(state.default_headers))
        return Socket(self, handshake, transport, state)


class Socket(asyncio.Protocol):
    """One connection: the outlet of its session."""

    __slots__ = (
        *("_all", "_began", "_ending", "_frames", "_idle", "_is_pong_due", "_is_write_paused", "_sending", "_session"),
        *("_state", "_status", "_text", "_timer", "_unread", "_user_id", "transport"),
    )

    def __init__(
        self, sockets: Sockets, handshake: Handshake, transport: asyncio.Transport, state: ServerState
    ) -> None:
        self._all = sockets
        self._state = state
        self._user_id = handshake.user_id
        self.transport = transport
        self._began = time.perf_counter()
        self._frames = Frames(sockets.settings.body_max_bytes)
        self._session: Session | None = None
        self._ending: Ending | None = None  # once this side closes
        self._status = "gone"  # what it is counted as
        self._text: bytearray | None = None  # of a message in several frames
        self._unread = b""
        self._sending: Sending | None = None
        self._idle: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None  # of a reader that takes nothing, later of the closing
        self._is_pong_due = self._is_write_paused = False
        task = asyncio.get_running_loop().create_task(self._carry(handshake.query))
        state.tasks.add(task)
        task.add_done_callback(state.tasks.discard)

    async def _carry(self, query: str) -> None:
        """Carry the session to its end, and close."""
        streams = self._all.streams
        try:
            with streams.holding(question_of(self._user_id, query)) as session:
                self._session = session
                await session.open()
                with streams.beating(self):
                    ending = await session.run(self)
        except TidingsError as error:
            ending = Ending.by(error)
        except Exception as error:
            ending = Ending(internal(f"GET {ROUTE}", error).code, "", None)
        finally:
            self._session = None
        self._ending = ending = ending or Ending("closed", "", None)
        if ending.code not in CUT:
            await self._all_answered()
        self._close(ending)

    async def _all_answered(self) -> None:
        if self._sending is not None and self._sending.in_flight:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle

    # What the session writes.

    @property
    def is_full(self) -> bool:
        """Whether the client has not taken what was written."""
        return self._is_write_paused

    def write(self, events: Sequence[Event]) -> None:
        """Messages, oldest first."""
        if self._frames.state is not State.OPEN:
            return
        for event in events:
            self._frames.send_text(
                b'{"type":"message","cursor":"%b","message":%b}' % (event.cursor.encode(), event.encoded)
            )
        self._flush()

    def heartbeat(self, cursor: str) -> None:
        """Nothing new: the cursor so far."""
        self._say(b'{"type":"heartbeat","cursor":"%b"}' % cursor.encode())

    def expired(self) -> None:
        """Some messages before those that follow are not kept any more."""
        self._say(b'{"type":"expired"}')

    def beat(self) -> None:
        """Ask whether the client is there, and show it that this side is."""
        if self._session is None or self._frames.state is not State.OPEN:
            return
        if not self._is_held:  # else its pong may be among what is not read yet
            if self._is_pong_due:
                self._session.end(Ending("no_pong", "No pong came within a heartbeat.", 0.0))
                return
            self._is_pong_due = True
            self._frames.send_ping(b"")
        self._session.beat()
        self._flush()

    def _say(self, text: bytes) -> None:
        if self._frames.state is State.OPEN:
            self._frames.send_text(text)
            self._flush()

    def _flush(self) -> None:
        pieces = self._frames.data_to_send()
        if not pieces or self.transport.is_closing():
            return
        self.transport.write(b"".join(pieces))
        if pieces[-1] == b"":  # the library's word for: this side has said all
            self._end_writing()

    # What the transport says.

    def data_received(self, data: bytes) -> None:
        """Take a piece of what came, if it may be answered; what is left is taken when it is its turn."""
        if self._frames.eof_sent:
            return  # all is said
        data = self._unread + data if self._unread else data
        self._unread = data
        if not self._is_held:
            self._unread = data[PIECE:]
            for frame in self._frames.received(data[:PIECE]):
                self._take(frame)
            self._flush()
        if (self._is_held or self._unread) and not self.transport.is_closing():
            self.transport.pause_reading()
            if not self._is_held:
                asyncio.get_running_loop().call_soon(self._read_on)

    def eof_received(self) -> None:
        """End: a client that says no more wants no more."""
        self._frames.receive_eof()
        self._end()

    def pause_writing(self) -> None:
        """The client does not take what was written: it is waited for, but not for ever."""
        self._is_write_paused = True
        self.transport.pause_reading()
        if self._timer is None:
            self._set_timer(self._all.settings.keep_alive_s, self._give_up)

    def resume_writing(self) -> None:
        """It has."""
        self._is_write_paused = False
        if self._frames.state is State.OPEN and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._read_on()
        if self._session is not None:
            self._session.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._state.connections.discard(self)
        self._end()
        self._unread, self._text = b"", None
        if self._sending is not None:
            self._sending.stop()
            self._sending = None
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._frames.let_go()
        self._all.metrics.answered(ROUTE, "GET", self._status, time.perf_counter() - self._began, math.inf)

    def shutdown(self) -> None:
        """The server stops: come back elsewhere."""
        if self._session is not None:
            self._session.drained()

    # What the client says.

    @property
    def _is_held(self) -> bool:
        """Whether no more is read for now."""
        return self._is_write_paused or (self._sending is not None and self._sending.is_busy)

    def _take(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode == PONG:
            self._is_pong_due = False
        elif opcode == CLOSE:
            self._status = "101" if self._status == "gone" else self._status
            self._end()
        elif opcode == BINARY:
            self._fail("binary_frame")
        elif opcode < CLOSE and not self._frames.is_failed:
            whole = self._whole(bytes(frame.data), frame.fin)
            if whole is not None:
                self._take_text(whole)

    def _whole(self, data: bytes, fin: bool) -> bytes | None:
        """The whole message that a frame ends; kept as one piece, since frames of nothing may come without end."""
        if self._text is None and fin:
            return data
        self._text = self._text or bytearray()
        self._text += data
        if not fin:
            return None
        whole, self._text = bytes(self._text), None
        return whole

    def _take_text(self, text: bytes) -> None:
        if self._sending is None:  # made when it is needed: most sockets only listen
            house = self._all
            self._sending = Sending(
                house.messages, house.settings, house.metrics, self._user_id, self._say, self._on_settled
            )
        try:
            text.decode()
            if self._ending is None:
                self._sending.take(text)
            else:
                self._sending.refuse(text)
        except (UnicodeDecodeError, NotJson):
            self._fail("bad_text")

    def _on_settled(self) -> None:
        """A send is through: another may begin, and more be read."""
        sending = self._sending
        if sending is None:
            return
        try:
            sending.go_on()
        except NotJson:
            self._fail("bad_text")
        self._read_on()
        if not sending.in_flight and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _read_on(self) -> None:
        """Take what was left unread, and more."""
        if self._is_held or self.transport.is_closing():
            return
        self.transport.resume_reading()
        if self._unread:
            self.data_received(b"")  # which pauses it again if something is left

    # The end.

    def _end(self) -> None:
        if self._session is not None:
            self._session.end()

    def _fail(self, code: str) -> None:
        """End it for what the client did wrong."""
        if not self._frames.is_failed:
            self._frames.fail(said_of(code))
            self._flush()

    def _give_up(self) -> None:
        if self._session is not None:
            self._session.give_up()
        self._set_timer(CLOSING_S, self.transport.abort)

    def _close(self, ending: Ending) -> None:
        """Say why, and wait for the client's word, not for ever."""
        if self._frames.state is State.OPEN and not self.transport.is_closing():
            self._status = "broken" if ending.code in CUT else "101"
            if ending.code == "slow_reader":
                broken_off(f"GET {ROUTE}", TimeoutError())
            self._frames.end(ending)
            self._flush()
            self._set_timer(CLOSING_S, self.transport.abort)

    def _end_writing(self) -> None:
        """All is said; what the client still sends is read and dropped, so that it can read the last word."""
        self._status = "broken" if self._status == "gone" else self._status
        self._end()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if not self.transport.is_closing():
            self.transport.resume_reading()
        self._set_timer(LINGER_S, self.transport.abort)

    def _set_timer(self, seconds: float, then: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, then)
