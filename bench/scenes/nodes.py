"""Nodes of a cluster, over HTTP: a poll beside one of SQLite, a send beside its calls to the tables, a busy mailbox."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from statistics import median

import tidings
from bench.calls import Ask
from bench.calls import Told as Bare
from bench.contest import Side, alternate, by_cost, by_rate
from bench.fellows import Calls
from bench.findings import Finding
from bench.load import Measured, Plan, Request
from bench.processes import Failed, Load, Server
from bench.scenes.live import post
from bench.stage import Stage
from bench.world import ACCEPTED, CALLS, Gained, Wire, by_cursor, by_timestamp, length
from tidings.feed.redis.bounds import WIDE

READERS, GROUPS_EACH = 32, 2
SAME_RATE = 0.9  # the same rate, but for the noise of two servers beside each other
ABOVE_MS = 3.0
APPENDS = 300.0
SENDERS = 64  # to each node


def hot_polls_of_a_node(stage: Stage) -> list[Finding]:
    """32 readers in two groups each, nothing new, by cursor and by timestamp: of a node, and of a server on SQLite."""
    with ExitStack() as stack:
        node = stack.enter_context(stage.node())
        alone = stack.enter_context(stage.tidings(stage.new_room("polls-alone")))
        both = [_ways(server, name) for server, name in ((node, "a node"), (alone, "a server on SQLite"))]
        wire = Wire(node.port)
        gained, beats, began = Gained(wire), _proofs(wire), time.monotonic()
        alternate(stage, [side for sides in zip(*both, strict=True) for side in sides])
        seconds, proofs = time.monotonic() - began, _proofs(wire) - beats
        ours, others = both
        counts = gained.after(sum(side.answers for side in ours))
        polls, asked = counts["tidings_polls_total"], counts["tidings_store_calls_total"]
        if counts["hot"] != polls and not asked:
            raise Failed(f"of {polls:.0f} polls {counts['hot']:.0f} were hot, but the store was never asked")
    found = [
        by_rate("nodes-poll", side, other, at_least=SAME_RATE, other_name="SQLite")
        for side, other in zip(ours, others, strict=True)
    ]
    found += [
        by_cost("nodes-poll", f"{side.name}, beside SQLite, CPU", side, other)
        for side, other in zip(ours, others, strict=True)
    ]
    beside = f"{polls:,.0f} polls, by /metrics"
    found.append(Finding("nodes-poll", "store calls in hot polls of a node", asked, "", at_most=0, beside=beside))
    beats = seconds / WIDE.beat_s
    beside = f"{proofs:,.0f} turns in {seconds:.0f} s, {polls:,.0f} polls; a beat is due each {WIDE.beat_s:g} s"
    name = "feed turns in hot polls of a node, beyond its beats"
    return [*found, Finding("nodes-poll", name, max(0.0, proofs - beats - 1), "", at_most=0, beside=beside)]


def _ways(server: Server, name: str) -> list[Side]:
    readers = asyncio.run(_gather_readers(server.url))
    wire, now_ms = Wire(server.port), time.time_ns() // 1_000_000 + 1
    return [
        Side(f"hot poll of {name} by cursor", server, by_cursor(wire, readers)),
        Side(f"hot poll of {name} by timestamp", server, by_timestamp(wire, readers, now_ms)),
    ]


async def _gather_readers(url: str) -> list[str]:
    """Readers, each in two groups, where everybody was sent something."""
    async with tidings.Client(url, connections_max=CALLS) as client:
        users = await asyncio.gather(*(client.create_user(f"reader {n}") for n in range(READERS)))
        groups = await asyncio.gather(*(client.create_group(f"group {n}") for n in range(READERS)))
        readers = [user.user_id for user in users]
        stays = [(groups[(n + k) % READERS].group_id, readers[n]) for n in range(READERS) for k in range(GROUPS_EACH)]
        await asyncio.gather(*(client.add_member(*stay) for stay in stays))
        await asyncio.gather(*(client.send_to_group(user, group, "hello") for group, user in stays[::GROUPS_EACH]))
    return readers


def _proofs(wire: Wire) -> float:
    """How often the node put something into the feed and read it back."""
    return wire.counts()["tidings_feed_lag_seconds_count"]


def sends_beside_calls(stage: Stage) -> list[Finding]:
    """One sender, one send after the other, beside the same calls to the tables without a node, in turn."""
    found: list[Finding] = []
    rounds, count = stage.pace.rounds, stage.pace.calls
    shared = stage.backends()
    with stage.node() as node, Calls(stage.cores.server) as calls:
        stage.talk.expect(2 * rounds)
        for kind, is_group in (("private", False), ("group", True)):
            request = asyncio.run(_writer(node.url, is_group=is_group))
            stage.ask_all(node, [request], 10)  # its heads are known, its connections open
            sends: list[Measured] = []
            bare: list[Bare] = []
            before = _operations(node)
            for _ in range(rounds):
                sends.append(stage.ask_all(node, [request], count))
                bare.append(calls.make(Ask(shared.store, count, is_group)))
                above = sends[-1].p50_ms - bare[-1].p50_ms
                stage.talk.step(f"{kind} send {sends[-1].p50_ms:.2f} ms, {above:.2f} above its calls")
            check_calls(before, _operations(node), bare[0].calls, rounds * count)
            found.append(_above(kind, sends, bare))
    return found


def _above(kind: str, sends: Sequence[Measured], bare: Sequence[Bare]) -> Finding:
    values = [send.p50_ms - calls.p50_ms for send, calls in zip(sends, bare, strict=True)]
    each = " then ".join(f"{name} {median(calls.calls[name] for calls in bare):.2f}" for name in bare[0].calls)
    beside = (
        f"p50 {median(send.p50_ms for send in sends):.2f} ms,"
        f" of its calls {median(c.p50_ms for c in bare):.2f} ({each});"
        f" above: a stamp, the news, {1e3 * min(s.server_cpu_s / s.measured for s in sends):.1f} ms CPU"
    )
    name = f"{kind} send, p50 above its calls to the tables"
    return Finding("nodes-send", name, median(values), "ms", values, at_most=ABOVE_MS, beside=beside)


def _operations(node: Server) -> dict[str, float]:
    """The node's calls to the tables so far, by name."""
    samples = Wire(node.port).samples()
    return {
        labels.partition('operation="')[2].rstrip('"'): value
        for name, labels, value in samples
        if name == "tidings_store_operations_total"
    }


