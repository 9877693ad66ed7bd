"""The audience: a process that holds many open streams, sends, and notes when each stream has what was sent.

By hand on epoll, like `bench/load.py`, since what it takes to read would else be measured. One process sends and
listens, so that one clock tells both. It looks at bytes alone, of Server-Sent Events or of WebSocket frames: each
message that is sent has a number as its text, and that is what is looked for. It reads `Act`s, a line of JSON each, and
answers each with a `Done`, until stdin ends; what must not be ends the act.
"""

import gc
import re
import resource
import select
import signal
import socket
import sys
import time
from array import array
from collections import deque
from contextlib import ExitStack

import msgspec

from bench.load import KEY, STALLED_S, Wrong, busy_s, cpu_s, quantiles

READY = b"heartbeat"  # said when a stream has given what was before
OPENING = 64  # at a time: fewer than a listening socket queues
NUMBER = re.compile(rb'"message":"([0-9a-f]{16})')
NUMBER_SIZE = len('"message":"') + 16
SPIN_S = 0.002  # before something is due: epoll sleeps by whole milliseconds


class Open(msgspec.Struct, tag="open"):
    """Open one more stream by each of these requests; `status` begins the answer, `pong` answers each `ping`."""

    port: int
    heads: list[str]
    status: str
    ping: bytes = b""
    pong: bytes = b""


class Say(msgspec.Struct, tag="say"):
    """Send `count` messages by these requests in turn, each on a connection of its own; every one has `hearers`.

    At `per_s`; or, with 0, as soon as fewer than `window` are still on their way. `pids` are the server's processes.
    """

    port: int
    requests: list[str]
    accepted: str
    count: int
    hearers: int
    pids: list[int]
    cores: list[int]
    per_s: float = 0.0
    window: int = 1


class Wait(msgspec.Struct, tag="wait"):
    """Read on for so long; nothing but heartbeats may come."""

    seconds: float


class Leave(msgspec.Struct, tag="leave"):
    """Close all streams."""


Act = Open | Say | Wait | Leave


class Heard(msgspec.Struct, frozen=True):
    """What a `Say` gave; latencies, in ms, from when a message was due to when the last hearer had it."""

    sent: int = 0
    deliveries: int = 0
    seconds: float = 0.0
    server_cpu_s: float = 0.0
    others_s: float = 0.0
    audience_cpu_s: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


class Done(msgspec.Struct):
    """How an act ended: what it gave, or what was wrong."""

    heard: Heard = Heard()
    wrong: str = ""


def connected(port: int) -> socket.socket:
    """A connection that does not wait."""
    made = socket.create_connection(("127.0.0.1", port))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setblocking(False)
    return made


class Listener:
    """One open stream."""

    __slots__ = ("_ping", "_pong", "_rest", "heard", "socket")

    def __init__(self, port: int, head: str, ping: bytes, pong: bytes) -> None:
        self.socket = connected(port)
        self.heard = 0
        self._ping, self._pong = ping, pong
        self._rest = b""
        self.socket.send(head.encode())

    def is_ready(self, status: bytes) -> bool:
        """Read on; whether the stream is live. Raises Wrong for any other answer."""
        self._rest += self.socket.recv(65536)
        if not self._rest.startswith(status):
            raise Wrong(f"expected {status!r}, got {self._rest[:300]!r}")
        is_live = READY in self._rest
        self._rest = b"" if is_live else self._rest
        return is_live

    def hear(self) -> list[bytes]:
        """The numbers that came. Raises Wrong if the stream has ended."""
        data = self.socket.recv(65536)
        if not data:
            raise Wrong("the server closed a stream")
        known, data = len(self._rest), self._rest + data
        if self._ping and data.find(self._ping, max(0, known - 1)) >= 0:
            self.socket.send(self._pong)
        numbers = NUMBER.findall(data)
        end = data.rfind(numbers[-1]) + 16 if numbers else 0
        self._rest = data[max(end, len(data) - NUMBER_SIZE + 1) :]
        self.heard += len(numbers)
        return numbers


class Sender:
    """A keep-alive connection that posts, one message at a time."""

    __slots__ = ("_after", "_before", "_heard", "socket")

    def __init__(self, port: int, request: str) -> None:
        self.socket = connected(port)
        before, _, after = request.partition(KEY.decode())
        self._before, self._after = before.encode(), after.encode()
        self._heard = b""

    def send(self, number: int) -> None:
        """Post the message that is this number."""
        request = b"%b%016x%b" % (self._before, number, self._after)
        if self.socket.send(request) != len(request):
            raise Wrong("the socket did not take a whole request")

    def is_answered(self, accepted: bytes) -> bool:
        """Read on; whether the answer is there. Raises Wrong for one that does not accept the message."""
        data = self._heard + self.socket.recv(65536)
        _, end, body = data.partition(b"\r\n\r\n")
        if not data or not data.startswith(b"HTTP/1.1 200 "[: len(data)]):
            raise Wrong(f"a message was not accepted: {data[:300]!r}")
        self._heard = b"" if end and body.endswith(b"}") else data
        if not self._heard and accepted not in body:
            raise Wrong(f"a message was not accepted: {data[:300]!r}")
        return not self._heard


