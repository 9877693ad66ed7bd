"""A history told by hand."""

from dataclasses import dataclass, field

from tidings.history import KINDS, Changing, Event, Operation, Outcome, Reading, Sending, Verdict, check
from tidings.model import Message


@dataclass
class Story:
    """A history told call by call, each one over before the next begins, unless it is `invoked` earlier."""

    events: list[Event] = field(default_factory=list)
    now: int = 0

    def send(
        self,
        sender: str,
        recipient: str,
        text: str,
        seq: int = 1,
        time: int = 0,
        *,
        outcome: Outcome = "ok",
        message_id: str = "",
        private: bool = True,
        key: str = "",
        code: str = "",
        invoked: int | None = None,
    ) -> Message:
        self.now += 10
        message = Message(sender, text, recipient, str(time or self.now), message_id or f"message-{text}", seq)
        call = Sending(
            invoked=self.now if invoked is None else invoked,
            answered=self.now + 5,
            outcome=outcome,
            code=code,
            sender=sender,
            recipient=recipient,
            text=text,
            private=private,
            key=key,
            answer=message if outcome == "ok" else None,
        )
        self.events.append(call)
        return message

    def read(
        self,
        reader: str,
        *messages: Message,
        chain: str = "1",
        cursor: str = "",
        time: int | None = None,
        sent: bool = False,
        more: bool = False,
        outcome: Outcome = "ok",
        invoked: int | None = None,
        expired: bool = False,
        streamed: bool = False,
    ) -> None:
        self.now += 10
        begin = self.now if invoked is None else invoked
        self.events.append(
            Reading(
                invoked=begin,
                answered=self.now + 5,
                outcome=outcome,
                reader=reader,
                chain=chain,
                cursor=cursor,
                time=time,
                sent=sent,
                messages=messages,
                more=more,
                expired=expired,
                streamed=streamed,
            )
        )

    def change(
        self,
        operation: Operation,
        of: str,
        other: str,
        *,
        outcome: Outcome = "ok",
        key: str = "",
        code: str = "",
        invoked: int | None = None,
    ) -> None:
        self.now += 10
        begin, end = self.now if invoked is None else invoked, self.now + 5
        change = Changing(
            invoked=begin, answered=end, outcome=outcome, code=code, operation=operation, of=of, other=other, key=key
        )
        self.events.append(change)

    def group(self, *members: str) -> None:
        for member in members:
            self.change("add", "room", member)

    def judged(self) -> Verdict:
        return check(self.events)

    def kinds(self) -> set[str]:
        kinds = check(self.events).kinds()
        assert kinds <= KINDS.keys()
        return kinds