def check_calls(before: Mapping[str, float], now: Mapping[str, float], named: Iterable[str], count: int) -> None:
    """Those calls were made, one each for a send, as /metrics counted before and now. Raises Failed."""
    gained = {name: now[name] - before.get(name, 0.0) for name in now}
    for name in named:
        spare = 0.5 * count if name == "get_item" else 0.0  # it looks whether the store is open, every 2 s
        if not count <= gained.get(name, 0.0) <= count + spare:
            raise Failed(f"{count} sends should make {count} calls {name}, and made {gained}")


async def _writer(url: str, *, is_group: bool) -> Request:
    async with tidings.Client(url, connections_max=CALLS) as client:
        sender = (await client.create_user("writer")).user_id
        if not is_group:
            receiver = (await client.create_user("receiver")).user_id
            return Request(post("private", sender, "receiverId", receiver), ACCEPTED, is_whole=False)
        group = (await client.create_group("group")).group_id
        await client.add_member(group, sender)
        return Request(post("group", sender, "groupId", group), ACCEPTED, is_whole=False)


class TwoNodes:
    """Two nodes and a load for each; what they were asked and answered, round by round."""

    def __init__(self, stage: Stage, stack: ExitStack) -> None:
        self.nodes = [stack.enter_context(stage.node_anywhere()) for _ in range(2)]
        self._loads = [stage.load, stack.enter_context(Load(stage.cores.load))]
        self._pool = stack.enter_context(ThreadPoolExecutor(2))
        self._stage = stage
        self._before = self._counts()
        self.rates: list[float] = []
        self.accepted: list[int] = []

    def append(self, group: str, members: Sequence[str]) -> None:
        """Half of the members send to the one node, half to the other; then it is read back. Raises Failed."""
        requests = [Request(post("group", m, "groupId", group), ACCEPTED, is_whole=False) for m in members]
        cores = [self._stage.cores.server, self._stage.cores.load]
        plans = [
            Plan(node.port, requests[at::2], node.pids, cores, self._stage.pace.appending_s, self._stage.pace.warm_s)
            for at, node in enumerate(self.nodes)
        ]
        told = list(self._pool.map(Load.run, self._loads, plans))
        self.rates.append(sum(measured.measured / measured.seconds for measured in told))
        self.accepted.append(sum(measured.answers for measured in told))
        for node in self.nodes:
            stored = asyncio.run(_read_back(node.url, members[0]))
            if stored != self.accepted[-1]:
                raise Failed(f"{self.accepted[-1]} sends were answered 200, but {stored} messages are in the mailbox")

    def counted(self, name: str) -> float:
        """What both counted under a name of /metrics."""
        return self._counts()[name] - self._before.get(name, 0.0)

    def _counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for node in self.nodes:
            counts.update(Wire(node.port).counts())
        return counts


