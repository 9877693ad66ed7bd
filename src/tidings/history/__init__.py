"""A judge of histories: given what clients sent, read and were answered, it says which promise was broken, and where.

    from tidings.history import check, read_history
    verdict = check(list(read_history(path)))      # or: python -m tidings.history FILE
    assert verdict, verdict.report()

It knows nothing of the server: only the events (`events.py` documents them and their file), in intervals of one
monotonic clock, so that calls which overlapped are never held against it. Its anomalies (`verdict.py`) are those of
Maelstrom's kafka workload (lost write, skipped, non-monotonic, disagreement) and those of people: leaks, blocks, keys.
"""

from collections.abc import Iterable, Sequence

from tidings.history.chains import NO_SWITCH, judge_chains
from tidings.history.events import (
    NOTHING,
    Allowance,
    Changing,
    Event,
    Fault,
    Operation,
    Outcome,
    Reading,
    Sending,
    read_history,
    write_history,
)
from tidings.history.keys import judge_keys
from tidings.history.record import Record
from tidings.history.spans import FOREVER, switches
from tidings.history.verdict import KINDS, Anomaly, Verdict

__all__ = [
    "KINDS",
    "Allowance",
    "Anomaly",
    "Changing",
    "Event",
    "Fault",
    "Operation",
    "Outcome",
    "Reading",
    "Sending",
    "Verdict",
    "check",
    "read_history",
    "write_history",
]


def check(events: Iterable[Event]) -> Verdict:
    """Judge a history; its events may come in any order, since their times say what was first."""
    history = list(events)
    verdict = Verdict()
    changes = [event for event in history if isinstance(event, Changing)]
    memberships = switches(changes, "add", "remove")
    allowed = next((event for event in history if isinstance(event, Allowance)), NOTHING)
    record = Record(history, verdict, allowed)
    _count(history, record, verdict)
    record.judge()
    judge_chains(
        ((i, event) for i, event in enumerate(history) if isinstance(event, Reading)), record, memberships, verdict
    )
    judge_keys(((i, event) for i, event in enumerate(history) if isinstance(event, Sending | Changing)), verdict)
    _judge_acceptance(record, changes, verdict)
    return verdict


def _count(history: Sequence[Event], record: Record, verdict: Verdict) -> None:
    counts = verdict.counts
    sends = [event for event in history if isinstance(event, Sending)]
    reads = [event for event in history if isinstance(event, Reading)]
    counts["sends"] = len(sends)
    counts["sends acknowledged"] = sum(event.outcome == "ok" for event in sends)
    counts["sends unknown"] = sum(event.outcome == "unknown" for event in sends)
    counts["reads"] = sum(event.outcome == "ok" for event in reads)
    counts["reads cut"] = sum(event.outcome == "unknown" for event in reads)
    counts["messages"] = len(record.stored)
    counts["messages given"] = sum(len(event.messages) for event in reads)
    counts["messages acknowledged and never read"] = sum(
        stored.acked < FOREVER and not stored.seen_in for stored in record.stored.values()
    )
    if record.restamped:
        counts["messages given under two timestamps"] = len(record.restamped)
    counts["changes"] = sum(isinstance(event, Changing) for event in history)
    for event in history:
        if isinstance(event, Fault):
            counts[event.what + "s"] += 1


def _judge_acceptance(record: Record, changes: Sequence[Changing], verdict: Verdict) -> None:
    """Nothing may be accepted past a block that was answered, nor from somebody who surely was no member."""
    blocks, memberships = switches(changes, "block", "unblock"), switches(changes, "add", "remove")
    for stored in record.stored.values():
        message, when = stored.message, (stored.invoked, stored.known)
        if record.is_group(message.recipient_id):
            switch = memberships.get((message.recipient_id, message.sender_id), NO_SWITCH)
            wrong, why = switch.surely_off(*when), "from somebody who was not in the group"
        else:
            switch = blocks.get((message.recipient_id, message.sender_id), NO_SWITCH)
            wrong, why = switch.surely_on(*when), "although its receiver blocked its sender"
        if wrong:
            verdict.add("leak", f"{message.message_id} was accepted {why}", stored.event)
