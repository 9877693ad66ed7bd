"""Idempotency keys: one key, one effect, one answer."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tidings.history.events import Changing, Sending
from tidings.history.spans import Switch, switches
from tidings.history.verdict import Verdict

BUSY = {"", "overloaded", "shutting_down", "mailbox_busy"}  # refusals that say nothing about the key
AGAIN = {"already_blocked", "already_a_member"}

Step = tuple[int, Sending | Changing]


def judge_keys(calls: Iterable[Step], verdict: Verdict) -> None:
    """Add an anomaly for each key that did not keep its promise."""
    by_key: dict[tuple[str, ...], list[Step]] = defaultdict(list)
    steps = list(calls)
    for index, call in steps:
        if call.key:
            scope = (call.sender,) if isinstance(call, Sending) else (call.operation, call.of)
            by_key[(*scope, call.key)].append((index, call))
    changes = [(index, call) for index, call in steps if isinstance(call, Changing)]
    for same in by_key.values():
        _judge_answers(same, verdict)
        _judge_refusals(same, verdict)
        _judge_retried_change(same, changes, verdict)


def _judge_answers(same: Sequence[Step], verdict: Verdict) -> None:
    answers: dict[object, int] = {}
    for index, call in same:
        if call.outcome == "ok":
            answers.setdefault((_content(call), call.answer if isinstance(call, Sending) else None), index)
    if len(answers) > 1:
        text = f"key {same[0][1].key!r} was answered in {len(answers)} ways"
        verdict.add("idempotency", text, *answers.values())


def _judge_refusals(same: Sequence[Step], verdict: Verdict) -> None:
    """What succeeded is not refused later; and only a key with two contents may be called reused."""
    contents = {_content(call) for _, call in same}
    for index, call in same:
        if call.outcome != "refused" or call.code in BUSY:
            continue
        taken = [
            i for i, c in same if c.outcome == "ok" and c.answered < call.invoked and _content(c) == _content(call)
        ]
        if taken or (call.code == "idempotency_key_reused" and len(contents) == 1):
            verdict.add("idempotency", f"key {call.key!r} was refused with {call.code}", *taken, index)


def _judge_retried_change(same: Sequence[Step], changes: Sequence[tuple[int, Changing]], verdict: Verdict) -> None:
    """A retry that is told "already so" when nothing but its own first attempt can have made it so."""
    mine = {index for index, _ in same}
    for index, call in same:
        if not isinstance(call, Changing) or call.code not in AGAIN or call.operation not in ("add", "block"):
            continue
        on, off = ("add", "remove") if call.operation == "add" else ("block", "unblock")
        others = switches((change for i, change in changes if i not in mine), on, off)
        if others.get((call.of, call.other), Switch()).surely_off(call.invoked, call.answered):
            verdict.add("idempotency", f"key {call.key!r}: a repeated {call.operation} was told {call.code}", index)


def _content(call: Sending | Changing) -> tuple[object, ...]:
    if isinstance(call, Sending):
        return call.recipient, call.text, call.private
    return call.operation, call.of, call.other
