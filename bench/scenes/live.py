"""Live delivery over open streams: from send to receipt, to many at once, and what a stream takes that is idle."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from bench.audience import Heard, Leave, Open, Say, Wait
from bench.findings import Finding
from bench.load import KEY
from bench.processes import Audience, Server
from bench.seed import TEXT, Story, group_id, user_id
from bench.stage import Stage
from bench.world import ACCEPTED, get

PAIRS = 64  # of a sender, and a receiver with a stream
MEMBERS = 1_001  # of each of two groups; the last one talks
CROWD = Story(users=MEMBERS, groups=2, groups_each=2)
IDLE = 10_000
BEAT_S = 25.0  # the server's own

WAYS = (50, 1_000)  # sends a second
P50_MS, P99_MS = {50: 2.0, 1_000: 5.0}, {50: 5.0, 1_000: 25.0}
LAST_MS = {500: 20.0, 1_000: 50.0}
STREAM_BYTES = 20_000
IDLE_BUDGET = 5.0  # percent of a core


@dataclass(frozen=True)
class Transport:
    """A kind of stream: its name, how a user's is asked for, how it begins, and how many deliveries a core must do."""

    name: str
    head: Callable[[str], str]
    status: str
    deliveries: float
    ping: bytes = b""
    pong: bytes = b""


def _upgrade(user: str) -> str:
    return (
        f"GET /v1/messages/{user}/live HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "sec-websocket-protocol: tidings.v1\r\n\r\n"
    )


TRANSPORTS = (
    Transport("SSE", lambda user: get(f"/v1/messages/{user}/stream"), "HTTP/1.1 200 ", 50_000),
    # An empty ping; the answer is masked, by zeros (RFC 6455, 5.3 and 5.5.2).
    Transport("WebSocket", _upgrade, "HTTP/1.1 101 ", 25_000, b"\x89\x00", b"\x8a\x80\x00\x00\x00\x00"),
)


def live_delivery(stage: Stage) -> list[Finding]:
    """Each transport on servers of its own; every message must come to every hearer, once."""
    found: list[Finding] = []
    rounds = stage.pace.live_rounds
    stage.talk.expect(len(TRANSPORTS) * (rounds * (len(WAYS) + len(LAST_MS) + 2) + 3))
    for transport in TRANSPORTS:
        found += _receipts(stage, transport, rounds)
        found += _fan_out(stage, transport, rounds)
        found += _idle(stage, transport)
    return found


class Streams:
    """A server, and an audience with streams of it."""

    def __init__(self, stage: Stage, transport: Transport, server: Server, audience: Audience) -> None:
        self.server = server
        self._stage = stage
        self._transport = transport
        self._audience = audience
        self._cores = [stage.cores.server, stage.cores.load]

    def open(self, users: Sequence[str]) -> None:
        """Open a stream for each, and wait until all are live."""
        way = self._transport
        heads = [way.head(user) for user in users]
        self._audience.play(Open(self.server.port, heads, way.status, way.ping, way.pong))

    def say(self, requests: Sequence[str], count: int, hearers: int, *, per_s: float = 0.0, window: int = 1) -> Heard:
        """Send, until all is heard."""
        pids, port = self.server.pids, self.server.port
        say = Say(port, list(requests), ACCEPTED, count, hearers, pids, self._cores, per_s, window)
        heard = self._audience.play(say)
        self._stage.others.append(heard.others_s / heard.seconds / len(self._cores))
        return heard

    def wait(self, seconds: float) -> None:
        """Say nothing."""
        self._audience.play(Wait(seconds))

    def leave(self) -> None:
        """Close all streams."""
        self._audience.play(Leave())


@contextmanager
def _streams(stage: Stage, transport: Transport, story: Story, *flags: str) -> Iterator[Streams]:
    with Audience(stage.cores.load) as audience, stage.tidings(stage.store(story), *flags) as server:
        streams = Streams(stage, transport, server, audience)
        yield streams
        streams.leave()


def _receipts(stage: Stage, transport: Transport, rounds: int) -> list[Finding]:
    """Private messages at a steady pace, each to one of 64 receivers: how long each takes from when it was due."""
    found = []
    with _streams(stage, transport, Story(users=2 * PAIRS)) as streams:
        streams.open([user_id(n) for n in range(PAIRS)])
        requests = [post("private", user_id(PAIRS + n), "receiverId", user_id(n)) for n in range(PAIRS)]
        streams.say(requests, PAIRS, 1)
        for per_s in WAYS:
            heard = []
            for _ in range(rounds):
                heard.append(streams.say(requests, round(per_s * max(0.8, 2 * stage.pace.seconds)), 1, per_s=per_s))
                stage.talk.step(f"{transport.name}, {per_s:,} sends/s: p50 {heard[-1].p50_ms:.2f} ms")
            beside = f"slowest {max(h.max_ms for h in heard):.0f} ms; {_cpu_us(heard):.0f} us CPU a send and receipt"
            budgets = {"p50": P50_MS[per_s], "p99": P99_MS[per_s]}
            for which, budget in budgets.items():
                values = [h.p50_ms if which == "p50" else h.p99_ms for h in heard]
                name = f"send to receipt, {transport.name}, {per_s:,} sends/s, {which}"
                found.append(_finding(name, values, "ms", at_most=budget, beside=beside))
    return found


