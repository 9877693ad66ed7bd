"""Contests between a bare app and Tidings: rounds of all sides in turn, so that noise falls on all alike."""

import time
from dataclasses import dataclass, field
from statistics import median

from bench.load import Measured, Plan, Request
from bench.processes import Cores, Server, load


class Watch:
    """Told of each round of a side; may raise Failed."""

    def begin(self) -> None:
        """A round begins."""

    def end(self, answers: int) -> None:
        """A round gave so many answers."""


@dataclass
class Side:
    """One server under one kind of request."""

    name: str
    server: Server
    requests: list[Request]
    watch: Watch = field(default_factory=Watch)
    rounds: list[Measured] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return median(m.measured / m.seconds for m in self.rounds)

    @property
    def cpu_us(self) -> float:
        """CPU time of the server for an answer, in microseconds: the least of all rounds, as noise only adds to it."""
        return min(m.server_cpu_s / m.measured for m in self.rounds) * 1e6

    @property
    def others(self) -> float:
        """The part of both cores that went to neither the server nor the load."""
        return median(m.others_s / m.seconds / 2 for m in self.rounds)

    @property
    def busy(self) -> float:
        """The part of the measured time in which the server used CPU; less than 1 if it waited for disk or load."""
        return median(m.server_cpu_s / m.seconds for m in self.rounds)


@dataclass
class Contest:
    """Tidings against a bare app, and the ratio that it should reach; None where it is only stated."""

    name: str
    bare: Side
    ours: Side
    budget: float | None
    p99_max_ms: float | None = None

    @property
    def ratios(self) -> list[float]:
        """Ours to bare in answers a second, round by round."""
        pairs = zip(self.ours.rounds, self.bare.rounds, strict=True)
        return [(ours.measured / ours.seconds) / (bare.measured / bare.seconds) for ours, bare in pairs]

    @property
    def ratio(self) -> float:
        """The median round's."""
        return median(self.ratios)

    @property
    def cpu_ratio(self) -> float:
        """Bare to ours in CPU time an answer: what the ratio would be if CPU were all; less moved by noise."""
        return self.bare.cpu_us / self.ours.cpu_us

    @property
    def p50_ms(self) -> float:
        """Of our side."""
        return median(m.p50_ms for m in self.ours.rounds)

    @property
    def p99_ms(self) -> float:
        """Of our side."""
        return median(m.p99_ms for m in self.ours.rounds)

    @property
    def is_met(self) -> bool:
        """Whether every budget of it is."""
        within = self.p99_max_ms is None or self.p99_ms < self.p99_max_ms
        return within and (self.budget is None or self.ratio >= self.budget)


def alternate(sides: list[Side], cores: Cores, rounds: int, seconds: float, warm_s: float) -> None:
    """Run all sides in turn, `rounds` times, telling how it goes. Raises Failed at the first wrong answer."""
    for number in range(1, rounds + 1):
        for side in sides:
            plan = Plan(side.server.port, side.requests, seconds, warm_s, side.server.pids, [cores.server, cores.load])
            side.watch.begin()
            measured = load(cores.load, plan)
            side.watch.end(measured.answers)
            side.rounds.append(measured)
            print(
                f"{time.strftime('%H:%M:%S')}  round {number} of {rounds}  {side.name:<44}"
                f"{measured.measured / measured.seconds:>9,.0f}/s"
                f"{measured.server_cpu_s / measured.measured * 1e6:>7.1f} us CPU"
                f"{measured.server_cpu_s / measured.seconds:>6.0%} busy",
                flush=True,
            )