def busy_mailbox(stage: Stage) -> list[Finding]:
    """Two nodes, one group, many senders at each: what is answered is in the mailbox, without a hole, at both.

    Each round has a group of its own.
    """
    rounds = stage.pace.live_rounds
    stage.talk.expect(rounds)
    with ExitStack() as stack:
        both = TwoNodes(stage, stack)
        for _ in range(rounds):
            both.append(*asyncio.run(_gather_writers(both.nodes[0].url, 2 * SENDERS)))
            stage.talk.step(f"{both.rates[-1]:,.0f} appends/s of two nodes, read back at both without a hole")
        puts, conflicts = (
            both.counted(f"tidings_{what}") for what in ("commit_batch_size_count", "store_conflicts_total")
        )
    accepted = sum(both.accepted)
    beside = (
        f"{accepted:,} messages in {puts:,.0f} puts, {conflicts:,.0f} conflicts;"
        f" {_limit(stage, max(1, round(accepted / puts)), accepted // rounds)}"
    )
    name = "appends to one mailbox from two nodes"
    return [Finding("nodes-append", name, median(both.rates), "/s", both.rates, at_least=APPENDS, beside=beside)]


def _limit(stage: Stage, together: int, stored: int) -> str:
    """What the server of the tables takes of somebody alone: such puts, and a look for the head of such a mailbox."""
    shared = stage.backends()
    with Calls(stage.cores.server) as calls:
        ask = Ask(shared.store, max(1, stored // together), is_group=True, together=together, looks=5)
        taken = calls.make(ask).calls
    put_ms, look_ms = (ms for name, ms in taken.items() if name != "get_item")
    return (
        f"{shared.server} alone takes such a put in {put_ms:.1f} ms ({1e3 * together / put_ms:,.0f} messages/s),"
        f" a query for the head, as each conflict costs, in {look_ms:.1f}"
    )


async def _gather_writers(url: str, count: int) -> tuple[str, list[str]]:
    """A group and its members."""
    async with tidings.Client(url, connections_max=CALLS) as client:
        group = (await client.create_group("group")).group_id
        users = await asyncio.gather(*(client.create_user(f"writer {n}") for n in range(count)))
        await asyncio.gather(*(client.add_member(group, user.user_id) for user in users))
        return group, [user.user_id for user in users]


async def _read_back(url: str, reader: str) -> int:
    async with tidings.Client(url) as client:
        return await length(client, reader)
