"""Blocks and memberships in time: when was one surely there, surely not there, or possibly begun."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from tidings.history.events import Changing

FOREVER = 1 << 63


@dataclass(frozen=True)
class Span:
    """When a change took effect: not before `invoked`, not after `answered`; if its outcome is unknown, maybe never."""

    invoked: int
    answered: int


@dataclass
class Switch:
    """All changes of one block or one membership."""

    ons: list[Span] = field(default_factory=list)
    offs: list[Span] = field(default_factory=list)

    def surely_on(self, begin: int, end: int) -> bool:
        """Whether it was on during the whole of a time."""
        return _surely(self.ons, self.offs, begin, end)

    def surely_off(self, begin: int, end: int) -> bool:
        """Whether it was off during the whole of a time."""
        return all(on.invoked > end for on in self.ons) or _surely(self.offs, self.ons, begin, end)

    def turned_on(self, begin: int, end: int) -> Iterable[Span]:
        """What may have turned it on during a time."""
        return (on for on in self.ons if on.answered >= begin and on.invoked <= end)


def _surely(to: list[Span], back: list[Span], begin: int, end: int) -> bool:
    # Of the changes that were over before, the one begun last leaves the fewest that may have undone it.
    last = max((span.invoked for span in to if span.answered < begin), default=None)
    return last is not None and not any(span.invoked <= end and span.answered >= last for span in back)


def switches(changes: Iterable[Changing], on: str, off: str) -> dict[tuple[str, str], Switch]:
    """The switch of each pair (`of`, `other`) that one of two operations named."""
    calls: dict[tuple[str, str, str, object], list[Changing]] = defaultdict(list)
    for number, change in enumerate(changes):
        if change.operation in (on, off) and change.outcome != "refused":
            calls[change.operation, change.of, change.other, change.key or number].append(change)
    found: dict[tuple[str, str], Switch] = defaultdict(Switch)
    for (operation, of, other, _), attempts in calls.items():
        answered = min((call.answered for call in attempts if call.outcome == "ok"), default=FOREVER)
        span = Span(min(call.invoked for call in attempts), answered)
        switch = found[of, other]
        (switch.ons if operation == on else switch.offs).append(span)
    return dict(found)
