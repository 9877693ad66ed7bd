"""Faults to plant into a right history: each gives the kind that must be found, and the spoilt history."""

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from tidings.history import Changing, Event, Reading, Sending
from tidings.model import Message

T = TypeVar("T")
Plant = Callable[[Sequence[Event], random.Random], tuple[str, list[Event]]]


def _given(events: Sequence[Event]) -> list[tuple[int, Reading, Message]]:
    """Every private message that a reader who began at the beginning was given."""
    return [
        (index, event, message)
        for index, event in enumerate(events)
        if isinstance(event, Reading) and event.outcome == "ok" and not event.chain.endswith("-3")
        for message in event.messages
        if message.recipient_id == event.reader and not message.sent
    ]


def _acknowledged(events: Sequence[Event]) -> dict[str, Sending]:
    """By message id, a send that was answered."""
    return {
        event.answer.message_id: event for event in events if isinstance(event, Sending) and event.answer is not None
    }


def _missed(events: Sequence[Event]) -> list[Message]:
    """Messages that would be missed: their reader read to the end after they were acknowledged."""
    acknowledged = _acknowledged(events)
    last: dict[str, int] = {}
    for event in events:
        if isinstance(event, Reading) and event.outcome == "ok" and not event.more and not event.chain.endswith("-3"):
            last[event.reader] = max(last.get(event.reader, 0), event.invoked)
    return [
        message
        for _, read, message in _given(events)
        if message.message_id in acknowledged
        and (acknowledged[message.message_id].answered or 0) < last.get(read.reader, 0)
    ]


def _with(events: Sequence[Event], index: int, event: Event) -> list[Event]:
    return [*events[:index], event, *events[index + 1 :]]


def _mapped(events: Sequence[Event], change: Callable[[Message], Message | None]) -> list[Event]:
    """The history with every message that readers were given changed, or left out."""
    spoilt: list[Event] = []
    for event in events:
        if isinstance(event, Reading):
            kept = [new for new in map(change, event.messages) if new is not None]
            event = replace(event, messages=kept)
        spoilt.append(event)
    return spoilt


def lost(events: Sequence[Event], rng: random.Random) -> tuple[str, list[Event]]:
    """An acknowledged message disappears from every answer."""
    gone = rng.choice(_missed(events)).message_id
    return "lost", _mapped(events, lambda m: None if m.message_id == gone else m)


def renumbered(events: Sequence[Event], rng: random.Random) -> tuple[str, list[Event]]:
    """The same, with what came after it in the mailbox moved up, so that no seq is missing."""
    gone = rng.choice(_missed(events))

    def moved(m: Message) -> Message | None:
        if m.message_id == gone.message_id and not m.sent:
            return None
        is_later = m.recipient_id == gone.recipient_id and m.seq > gone.seq and not m.sent
        return replace(m, seq=m.seq - 1) if is_later else m

    return "lost", _mapped(events, moved)


def skipped(events: Sequence[Event], rng: random.Random) -> tuple[str, list[Event]]:
    """One reader is not given a message that others are given."""
    given = _given(events)
    seen = [m.message_id for _, _, m in given]
    index, read, gone = rng.choice([g for g in given if seen.count(g[2].message_id) > 1])
    kept = [m for m in read.messages if m.message_id != gone.message_id]
    acknowledged = _acknowledged(events).get(gone.message_id)
    goes_on = [
        e
        for e in events
        if isinstance(e, Reading) and (e.reader, e.chain, e.outcome) == (read.reader, read.chain, "ok")
    ]
    if any(m.recipient_id == read.reader and m.seq > gone.seq for r in goes_on for m in r.messages if not m.sent) or (
        acknowledged and any(not r.more and r.invoked > acknowledged.answered for r in goes_on)
    ):
        return "skipped", _with(events, index, replace(read, messages=kept))
    return lost(events, rng)


def hole(events: Sequence[Event], rng: random.Random) -> tuple[str, list[Event]]:
    """From one message on all seqs of a mailbox are one higher, in every answer."""
    _, _, first = rng.choice(_given(events))

    def later(m: Message) -> Message:
        is_later = m.recipient_id == first.recipient_id and not m.sent and m.seq >= first.seq
        return replace(m, seq=m.seq + 1) if is_later else m

    spoilt = _mapped(events, later)
    return "hole", [
        replace(e, answer=later(e.answer)) if isinstance(e, Sending) and e.answer is not None else e for e in spoilt
    ]


def repeated(events: Sequence[Event], rng: random.Random) -> tuple[str, list[Event]]:
    """A message comes twice in one answer."""
    index, read, message = rng.choice(_given(events))
    return "doubled", _with(events, index, replace(read, messages=[*read.messages, message]))


def stored_twice(events: Sequence[Event], rng: random.Random) -> tuple[str, list[Event]]:
    """At the end of a mailbox an intent appears once more, under another id."""
    given = _given(events)
    index, read, message = rng.choice(given)
    last = max(m.seq for _, r, m in given if r.reader == read.reader)
    copy = replace(message, message_id="message-copy", seq=last + 1, timestamp="999999999")
    return "doubled", _with(events, index, replace(read, messages=[*read.messages, copy]))


