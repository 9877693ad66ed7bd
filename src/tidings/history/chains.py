"""Chains of reads: each reader must be given everything meant for them, once, in order, and in time."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tidings.history.events import Reading
from tidings.history.record import Record, Stored
from tidings.history.spans import FOREVER, Switch
from tidings.history.verdict import Verdict
from tidings.model import Message, own, room, sent

NAMED = 1_000  # places of one gap that are looked at; a wrong seq may be astronomic
NO_SWITCH = Switch()


@dataclass
class Place:
    """Where a chain stands in a mailbox: the last seq given, all given, how many acknowledged ones are judged."""

    last: int = 0
    given: set[str] = field(default_factory=set)
    judged: int = 0


class Chain:
    """One chain of reads, fed with `take` in order; `finish` judges what never came."""

    def __init__(
        self, record: Record, memberships: Mapping[tuple[str, str], Switch], verdict: Verdict, first: Reading
    ) -> None:
        self._record = record
        self._verdict = verdict
        self._reader = first.reader
        self._name = f"{first.reader}'s chain {first.chain}"
        self._groups = {of: switch for (of, user), switch in memberships.items() if user == first.reader}
        self._begun = first.invoked
        # What was sent before here, or is not later than that, may have been given before the chain began.
        self._loose_until = first.answered if first.cursor else -1
        self._loose_time = first.time or -1
        self._places: dict[str, Place] = defaultdict(Place)
        self._missing: list[tuple[Stored, str, int]] = []

    def take(self, index: int, read: Reading) -> None:
        """Judge the next answered read."""
        if read.expired:
            self._loose_until, self._loose_time = read.answered, FOREVER
        for message in read.messages:
            mailbox = self._record.mailbox(message)
            if self._is_given_anew(read, message):
                continue
            if self._may_read(index, read, mailbox, message):
                self._take_message(index, read, mailbox, message)
        if not read.more:
            for mailbox in self._mailboxes(read):
                self._expect(index, read, mailbox)

    def finish(self) -> None:
        """Say of everything that was missing what became of it."""
        for stored, mailbox, index in self._missing:
            name = _name(stored, mailbox)
            if mailbox not in stored.seen_in:
                self._verdict.add("lost", f"{name} was acknowledged, and nobody was given it", stored.event, index)
            elif stored.message.message_id in self._places[mailbox].given:
                text = f"{self._name} read to the end without {name}, acknowledged before, and got it later"
                self._verdict.add("stale", text, stored.event, index)
            else:
                self._skipped(stored, mailbox, index)

    def _view(self, read: Reading) -> int:
        """The earliest moment whose state a read may show."""
        return read.invoked - self._lag(read)

    def _lag(self, read: Reading) -> int:
        allowed = self._record.allowed
        return allowed.lag if read.invoked < allowed.until else 0

    def _may_come_anew(self, read: Reading, stored: Stored | None) -> bool:
        restamped = self._record.restamped
        return read.time is not None and stored is not None and stored.message.message_id in restamped

    def _is_given_anew(self, read: Reading, message: Message) -> bool:
        """Whether who reads by timestamp is given a message again that was told under a later one than it has."""
        given = self._places[self._record.mailbox(message)].given
        return read.time is not None and message.message_id in self._record.restamped and message.message_id in given

    def _may_read(self, index: int, read: Reading, mailbox: str, message: Message) -> bool:
        if mailbox in (own(self._reader), sent(self._reader)):
            return True
        switch = self._groups.get(message.recipient_id, NO_SWITCH) if mailbox == room(message.recipient_id) else None
        # What a stream gave waits with the client: it may have come as soon as it was sent, before its reader left.
        begin = read.invoked
        if read.streamed:
            begin = min(begin, self._record.stored[message.message_id].invoked)
        begin -= self._lag(read)
        if switch is not None and not switch.surely_off(begin, read.answered):
            return True
        why = "was for somebody else" if switch is None else "is of a group that they were not in"
        text = f"{self._name} was given {message.message_id}, which {why}"
        self._verdict.add("leak", text, self._record.stored[message.message_id].event, index)
        return False

    def _take_message(self, index: int, read: Reading, mailbox: str, message: Message) -> None:
        place = self._places[mailbox]
        is_anew = read.time is not None and message.message_id in self._record.restamped
        shown = f"{self._name} was given {message.message_id} (seq {message.seq} of {mailbox})"
        if message.message_id in place.given:
            self._verdict.add("doubled", f"{shown} again", index)
            return
        place.given.add(message.message_id)
        if read.time is not None and int(message.timestamp) <= read.time:
            self._verdict.add("non-monotonic", f"{shown}, not later than {read.time}", index)
        if message.seq <= place.last and is_anew:
            return  # it overtook what came behind it
        if message.seq <= place.last:
            self._verdict.add("non-monotonic", f"{shown} after seq {place.last}", index)
            return
        for seq in range(place.last + 1, min(message.seq, place.last + NAMED)):
            stored = self._record.at(mailbox, seq)
            if self._is_excused(read, mailbox, stored) or self._may_come_anew(read, stored):
                continue
            if stored is None:
                self._verdict.add("hole", f"{self._name} was given no seq {seq} of {mailbox}, nor was anybody", index)
            else:
                self._skipped(stored, mailbox, index)
        place.last = message.seq

    def _mailboxes(self, read: Reading) -> Iterator[str]:
        """The mailboxes that the reader was surely entitled to during a read."""
        yield own(self._reader)
        if read.sent:
            yield sent(self._reader)
        for group, switch in self._groups.items():
            if switch.surely_on(self._view(read), read.answered):
                yield room(group)

    def _expect(self, index: int, read: Reading, mailbox: str) -> None:
        """A read to the end must have given everything that was acknowledged before it was asked for."""
        place, acknowledged = self._places[mailbox], self._record.acknowledged.get(mailbox, ())
        view = self._view(read)
        if (read.time is not None or not read.cursor) and read.invoked < self._record.allowed.until:
            view = min(view, read.invoked - self._record.allowed.settling)
        while place.judged < len(acknowledged) and acknowledged[place.judged].acked < view:
            stored = acknowledged[place.judged]
            place.judged += 1
            if stored.message.message_id not in place.given and not self._is_excused(read, mailbox, stored):
                self._missing.append((stored, mailbox, index))

    def _is_excused(self, read: Reading, mailbox: str, stored: Stored | None) -> bool:
        """Whether a message that was not given may rightly be left out: before the chain, or before a joining."""
        switch = self._groups.get(mailbox[1:], NO_SWITCH) if mailbox == room(mailbox[1:]) else NO_SWITCH
        joinings = list(switch.turned_on(self._begun - self._record.allowed.lag, read.answered))
        if stored is None:
            return bool(joinings) or self._loose_until >= 0 or self._loose_time >= 0
        if read.time is not None:
            return stored.time <= self._loose_time or (bool(joinings) and stored.time <= read.time)
        return stored.invoked <= self._loose_until or any(stored.invoked <= span.answered for span in joinings)

    def _skipped(self, stored: Stored, mailbox: str, index: int) -> None:
        self._verdict.add("skipped", f"{self._name} was not given {_name(stored, mailbox)}", stored.event, index)


def judge_chains(
    reads: Iterable[tuple[int, Reading]],
    record: Record,
    memberships: Mapping[tuple[str, str], Switch],
    verdict: Verdict,
) -> None:
    """Judge the answered reads, each chain in the order in which its reads were invoked."""
    chains: dict[tuple[str, str], list[tuple[int, Reading]]] = defaultdict(list)
    for index, read in reads:
        if read.outcome == "ok":
            chains[read.reader, read.chain].append((index, read))
    for steps in chains.values():
        _judge_chain(sorted(steps, key=lambda step: step[1].invoked), record, memberships, verdict)


def _judge_chain(
    steps: Sequence[tuple[int, Reading]],
    record: Record,
    memberships: Mapping[tuple[str, str], Switch],
    verdict: Verdict,
) -> None:
    chain = Chain(record, memberships, verdict, steps[0][1])
    for index, read in steps:
        chain.take(index, read)
    chain.finish()


def _name(stored: Stored, mailbox: str) -> str:
    seq = stored.seqs.get(mailbox)
    return f"{stored.message.message_id} ({f'seq {seq} of ' if seq else ''}{mailbox})"
