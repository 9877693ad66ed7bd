"""Durable sends: 64 senders keep one private send of 50 bytes each in flight, to receivers of their own."""

from contextlib import ExitStack

from bench.bare import FILLER
from bench.contest import Side, alternate, by_rate, silence
from bench.findings import Finding
from bench.load import Request
from bench.stage import Stage
from bench.world import Writers

SEND_BUDGET = 0.4
SEND_P99_MS = 50.0


def durable_sends(stage: Stage) -> list[Finding]:
    """With one worker and with two, without key and with one; all with sent copies. What was answered is read back."""
    with ExitStack() as stack:
        ways: list[tuple[Writers, list[Side]]] = []
        for name, flags in (("one worker", ()), ("two workers", ("--workers", "2"))):
            server = stack.enter_context(stage.tidings(stage.new_room(f"sends-{name[:3]}"), *flags))
            writers = Writers(server.url)
            sides = [
                Side(f"durable send, {name}{key}", server, writers.requests(keyed=bool(key)))
                for key in ("", ", with key")
            ]
            ways.append((writers, sides))
        ours = [side for _, sides in ways for side in sides]
        size = ways[0][0].answer_size
        post = stack.enter_context(stage.bare("post", size))
        requests = [Request(request.head, FILLER.decode() * size) for request in ours[0].requests]
        other = Side(f"bare POST, {size} bytes", post, requests)
        alternate(stage, [other, *ours])
        stored = sum(writers.check(sum(side.answers for side in sides)) for writers, sides in ways)
        stage.talk.say(f"checked: {stored:,} messages read back without a hole, as many as were answered 200")
        budgets = {side.name: SEND_BUDGET for _, sides in ways for side in sides[:1]}  # with a key it is stated
        ratios = [by_rate("send", side, other, at_least=budgets.get(side.name)) for side in ours]
        latencies = [_latency(side, SEND_P99_MS if side.name in budgets else None) for side in ours]
        return [*ratios, *latencies, silence("send", "sends", ours)]


def _latency(side: Side, at_most: float | None) -> Finding:
    rounds = [m.p99_ms for m in side.rounds]
    slowest = max(m.max_ms for m in side.rounds)
    beside = f"p50 {side.p50_ms:.1f} ms, slowest {slowest:.0f} ms"
    return Finding("send", f"p99 of {side.name}", side.p99_ms, "ms", rounds, at_most=at_most, beside=beside)