class Saying:
    """One `Say`, on its way."""

    def __init__(self, say: Say, listeners: dict[int, Listener], poll: select.epoll, first: int) -> None:
        self._say = say
        self._accepted = say.accepted.encode()
        self._listeners = listeners
        self._poll = poll
        self._first = first
        self._missing = array("l", [say.hearers]) * say.count
        self._due = array("d", [0.0]) * say.count
        self._taken: array[float] = array("d")
        self._sent = 0
        senders = [Sender(say.port, request) for request in say.requests]
        self._senders = {sender.socket.fileno(): sender for sender in senders}
        self._free = deque(senders)
        for fd in self._senders:
            poll.register(fd, select.EPOLLIN)

    def run(self) -> Heard:
        """Send all, and wait until all is heard. Raises Wrong."""
        say = self._say
        before, heard_before = self._clocks(), [listener.heard for listener in self._listeners.values()]
        began, clock = before[0], time.perf_counter
        last_at = clock()
        while len(self._taken) < say.count or len(self._free) < len(self._senders):
            wait_s = self._send_what_is_due(began)
            events = self._poll.poll(wait_s)
            if events:
                last_at = clock()
            elif clock() > last_at + STALLED_S:
                raise Wrong(f"{len(self._taken)} of {self._sent} messages were heard by all, and then no more")
            for fd, _ in events:
                self._take(fd)
        seconds, server_s, cores_s, own_s = (now - then for now, then in zip(self._clocks(), before, strict=True))
        gained = [x.heard - then for x, then in zip(self._listeners.values(), heard_before, strict=True)]
        if say.hearers > 1 and set(gained) != {say.count}:
            raise Wrong(f"of {say.count} messages, streams have between {min(gained)} and {max(gained)}")
        others_s = max(0.0, cores_s - server_s - own_s)
        latencies = (1000 * s for s in quantiles(self._taken))
        return Heard(say.count, sum(gained), seconds, server_s, others_s, own_s, *latencies)

    def close(self) -> None:
        """Let go of the sockets."""
        for sender in self._senders.values():
            sender.socket.close()

    def _send_what_is_due(self, began: float) -> float:
        """Send it; how long nothing will be due."""
        say, clock = self._say, time.perf_counter
        while self._sent < say.count:
            now = clock()
            due = began + self._sent / say.per_s if say.per_s else now
            if due > now:
                return max(0.0, due - now - SPIN_S)
            if not self._free or (not say.per_s and self._sent - len(self._taken) >= say.window):
                return STALLED_S
            self._due[self._sent] = due
            sender = self._free.popleft()
            sender.send(self._first + self._sent)
            self._sent += 1
        return STALLED_S

    def _take(self, fd: int) -> None:
        listener = self._listeners.get(fd)
        if listener is None:
            sender = self._senders[fd]
            if sender.is_answered(self._accepted):
                self._free.append(sender)
            return
        numbers = listener.hear()
        now = time.perf_counter()
        for number in numbers:
            index = int(number, 16) - self._first
            if not 0 <= index < self._sent or not self._missing[index]:
                raise Wrong(f"a message came that was not sent, or too often: {number!r}")
            self._missing[index] -= 1
            if not self._missing[index]:
                self._taken.append(now - self._due[index])

    def _clocks(self) -> tuple[float, float, float, float]:
        say = self._say
        return time.perf_counter(), cpu_s(say.pids), sum(map(busy_s, say.cores)), time.process_time()


class Hall:
    """Where the streams are open."""

    def __init__(self) -> None:
        self._listeners: dict[int, Listener] = {}
        self._poll = select.epoll()

    def play(self, act: Act) -> Done:
        """One act."""
        try:
            if isinstance(act, Open):
                self._open(act)
            elif isinstance(act, Wait):
                self._wait(act.seconds)
            elif isinstance(act, Leave):
                self._leave()
            else:
                return Done(self._say(act))
        except (Wrong, OSError) as error:
            return Done(wrong=f"{type(error).__name__}: {error}"[:800])
        return Done()

    def _open(self, act: Open) -> None:
        status = act.status.encode()
        waiting = deque(act.heads)
        opening: dict[int, Listener] = {}
        while waiting or opening:
            while waiting and len(opening) < OPENING:
                listener = Listener(act.port, waiting.popleft(), act.ping, act.pong)
                opening[listener.socket.fileno()] = listener
                self._poll.register(listener.socket.fileno(), select.EPOLLIN)
            events = self._poll.poll(STALLED_S)
            if not events:
                raise Wrong(f"{len(opening)} streams did not open")
            for fd, _ in events:
                if fd not in opening:
                    self._listeners[fd].hear()  # a heartbeat
                elif opening[fd].is_ready(status):
                    self._listeners[fd] = opening.pop(fd)

    def _wait(self, seconds: float) -> None:
        until = time.perf_counter() + seconds
        while (left := until - time.perf_counter()) > 0:
            for fd, _ in self._poll.poll(left):
                if self._listeners[fd].hear():
                    raise Wrong("a message came that nobody sent")

    def _say(self, say: Say) -> Heard:
        with ExitStack() as stack:
            saying = Saying(say, self._listeners, self._poll, time.time_ns())
            stack.callback(saying.close)
            return saying.run()

    def _leave(self) -> None:
        for listener in self._listeners.values():
            listener.socket.close()
        self._listeners.clear()


def main() -> None:
    """Play acts until stdin ends."""
    gc.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as the load does
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    hall = Hall()
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(msgspec.json.encode(hall.play(msgspec.json.decode(line, type=Act))) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