def turned_round(events: Sequence[Event], rng: random.Random) -> tuple[str, list[Event]]:
    """A page gives a mailbox in the wrong order."""
    given = _given(events)
    pages = [(i, r) for i, r, _ in given if sum(m.recipient_id == r.reader and not m.sent for m in r.messages) > 1]
    index, read = rng.choice(pages)
    return "non-monotonic", _with(events, index, replace(read, messages=list(reversed(read.messages))))


def disagreeing(events: Sequence[Event], rng: random.Random) -> tuple[str, list[Event]]:
    """One reader is told another timestamp than the others."""
    given = _given(events)
    seen = [m.message_id for _, _, m in given]
    index, read, message = rng.choice([g for g in given if seen.count(g[2].message_id) > 1])
    other = replace(message, timestamp=str(int(message.timestamp) + 1))
    told = [other if m == message else m for m in read.messages]
    return "disagreement", _with(events, index, replace(read, messages=told))


def out_of_time(events: Sequence[Event], rng: random.Random) -> tuple[str, list[Event]]:
    """A message bears, in every answer, the timestamp of the one before it in its mailbox."""
    given = [m for _, _, m in _given(events)]
    at = {(m.recipient_id, m.seq): m for m in given}
    late = rng.choice([m for m in given if (m.recipient_id, m.seq - 1) in at])
    stamp = at[late.recipient_id, late.seq - 1].timestamp

    def set_back(m: Message) -> Message:
        return replace(m, timestamp=stamp) if m.message_id == late.message_id else m

    spoilt = _mapped(events, set_back)
    return "timestamps", [
        replace(e, answer=set_back(e.answer)) if isinstance(e, Sending) and e.answer is not None else e for e in spoilt
    ]


def phantom(events: Sequence[Event], rng: random.Random) -> tuple[str, list[Event]]:
    """A message that was given was never sent."""
    _, _, message = rng.choice(_given(events))
    return "phantom", [e for e in events if not (isinstance(e, Sending) and e.text == message.message)]


def refused(events: Sequence[Event], rng: random.Random) -> tuple[str, list[Event]]:
    """All sends of a message that was given were refused."""
    _, _, message = rng.choice(_given(events))
    return "phantom", [
        replace(e, outcome="refused", answer=None) if isinstance(e, Sending) and e.text == message.message else e
        for e in events
    ]


def leaked(events: Sequence[Event], rng: random.Random) -> tuple[str, list[Event]]:
    """Somebody is given a private message of somebody else's."""
    index, read, _ = rng.choice(_given(events))
    _, _, message = rng.choice([g for g in _given(events) if g[2].recipient_id != read.reader])
    return "leak", _with(events, index, replace(read, messages=[*read.messages, message]))


def past_a_block(events: Sequence[Event], rng: random.Random) -> tuple[str, list[Event]]:
    """A message was accepted although its receiver had blocked its sender long before, and never took it back."""
    message = rng.choice(list(_acknowledged(events).values()))
    while not message.private:
        message = rng.choice(list(_acknowledged(events).values()))
    kept = [
        e for e in events if not (isinstance(e, Changing) and (e.of, e.other) == (message.recipient, message.sender))
    ]
    block = Changing(invoked=1, answered=2, operation="block", of=message.recipient, other=message.sender)
    return "leak", [*kept, block]


def after_removal(events: Sequence[Event], rng: random.Random) -> tuple[str, list[Event]]:
    """A group's message was given to somebody who had been removed long before, and never came back."""
    found = [
        (e, m) for e in events if isinstance(e, Reading) for m in e.messages if m.recipient_id in ("attic", "kitchen")
    ]
    read, message = rng.choice(found)
    pair = (message.recipient_id, read.reader)
    kept = [e for e in events if not (isinstance(e, Changing) and (e.of, e.other) == pair)]
    of, other = pair
    add = Changing(invoked=1, answered=2, operation="add", of=of, other=other)
    remove = Changing(invoked=3, answered=4, operation="remove", of=of, other=other)
    return "leak", [*kept, add, remove]


def key_in_two_ways(events: Sequence[Event], rng: random.Random) -> tuple[str, list[Event]]:
    """A repeat of a keyed send is answered with another message."""
    call = rng.choice([e for e in events if isinstance(e, Sending) and e.key and e.answer is not None])
    assert call.answer is not None
    again = replace(call, invoked=call.answered + 1, answered=call.answered + 2)
    return "idempotency", [*events, replace(again, answer=replace(call.answer, message_id="message-again", seq=9_999))]


PLANTS: tuple[Plant, ...] = (
    lost,
    renumbered,
    skipped,
    hole,
    repeated,
    stored_twice,
    turned_round,
    disagreeing,
    out_of_time,
    phantom,
    refused,
    leaked,
    past_a_block,
    after_removal,
    key_in_two_ways,
)