def _fan_out(stage: Stage, transport: Transport, rounds: int) -> list[Finding]:
    """Messages to groups with 500 and with 1,000 members there: until the last has it, and how many a core delivers."""
    found = []
    with _streams(stage, transport, CROWD) as streams:
        requests = [post("group", user_id(MEMBERS - 1), "groupId", group_id(n % 2)) for n in range(16)]
        there = 0
        for hearers, budget in LAST_MS.items():
            streams.open([user_id(n) for n in range(there, hearers)])
            there = hearers
            streams.say(requests, 4, hearers)
            heard = []
            for _ in range(rounds):
                heard.append(streams.say(requests, max(10, round(40 * stage.pace.seconds)), hearers))
                stage.talk.step(f"{transport.name}, to {hearers:,}: the last after {heard[-1].p50_ms:.1f} ms")
            beside = f"slowest {max(h.max_ms for h in heard):.0f} ms; {_cost_us(heard):.1f} us CPU a delivery"
            name = f"one message to {hearers:,} streams, {transport.name}: the last has it"
            found.append(_finding(name, [h.p50_ms for h in heard], "ms", at_most=budget, beside=beside))
            if hearers == 500:
                found += _deliveries(stage, transport, streams, requests, rounds)
    return found


def _deliveries(
    stage: Stage, transport: Transport, streams: Streams, requests: Sequence[str], rounds: int
) -> list[Finding]:
    """500 members there, of two groups: deliveries a second of the server's CPU, message by message and in commits."""
    found = []
    for how, window in (("one by one", 1), ("16 on their way", 16)):
        heard = []
        for _ in range(rounds):
            heard.append(streams.say(requests, max(32, round(200 * stage.pace.seconds)), 500, window=window))
            stage.talk.step(f"{transport.name}, {how}: {heard[-1].deliveries / heard[-1].seconds:,.0f} deliveries/s")
        values = [h.deliveries / h.server_cpu_s for h in heard]
        wall = median(h.deliveries / h.seconds for h in heard)
        beside = f"{_cost_us(heard):.1f} us CPU a delivery; {wall:,.0f}/s by the clock"
        name = f"deliveries to 500 streams for a second of CPU, {transport.name}, {how}"
        found.append(_finding(name, values, "/s", at_least=transport.deliveries, beside=beside))
    return found


def _idle(stage: Stage, transport: Transport) -> list[Finding]:
    """Streams where nothing comes, of users in two groups each: memory of one more, and CPU time for heartbeats.

    A quick run has a tenth of the streams, and ten times the heartbeats of each.
    """
    part = 10 if stage.pace.name == "quick" else 1
    first, second, all_ = 1_000 // part, 5_000 // part, IDLE // part
    story = Story(users=IDLE, groups=1_000, groups_each=2)
    with _streams(stage, transport, story, "--heartbeat-s", f"{BEAT_S / part:g}") as streams:
        sizes = []
        for there, more in ((0, first // 4), (first // 4, first), (first, second), (second, all_)):
            streams.open([user_id(n) for n in range(there, more)])
            sizes.append(streams.server.memory("RssAnon"))
            if there:
                stage.talk.step(f"{transport.name}, {more:,} streams: {sizes[-1] / 1e6:.0f} MB")
        before, began = streams.server.cpu_s, time.perf_counter()
        streams.wait(max(BEAT_S / part, stage.pace.idle_s))
        cpu, seconds = streams.server.cpu_s - before, time.perf_counter() - began
    each = (sizes[2] - sizes[1]) / (second - first)
    beside = f"{sizes[1] / 1e6:.1f} MB with {first:,}, {sizes[2] / 1e6:.1f} with {second:,}"
    memory = Finding("live", f"an idle stream, {transport.name}", each, "bytes", at_most=STREAM_BYTES, beside=beside)
    share = Finding(
        "live",
        f"{all_:,} idle streams, {transport.name}, a heartbeat each {BEAT_S / part:g} s: of a core",
        100 * cpu / seconds,
        "%",
        at_most=IDLE_BUDGET,
        beside=f"{1000 * cpu:.0f} ms CPU in {seconds:.0f} s",
    )
    return [memory, share]


def post(kind: str, sender: str, where: str, recipient: str) -> str:
    """A send of 50 characters that begin with the number of the message."""
    text = f"{'0' * 16}{TEXT[16:]}"
    body = json.dumps({"message": text, "senderId": sender, where: recipient})
    return (
        f"POST /v1/messages/send?type={kind} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n{body.replace('0' * 16, KEY.decode(), 1)}"
    )


def _finding(name: str, rounds: Sequence[float], unit: str, **more: object) -> Finding:
    return Finding("live", name, median(rounds), unit, rounds, **more)  # type: ignore[arg-type]


def _cost_us(heard: Sequence[Heard]) -> float:
    """CPU time of the server for a delivery, in microseconds: the least, as noise only adds to it."""
    return min(h.server_cpu_s / h.deliveries for h in heard) * 1e6


def _cpu_us(heard: Sequence[Heard]) -> float:
    return min(h.server_cpu_s / h.sent for h in heard) * 1e6
