"""Everything that a history tells about messages, put together: what each is, where it stands, who vouched for it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tidings.history.events import NOTHING, Allowance, Changing, Event, Reading, Sending
from tidings.history.spans import FOREVER
from tidings.history.verdict import Verdict
from tidings.model import Message, own, room, sent

Indexed = tuple[int, Sending]


@dataclass
class Stored:
    """A message that some answer showed; times are of the clients' clock."""

    message: Message
    event: int  # the first that showed it
    seqs: dict[str, int] = field(default_factory=dict)  # by mailbox: its own, and that of the sender's copies
    invoked: int = FOREVER  # the first call that may have stored it
    known: int = FOREVER  # the first answer that showed it: it was stored before
    acked: int = FOREVER  # the first answer that acknowledged it
    seen_in: set[str] = field(default_factory=set)  # mailboxes in which readers were given it

    @property
    def time(self) -> int:
        """Its timestamp, Unix ms."""
        return int(self.message.timestamp)


class Record:
    """The messages of a history; contradictions among the answers are added to the verdict."""

    def __init__(self, events: Sequence[Event], verdict: Verdict, allowed: Allowance = NOTHING) -> None:
        self._verdict = verdict
        self.allowed = allowed
        self.restamped: set[str] = set()  # messages that were given with more than one timestamp
        self._groups = {event.of for event in events if isinstance(event, Changing) and event.operation == "add"}
        self._groups |= {event.recipient for event in events if isinstance(event, Sending) and not event.private}
        self._intents: dict[tuple[str, str, str], list[Indexed]] = defaultdict(list)
        self._places: dict[tuple[str, int], str] = {}
        self.stored: dict[str, Stored] = {}
        for index, event in enumerate(events):
            if isinstance(event, Sending):
                self._intents[event.sender, event.recipient, event.text].append((index, event))
        for index, event in enumerate(events):
            if isinstance(event, Sending) and event.answer is not None:
                self._acknowledge(index, event, event.answer)
            elif isinstance(event, Reading):
                for message in event.messages:
                    self._show(index, event, message)
        self.acknowledged = self._by_acknowledgement()

    def mailbox(self, message: Message) -> str:
        """The mailbox that a message was given from."""
        return sent(message.sender_id) if message.sent else self._home(message.recipient_id)

    def is_group(self, recipient_id: str) -> bool:
        """Whether an id is a group's."""
        return recipient_id in self._groups

    def at(self, mailbox: str, seq: int) -> Stored | None:
        """The message at a place, if any answer showed one there."""
        message_id = self._places.get((mailbox, seq))
        return None if message_id is None else self.stored[message_id]

    def judge(self) -> None:
        """Add what is wrong with the messages, whoever read them: never sent, stored twice, out of step with time."""
        copies: dict[tuple[str, str, str], list[Stored]] = defaultdict(list)
        mailboxes: dict[str, list[tuple[int, Stored]]] = defaultdict(list)
        for stored in self.stored.values():
            message = stored.message
            copies[message.sender_id, message.recipient_id, message.message].append(stored)
            for mailbox, seq in stored.seqs.items():
                mailboxes[mailbox].append((seq, stored))
        for intent, found in copies.items():
            self._judge_intent(self._intents.get(intent, []), found)
        if len(self.restamped) > self.allowed.anew:
            text = (
                f"{len(self.restamped)} messages have two timestamps, and {self.allowed.anew} were told under another"
            )
            self._verdict.add("disagreement", text, *(self.stored[name].event for name in sorted(self.restamped)))
        for mailbox, placed in mailboxes.items():
            self._judge_times(mailbox, sorted(placed, key=lambda pair: pair[0]))

    def _home(self, recipient_id: str) -> str:
        return room(recipient_id) if recipient_id in self._groups else own(recipient_id)

    def _acknowledge(self, index: int, event: Sending, answer: Message) -> None:
        if (answer.sender_id, answer.recipient_id, answer.message) != (event.sender, event.recipient, event.text):
            self._verdict.add("disagreement", f"the answer to {event.text!r} is another message", index)
            return
        stored = self._meet(index, answer)
        stored.known = min(stored.known, event.answered)
        stored.acked = min(stored.acked, event.answered)

    def _show(self, index: int, event: Reading, message: Message) -> None:
        stored = self._meet(index, message)
        stored.known = min(stored.known, event.answered)
        stored.seen_in.add(self.mailbox(message))

    def _meet(self, index: int, message: Message) -> Stored:
        message_id, mailbox = message.message_id, self.mailbox(message)
        stored = self.stored.get(message_id)
        if stored is None:
            stored = self.stored[message_id] = Stored(message, index)
            attempts = self._intents.get((message.sender_id, message.recipient_id, message.message), [])
            stored.invoked = min((call.invoked for _, call in attempts if call.outcome != "refused"), default=FOREVER)
        if _told(stored.message) != _told(message):
            if self.allowed.anew and _told(stored.message)[:-1] == _told(message)[:-1]:
                self.restamped.add(message_id)
            else:
                self._verdict.add("disagreement", f"{message_id} has two contents or timestamps", stored.event, index)
        if stored.seqs.setdefault(mailbox, message.seq) != message.seq:
            self._verdict.add("disagreement", f"{message_id} has two seqs in {mailbox}", stored.event, index)
        there = self._places.setdefault((mailbox, message.seq), message_id)
        if there != message_id:
            text = f"seq {message.seq} of {mailbox} is both {there} and {message_id}"
            self._verdict.add("disagreement", text, self.stored[there].event, index)
        return stored

    def _by_acknowledgement(self) -> dict[str, list[Stored]]:
        """For each mailbox what was acknowledged for it, by the time of that; sent copies are acknowledged as well."""
        found: dict[str, list[Stored]] = defaultdict(list)
        for stored in sorted(self.stored.values(), key=lambda stored: stored.acked):
            message = stored.message
            if stored.acked < FOREVER:
                found[self._home(message.recipient_id)].append(stored)
                if not self.is_group(message.recipient_id) and message.recipient_id != message.sender_id:
                    found[sent(message.sender_id)].append(stored)
        return found

    def _judge_intent(self, attempts: Sequence[Indexed], found: Sequence[Stored]) -> None:
        may = [(index, call) for index, call in attempts if call.outcome != "refused"]
        for stored in found:
            if stored.invoked > stored.known:
                why = "every send of it was refused" if attempts and not may else "it was not sent before that"
                text = f"{stored.message.message_id} {stored.message.message!r} was given, and {why}"
                self._verdict.add("phantom", text, stored.event, *(index for index, _ in attempts))
        if may and len(found) > len({call.key or index for index, call in may}):
            ids = ", ".join(stored.message.message_id for stored in found)
            text = f"{found[0].message.message!r} was stored as {ids}"
            self._verdict.add("doubled", text, *(stored.event for stored in found), *(index for index, _ in may))

    def _judge_times(self, mailbox: str, placed: Iterable[tuple[int, Stored]]) -> None:
        before: Stored | None = None
        for seq, stored in placed:
            if stored.message.message_id in self.restamped:
                continue
            if before is not None and before.time >= stored.time:
                text = f"seq {seq} of {mailbox} has timestamp {stored.time}, the one before it {before.time}"
                self._verdict.add("timestamps", text, before.event, stored.event)
            before = stored


def _told(message: Message) -> tuple[str, ...]:
    return message.sender_id, message.recipient_id, message.message, message.timestamp
