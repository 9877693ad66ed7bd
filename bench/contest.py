"""Contests: rounds of all sides in turn, so that noise falls on all alike, and what they give."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.findings import Finding, ratio
from bench.load import Measured, Request
from bench.processes import Server
from bench.stage import Stage

LIMIT = 0.9  # of its core: a load that used so much, while the server had time to spare, was what was measured


@dataclass
class Side:
    """One server under one kind of request."""

    name: str
    server: Server
    requests: list[Request]
    rounds: list[Measured] = field(default_factory=list)
    lines: int = 0  # printed by the server meanwhile

    @property
    def answers(self) -> int:
        """All answers, those of warming up too."""
        return sum(m.answers for m in self.rounds)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return median(self.rates)

    @property
    def rates(self) -> list[float]:
        """Answers a second, round by round."""
        return [m.measured / m.seconds for m in self.rounds]

    @property
    def costs_us(self) -> list[float]:
        """CPU time of the server for an answer, in microseconds, round by round."""
        return [m.server_cpu_s / m.measured * 1e6 for m in self.rounds]

    @property
    def cpu_us(self) -> float:
        """The least of that, as noise only adds to it."""
        return min(self.costs_us)

    @property
    def others(self) -> float:
        """The part of both cores that went to neither the server nor the load."""
        return median(m.others_s / m.seconds / 2 for m in self.rounds)

    @property
    def busy(self) -> float:
        """The part of the measured time in which the server used CPU; less than 1 if it waited for disk or load."""
        return median(m.server_cpu_s / m.seconds for m in self.rounds)

    @property
    def load_busy(self) -> float:
        """The same of the load."""
        return median(m.load_cpu_s / m.seconds for m in self.rounds)

    @property
    def is_load_bound(self) -> bool:
        """Whether the load, not the server, was what limited the rate."""
        return self.load_busy > LIMIT and self.busy < LIMIT

    @property
    def p50_ms(self) -> float:
        """Half of the answers came within."""
        return median(m.p50_ms for m in self.rounds)

    @property
    def p99_ms(self) -> float:
        """99 of 100 answers came within."""
        return median(m.p99_ms for m in self.rounds)

    @property
    def facts(self) -> dict[str, Any]:
        """For the record."""
        return {
            "name": self.name,
            "per_second": self.rate,
            "cpu_us": self.cpu_us,
            "busy": self.busy,
            "load_busy": self.load_busy,
            "others": self.others,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "rounds": self.rounds,
        }


def alternate(stage: Stage, sides: Sequence[Side]) -> None:
    """Run all sides in turn, as often as the pace says, there and back: who comes after whom must not matter.

    Raises Failed at the first wrong answer.
    """
    stage.talk.expect(stage.pace.rounds * len(sides))
    for number in range(1, stage.pace.rounds + 1):
        for side in sides if number % 2 else sides[::-1]:
            printed = side.server.lines
            measured = stage.measure(side.server, side.requests)
            side.lines += side.server.lines - printed
            side.rounds.append(measured)
            stage.talk.step(
                f"round {number}  {side.name:<40}{measured.measured / measured.seconds:>9,.0f}/s"
                f"{measured.server_cpu_s / measured.measured * 1e6:>8.1f} us CPU"
            )
    for side in sides:
        if side.is_load_bound:
            stage.talk.say(
                f"warning: at {side.name!r} the load used {side.load_busy:.0%} of its core, the server only"
                f" {side.busy:.0%}: the load was the limit; look at CPU time instead"
            )


def by_rate(scene: str, ours: Side, other: Side, other_name: str = "bare", **more: Any) -> Finding:
    """Ours to the other's in answers a second."""
    rounds = [mine / theirs for mine, theirs in zip(ours.rates, other.rates, strict=True)]
    beside = (
        f"{ours.rate:,.0f}/s, {other_name} {other.rate:,.0f}/s;"
        f" {ours.cpu_us:.1f} us CPU, {other_name} {other.cpu_us:.1f}; p50 {ours.p50_ms:.2f} ms, p99 {ours.p99_ms:.2f}"
    )
    facts = {"ours": ours.facts, "other": other.facts}
    return ratio(scene, ours.name, rounds, beside=beside, facts=facts, **more)


def by_cost(scene: str, name: str, ours: Side, other: Side, **more: Any) -> Finding:
    """Ours to the other's in CPU time an answer: less is better."""
    rounds = [mine / theirs for mine, theirs in zip(ours.costs_us, other.costs_us, strict=True)]
    beside = f"{ours.cpu_us:.1f} us CPU, {other.cpu_us:.1f} us"
    facts = {"ours": ours.facts, "other": other.facts}
    return ratio(scene, name, rounds, beside=beside, facts=facts, is_less_better=True, **more)


def silence(scene: str, what: str, sides: Sequence[Side]) -> Finding:
    """How many lines the servers printed under load: none, by default."""
    asked = sum(side.answers for side in sides)
    lines = sum(side.lines for side in sides)
    return Finding(scene, f"lines printed under load, {what}", lines, "", at_most=0, beside=f"{asked:,} requests")
