"""What a bench finds: a figure, its rounds, its budget; and whether one fell since an earlier run."""

from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Any

import msgspec

RATIO = "x"
LEAST_FALL = 0.05  # a twentieth: runs on a quiet machine differ by less than that from nothing in particular


class Finding(msgspec.Struct, frozen=True):
    """One figure: `value` in `unit`, the rounds that it is the median of, what it should be at least or at most.

    `name` says which figure it is, from run to run. Ratios (unit `x`) are comparable between runs; `is_less_better`
    says which way they fall. `beside` is for people, `facts` is what else was measured.
    """

    scene: str
    name: str
    value: float
    unit: str
    rounds: Sequence[float] = ()
    at_least: float | None = None
    at_most: float | None = None
    is_less_better: bool = False
    beside: str = ""
    facts: Mapping[str, Any] = {}

    @property
    def is_met(self) -> bool | None:
        """Whether it is within its budget; None if it has none."""
        if self.at_least is None and self.at_most is None:
            return None
        is_enough = self.at_least is None or self.value >= self.at_least
        return is_enough and (self.at_most is None or self.value <= self.at_most)

    @property
    def verdict(self) -> str:
        """`met`, `MISSED`, or nothing."""
        return {None: "", True: "met", False: "MISSED"}[self.is_met]

    @property
    def middle(self) -> tuple[float, float]:
        """Where the middle half of its rounds lies: its noise."""
        return middle_half(self.rounds or [self.value])


class Earlier(msgspec.Struct, frozen=True):
    """A ratio of an earlier run."""

    name: str
    value: float
    unit: str = RATIO
    rounds: Sequence[float] = ()
    is_less_better: bool = False


class Fall(msgspec.Struct, frozen=True):
    """A ratio that is worse than it was in an earlier run, by more than the noise of both."""

    now: Finding
    before: Earlier
    source: str

    def __str__(self) -> str:
        now, then = self.now.middle, middle_half(self.before.rounds or [self.before.value])
        return (
            f"{self.now.name}: {self.now.value:.2f} ({now[0]:.2f} to {now[1]:.2f}),"
            f" was {self.before.value:.2f} ({then[0]:.2f} to {then[1]:.2f}) in {self.source}"
        )


def middle_half(values: Sequence[float]) -> tuple[float, float]:
    """The lower and the upper quartile; of a single value, itself twice."""
    if len(values) < 2:
        return values[0], values[0]
    lower, _, upper = quantiles(values, n=4, method="inclusive")
    return lower, upper


def ratio(scene: str, name: str, rounds: Sequence[float], **more: Any) -> Finding:
    """The median of rounds' ratios."""
    return Finding(scene, name, median(rounds), RATIO, rounds, **more)


def falls(now: Sequence[Finding], before: Sequence[Earlier], source: str) -> list[Fall]:
    """The ratios that fell: beyond the middle halves of both runs' rounds, and by at least a twentieth."""
    earlier = {finding.name: finding for finding in before if finding.unit == RATIO}
    found = []
    for finding in now:
        then = earlier.get(finding.name)
        if finding.unit == RATIO and then is not None and _fell(finding, then):
            found.append(Fall(finding, then, source))
    return found


def _fell(now: Finding, before: Earlier) -> bool:
    (low, high), (was_low, was_high) = now.middle, middle_half(before.rounds or [before.value])
    if now.is_less_better:
        return low > was_high and now.value > before.value * (1 + LEAST_FALL)
    return high < was_low and now.value < before.value * (1 - LEAST_FALL)
