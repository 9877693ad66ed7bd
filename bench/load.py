"""The load: a process of its own, one request in flight on each connection, every answer checked.

Written on epoll by hand: it takes 10 us of CPU a request where a uvloop protocol takes 13 (measured against a bare Go
server) and httpx a hundred, and the load must not be what is measured. It reads a `Plan` as a line of JSON on stdin and
answers with a `Told` on stdout, until stdin ends. A wrong answer ends its round: a broken server must not look fast.
"""

import gc
import select
import signal
import socket
import sys
import time
from array import array
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import msgspec

KEY = b"{key}"  # stands in a request where a number of 16 hex digits is put, another one each time
OK = b"HTTP/1.1 200 "
STALLED_S = 10.0
TICKS_PER_S = 100  # in /proc/stat; fixed in Linux' interface (proc(5))
_CPUCLOCK_SCHED = 2  # clock_getcpuclockid(3): the clock of a process is its number's complement and this


class Request(msgspec.Struct):
    """What one connection sends again and again, and what must stand in every answer, or be its whole body."""

    head: str
    expects: str
    is_whole: bool = True


class Plan(msgspec.Struct):
    """One round: `seconds` are measured after `warm_s`; `pids` are the server's processes, `cores` those in use.

    With `asks`, so many requests are sent in all, however long it takes, and all of it is measured. Numbers put into
    requests begin with `first_number`; without one, none comes again, in other rounds neither.
    """

    port: int
    requests: list[Request]
    pids: list[int]
    cores: list[int]
    seconds: float = 0.0
    warm_s: float = 0.0
    asks: int | None = None
    first_number: int | None = None


class Measured(msgspec.Struct):
    """What a round gave: `answers` in all, the rest from the measured part; CPU in seconds, latencies in ms.

    `others_s` is what the cores did for anybody else: noise.
    """

    answers: int
    measured: int
    seconds: float
    server_cpu_s: float
    others_s: float
    load_cpu_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float


class Told(msgspec.Struct):
    """How a round ended: what it gave, or what was wrong."""

    measured: Measured | None = None
    wrong: str = ""


class Wrong(Exception):
    """An answer that is not the one expected."""


class Connection:
    """A keep-alive connection with at most one request in flight."""

    __slots__ = ("_after", "_before", "_end", "_expected", "_is_whole", "_numbers", "_rest", "began", "socket")

    def __init__(self, port: int, request: Request, numbers: "count[int]") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        head = request.head.encode()
        self._before, _, self._after = head.partition(KEY)
        self._numbers = numbers if KEY in head else None
        self._expected = request.expects.encode()
        self._end = b"\r\n\r\n" + self._expected
        self._is_whole = request.is_whole
        self._rest = b""
        self.began = 0.0

    def ask(self, now: float) -> None:
        """Send the request."""
        self.began = now
        request = self._before
        if self._numbers is not None:
            request = b"%b%016x%b" % (request, next(self._numbers), self._after)
        if self.socket.send(request) != len(request):
            raise Wrong("the socket did not take a whole request")

    def hear(self) -> bool:
        """Read what came; whether that completes an answer. Raises Wrong."""
        data = self.socket.recv(65536)
        if self._is_whole and data.endswith(self._end) and data.startswith(OK) and not self._rest:
            return True
        if not data:
            raise Wrong("the server closed a connection")
        data = self._rest + data
        end = data.find(b"\r\n\r\n")
        length = data.lower().find(b"content-length: ", 0, end) + 16
        if end < 0 or len(data) < end + 4 + int(data[length : data.find(b"\r", length)]):
            self._rest = data
            return False
        self._rest = b""
        body = data[end + 4 :]
        is_right = body == self._expected if self._is_whole else self._expected in body
        if not data.startswith(OK) or not is_right:
            raise Wrong(f"expected 200 with {self._expected[:200]!r}, got {data[:400]!r}")
        return True


