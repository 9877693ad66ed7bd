"""Memory: what a cached user takes, and a message in the tail; how long garbage collection stops the server."""

import time
from collections import Counter
from collections.abc import Iterable

from bench.findings import Finding
from bench.load import KEY, Request
from bench.processes import Failed, Server
from bench.scenes.polls import large
from bench.seed import Story
from bench.stage import Stage
from bench.world import Wire, get

GROUPS, GROUPS_EACH = 1_000, 2
RECENT = 20_000  # messages: as many as a tail begins with at the most
CONNECTIONS = 32
PAUSE_BUDGET_MS = 10.0
UNBOUNDED_S = 3600.0
PAUSES = "tidings_gc_pause_seconds"


def users_in_memory(stage: Stage) -> list[Finding]:
    """As many users as a directory holds ask for the first time, each in two groups, beside a tail with messages."""
    users = stage.pace.users
    story = Story(users=users, groups=GROUPS, groups_each=GROUPS_EACH, messages=RECENT)
    data = stage.store(story)
    now_ms = time.time_ns() // 1_000_000  # later than the last message
    # The numbers that the load puts in are the last digits of the users' ids.
    head = get(f"/v1/messages/user-{0:012x}{KEY.decode()}?timestamp={now_ms}")
    with stage.tidings(data) as server:
        client = Wire(server.port)
        client.get("/readyz")
        before = server.memory("RssAnon")
        stage.talk.expect(1)
        asked = stage.ask_all(server, [Request(head, '{"messages":null}')] * CONNECTIONS, users, first_number=0)
        taken = server.memory("RssAnon") - before
        rate = f"{asked.measured / asked.seconds:,.0f}/s"
        stage.talk.step(f"{users:,} users polled once, {rate}")
        held = client.counts()["tidings_directory_users"]
        if held != users:
            raise Failed(f"{users} users were polled, and {held:.0f} are in the directory")
        pauses = longest_pause(client.samples())
    beside = f"{taken / 1e6:.0f} MB for {users:,}, each in {GROUPS_EACH} groups; polled at {rate}"
    cached = Finding("memory", f"a cached user, of {users:,}", taken / users, "bytes", beside=beside)
    return [cached, _tail_entry(stage), _longest(*pauses, asked.max_ms)]


def longest_pause(samples: Iterable[tuple[str, str, float]]) -> tuple[float, float]:
    """The bound in seconds that no pause exceeded, and how many pauses there were, from a histogram by generation.

    Raises Failed if the server does not count them.
    """
    below: Counter[float] = Counter()
    for name, labels, value in samples:
        if name == f"{PAUSES}_bucket":
            below[float(labels.partition('le="')[2].partition('"')[0])] += int(value)
    if not below:
        raise Failed(f"the server has no {PAUSES} in /metrics")
    count = max(below.values())
    return min(bound for bound, value in below.items() if value == count) if count else 0.0, count


def _longest(bound_s: float, count: float, slowest_ms: float) -> Finding:
    bound_s = min(bound_s, UNBOUNDED_S)  # JSON has no infinity
    beside = f"none of {count:,.0f} pauses took longer; slowest answer {slowest_ms:.0f} ms"
    return Finding(
        "memory", "garbage collection pauses within", bound_s * 1e3, "ms", at_most=PAUSE_BUDGET_MS, beside=beside
    )


def _tail_entry(stage: Stage) -> Finding:
    """What a message in the tail takes: a server that begins with many recent ones, beside one told to keep none."""
    data = stage.store(large(stage))
    with stage.tidings(data, "--tail-max-bytes", "0") as server:
        without = _settled(server)
    with stage.tidings(data) as server:
        taken = _settled(server) - without
        messages = Wire(server.port).counts()["tidings_tail_messages"]
    if not messages:
        raise Failed("a tail that should begin with recent messages is empty")
    beside = f"{taken / 1e6:.1f} MB for {messages:,.0f} of 50 bytes, as at a start"
    return Finding("memory", "a message in the tail", taken / messages, "bytes", beside=beside)


def _settled(server: Server) -> int:
    """The memory of a server that has just started, after its first answers."""
    for _ in range(10):
        Wire(server.port).get("/readyz")
    return server.memory("RssAnon")
