"""The load: a process of its own, one request in flight on each connection, every answer checked.

Written on epoll by hand: httpx is ten times slower, and the load must not be what is measured. It reads a `Plan` as
JSON on stdin and prints a `Measured`. A wrong answer ends it with a line on stderr: a broken server must not look fast.
"""

import gc
import select
import socket
import sys
import time
from array import array
from itertools import count
from pathlib import Path

import msgspec

KEY = b"{key}"  # stands in a request where a number of 16 hex digits is put, another one each time
OK = b"HTTP/1.1 200 "
STALLED_S = 10.0
TICKS_PER_S = 100  # of utime and stime in /proc/PID/stat; fixed in Linux' interface (proc(5))


class Request(msgspec.Struct):
    """What one connection sends again and again, and what must stand in every answer, or be its whole body."""

    head: str
    expects: str
    is_whole: bool = True


class Plan(msgspec.Struct):
    """One round: `seconds` are measured after `warm_s`; `pids` are the server's processes."""

    port: int
    requests: list[Request]
    seconds: float
    warm_s: float
    pids: list[int]
    cores: list[int]


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


class Wrong(Exception):
    """An answer that is not the one expected."""


class Connection:
    """A keep-alive connection with at most one request in flight."""

    __slots__ = ("_after", "_before", "_expected", "_is_whole", "_numbers", "_rest", "began", "socket")

    def __init__(self, port: int, request: Request, numbers: "count[int]") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        head = request.head.encode()
        self._before, _, self._after = head.partition(KEY)
        self._numbers = numbers if KEY in head else None
        self._expected = request.expects.encode()
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
        if self._is_whole and data.endswith(self._expected) and data.startswith(OK) and not self._rest:
            return True
        if not data:
            raise Wrong("the server closed a connection")
        data = self._rest + data
        end = data.find(b"\r\n\r\n")
        start = data.find(b"content-length: ", 0, end) + 16
        if end < 0 or len(data) < end + 4 + int(data[start : data.find(b"\r", start)]):
            self._rest = data
            return False
        self._rest = b""
        body = data[end + 4 :]
        is_right = body == self._expected if self._is_whole else self._expected in body
        if not data.startswith(OK) or not is_right:
            raise Wrong(f"expected 200 with {self._expected!r}, got {data!r}")
        return True


class Round:
    """A closed loop: an answer is followed by the next request."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        numbers = count(time.time_ns())  # no key comes again, in later rounds neither
        connections = [Connection(plan.port, request, numbers) for request in plan.requests]
        self._connections = {connection.socket.fileno(): connection for connection in connections}
        self._epoll = select.epoll()
        for fd in self._connections:
            self._epoll.register(fd, select.EPOLLIN)
        self._answers = 0

    def run(self) -> Measured:
        """Warm up, measure, and take the answers that are still due. Raises Wrong."""
        start = time.perf_counter()
        for connection in self._connections.values():
            connection.ask(start)
        self._serve(start + self._plan.warm_s)
        before = self._clocks()
        taken = self._serve(before[0] + self._plan.seconds)
        seconds, server_s, cores_s, load_s = (now - then for now, then in zip(self._clocks(), before, strict=True))
        self._drain()
        quantiles = (1000 * s for s in _quantiles(taken))
        return Measured(
            self._answers, len(taken), seconds, server_s, max(0.0, cores_s - server_s - load_s), load_s, *quantiles
        )

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

    def _drain(self) -> None:
        due = set(self._connections)
        while due:
            events = self._epoll.poll(STALLED_S)
            if not events:
                raise Wrong(f"no answer within {STALLED_S} s")
            due -= {fd for fd, _ in events if self._connections[fd].hear()}
        self._answers += len(self._connections)
        for connection in self._connections.values():
            connection.socket.close()


def cpu_s(pids: list[int]) -> float:
    """The CPU time, user and system, that processes have taken so far."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(field[11]) + int(field[12]) for field in fields) / TICKS_PER_S


def busy_s(core: int) -> float:
    """The seconds that a core was not idle so far."""
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    user, nice, system, _, _, *others = map(int, line.split()[1:9])
    return (user + nice + system + sum(others)) / TICKS_PER_S


def _quantiles(taken: "array[float]") -> tuple[float, float, float]:
    ordered = sorted(taken)
    if not ordered:
        raise Wrong("nothing was answered in the measured time")
    return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], ordered[-1]


def main() -> int:
    """Run one round."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    gc.disable()  # a round makes no cycles; a collection would be taken for the server's
    try:
        measured = Round(plan).run()
    except (Wrong, OSError) as error:
        print(f"{type(error).__name__}: {error}"[:600], file=sys.stderr)
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
