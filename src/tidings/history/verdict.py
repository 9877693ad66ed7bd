"""What the checker says: the counts of a history, and each anomaly with its evidence."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

KINDS = {
    "lost": "acknowledged, and shown to nobody although somebody it was meant for read to the end afterwards",
    "stale": "acknowledged before a read to the end was asked for, which lacks it (a later one has it)",
    "skipped": "a reader was never given a message although they read on",
    "hole": "a reader was given the messages around a seq that nobody knows",
    "doubled": "given twice to one chain of reads, or stored twice for one intent",
    "non-monotonic": "a chain of reads went back in a mailbox, or was given what is not later than its timestamp",
    "disagreement": "two answers differ on what a message is, or on which message has a seq in a mailbox",
    "timestamps": "a mailbox's timestamps do not strictly increase along its seq",
    "phantom": "given to a reader, and never sent: no such send, one that was refused, or one begun later",
    "leak": "given to somebody it was not meant for, or accepted past a block or without membership",
    "idempotency": "one key was answered in two ways, or for two contents",
}


@dataclass(frozen=True)
class Anomaly:
    """One promise broken: its kind (of `KINDS`), what was found, and where in the history its events stand, from 1."""

    kind: str
    text: str
    events: tuple[int, ...]

    def __str__(self) -> str:
        """The anomaly on one line; the numbers are lines of the history's file."""
        return f"{self.kind}: {self.text} [events {', '.join(map(str, self.events))}]"


@dataclass
class Verdict:
    """What a history holds, and what is wrong with it; `counts` says how much was judged."""

    counts: Counter[str] = field(default_factory=Counter)
    anomalies: list[Anomaly] = field(default_factory=list)
    _noted: set[tuple[str, str]] = field(default_factory=set)

    def __bool__(self) -> bool:
        """Whether nothing is wrong."""
        return not self.anomalies

    def add(self, kind: str, text: str, *events: int) -> None:
        """Note an anomaly, unless it is noted already; `events` are indices into the history."""
        if (kind, text) in self._noted:
            return
        self._noted.add((kind, text))
        self.anomalies.append(Anomaly(kind, text, tuple(event + 1 for event in events)))

    def kinds(self) -> set[str]:
        """The kinds of the anomalies."""
        return {anomaly.kind for anomaly in self.anomalies}

    def summary(self) -> str:
        """One line: the counts and the number of anomalies."""
        counts = ", ".join(f"{number} {name}" for name, number in self.counts.items())
        return f"{counts}, {len(self.anomalies)} anomalies"

    def report(self, most: int = 20) -> str:
        """The summary, and the first anomalies, a line each."""
        lines: Sequence[str] = [str(anomaly) for anomaly in self.anomalies[:most]]
        left = len(self.anomalies) - most
        return "\n".join([self.summary(), *lines, *([f"... and {left} more"] if left > 0 else [])])