class Round:
    """A closed loop: an answer is followed by the next request."""

    def __init__(self, plan: Plan, connections: list[Connection]) -> None:
        self._plan = plan
        self._connections = {connection.socket.fileno(): connection for connection in connections}
        self._epoll = select.epoll()
        for fd in self._connections:
            self._epoll.register(fd, select.EPOLLIN)
        self._answers = 0

    def run(self) -> Measured:
        """Warm up, measure, and take the answers that are still due. Raises Wrong."""
        start = time.perf_counter()
        if self._plan.asks is not None:
            before = self._clocks()
            taken = self._ask_all(self._plan.asks)
            return self._measured(before, taken)
        for connection in self._connections.values():
            connection.ask(start)
        self._serve(start + self._plan.warm_s)
        before = self._clocks()
        taken = self._serve(before[0] + self._plan.seconds)
        measured = self._measured(before, taken)
        measured.answers += self._drain(set(self._connections))
        return measured

    def close(self) -> None:
        """Let go of the sockets."""
        self._epoll.close()
        for connection in self._connections.values():
            connection.socket.close()

    def _measured(self, before: tuple[float, float, float, float], taken: "array[float]") -> Measured:
        seconds, server_s, cores_s, load_s = (now - then for now, then in zip(self._clocks(), before, strict=True))
        others_s = max(0.0, cores_s - server_s - load_s)
        latencies = (1000 * s for s in quantiles(taken))
        return Measured(self._answers, len(taken), seconds, server_s, others_s, load_s, *latencies)

    def _clocks(self) -> tuple[float, float, float, float]:
        plan = self._plan
        return time.perf_counter(), cpu_s(plan.pids), sum(map(busy_s, plan.cores)), time.process_time()

    def _serve(self, until: float) -> "array[float]":
        """Ask and hear until then; the latencies of what was heard."""
        taken: array[float] = array("d")
        clock, connections, poll = time.perf_counter, self._connections, self._epoll.poll
        now = clock()
        while now < until:
            events = poll(STALLED_S)
            if not events:
                raise Wrong(f"no answer within {STALLED_S} s")
            for fd, _ in events:
                connection = connections[fd]
                if connection.hear():
                    now = clock()
                    taken.append(now - connection.began)
                    connection.ask(now)
        self._answers += len(taken)
        return taken

    def _ask_all(self, asks: int) -> "array[float]":
        """Ask so many times in all, and hear every answer."""
        taken: array[float] = array("d")
        due = set()
        for fd, connection in self._connections.items():
            if asks:
                connection.ask(time.perf_counter())
                due.add(fd)
                asks -= 1
        while due:
            events = self._epoll.poll(STALLED_S)
            if not events:
                raise Wrong(f"no answer within {STALLED_S} s")
            for fd, _ in events:
                connection = self._connections[fd]
                if connection.hear():
                    now = time.perf_counter()
                    taken.append(now - connection.began)
                    if asks:
                        connection.ask(now)
                        asks -= 1
                    else:
                        due.discard(fd)
        self._answers += len(taken)
        return taken

    def _drain(self, due: set[int]) -> int:
        """Hear what is still due; how many answers that were."""
        drained = 0
        while due:
            events = self._epoll.poll(STALLED_S)
            if not events:
                raise Wrong(f"no answer within {STALLED_S} s")
            for fd, _ in events:
                if fd in due and self._connections[fd].hear():
                    drained += 1
                    due.discard(fd)
        return drained


def cpu_s(pids: list[int]) -> float:
    """The CPU time of processes so far, in seconds, to the nanosecond, all their threads together."""
    return sum(time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED) for pid in pids)


def busy_s(core: int) -> float:
    """The seconds that a core was not idle so far."""
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    user, nice, system, _, _, *others = map(int, line.split()[1:9])
    return (user + nice + system + sum(others)) / TICKS_PER_S


def quantiles(taken: "array[float]") -> tuple[float, float, float]:
    """The median, the one that 99 of 100 do not exceed, and the greatest. Raises Wrong if there are none."""
    ordered = sorted(taken)
    if not ordered:
        raise Wrong("nothing was answered in the measured time")
    return ordered[(len(ordered) - 1) // 2], ordered[(len(ordered) * 99 + 99) // 100 - 1], ordered[-1]


def run(plan: Plan) -> Told:
    """One round."""
    numbers = count(time.time_ns() if plan.first_number is None else plan.first_number)
    with ExitStack() as stack:
        try:
            connections = [Connection(plan.port, request, numbers) for request in plan.requests]
            round_ = Round(plan, connections)
            stack.callback(round_.close)
            return Told(round_.run())
        except (Wrong, OSError) as error:
            return Told(wrong=f"{type(error).__name__}: {error}"[:800])


def main() -> None:
    """Run rounds until stdin ends."""
    gc.disable()  # a round makes no cycles; a collection would be taken for the server's
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, but it is the bench that ends us
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(msgspec.json.encode(run(msgspec.json.decode(line, type=Plan))) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
