"""The recorder: every call of every client becomes an event of the history that is judged at the end."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from tests.faults.calls import Answer, Line
from tidings.history import Changing, Event, Fault, Operation, Reading, Sending, Verdict, check, write_history
from tidings.model import Message

LONG = 3_000  # messages

Noted = TypeVar("Noted", Sending, Reading, Changing)


class Recorder:
    """The events so far, and what is `wrong` beside them: 500s, hangs, answers that nothing explains."""

    def __init__(self) -> None:
        self.events: list[Event] = []  # an append is atomic, so threads share it
        self.wrong: list[str] = []
        self._known: dict[Message, Message] = {}  # each once, however often it is read
        self._latest = 0  # timestamp of these

    @property
    def recent(self) -> int | None:
        """A timestamp to look back from where all there is would be too much for a look in between; else None."""
        return None if len(self._known) < LONG else self._latest - 10_000

    def fault(self, what: str) -> None:
        """Note what was done to the server."""
        self.events.append(Fault(what, time.monotonic_ns()))

    def send(self, line: Line, sender: str, recipient: str, text: str, private: bool, key: str) -> Sending:
        """Send, and record it."""
        kind = "private" if private else "group"
        body = {"senderId": sender, "receiverId" if private else "groupId": recipient, "message": text}
        answer = line.post(f"/v1/messages/send?type={kind}", body, key)
        message = msgspec.convert(answer.data, Message) if answer.status == 200 else None
        event = Sending(
            invoked=answer.invoked,
            answered=answer.answered,
            outcome=answer.outcome,
            code=answer.code,
            sender=sender,
            recipient=recipient,
            text=text,
            private=private,
            key=key,
            answer=message,
        )
        return self._noted(event, answer)

    def send_and_hang_up(self, line: Line, sender: str, recipient: str, text: str) -> None:
        """Send a private message without waiting for the answer: its outcome stays unknown."""
        body = {"senderId": sender, "receiverId": recipient, "message": text}
        answer = line.hang_up("/v1/messages/send?type=private", json.dumps(body).encode())
        event = Sending(
            invoked=answer.invoked,
            answered=answer.answered,
            outcome="unknown",
            sender=sender,
            recipient=recipient,
            text=text,
        )
        self.events.append(event)

    def read(
        self,
        line: Line,
        reader: str,
        chain: str,
        *,
        cursor: str = "",
        time: int | None = None,
        sent: bool = False,
        limit: int | None = None,
        wait: float | None = None,
    ) -> Reading:
        """Poll by cursor, by timestamp (`time` not None) or from the beginning, and record it."""
        answer = line.get(
            f"/v1/messages/{reader}",
            cursor=cursor or None,
            timestamp=time or None,
            sent="include" if sent else None,
            limit=limit,
            wait=wait,
        )
        given = answer.data if answer.status == 200 else {}
        messages = [self._known.setdefault(m, m) for m in msgspec.convert(given.get("messages") or [], list[Message])]
        self._latest = max([self._latest, *(int(message.timestamp) for message in messages[-1:])])
        event = Reading(
            invoked=answer.invoked,
            answered=answer.answered,
            outcome=answer.outcome,
            code=answer.code,
            reader=reader,
            chain=chain,
            cursor=cursor,
            time=time,
            sent=sent,
            messages=messages,
            given=given.get("cursor", ""),
            more=given.get("more", False),
            expired=given.get("expired", False),
        )
        if answer.status == 200 and time is None and not event.given:
            self.wrong.append(f"no cursor in {given}")
        return self._noted(event, answer)

    def change(self, line: Line, operation: Operation, of: str, other: str, key: str) -> Changing:
        """Block, unblock, add or remove, and record it."""
        is_block = operation in ("block", "unblock")
        path = f"/v1/{'users' if is_block else 'groups'}/{of}?op={operation}"
        answer = line.post(path, {"blockedUserId" if is_block else "userId": other}, key)
        event = Changing(
            invoked=answer.invoked,
            answered=answer.answered,
            outcome=answer.outcome,
            code=answer.code,
            operation=operation,
            of=of,
            other=other,
            key=key,
        )
        return self._noted(event, answer)

    def judge(self, kept: Path, tell: Callable[[Verdict], None] = lambda _: None) -> Verdict:
        """The verdict, which `tell` is given; if anything is wrong the history is kept in a file and the test fails."""
        verdict = check(self.events)
        tell(verdict)
        if self.wrong or not verdict:
            write_history(kept, self.events)
            wrong = "\n".join(self.wrong[:10])
            pytest.fail(f"{verdict.report()}\n{wrong}\nthe history is kept in {kept}", pytrace=False)
        return verdict

    def _noted(self, event: Noted, answer: Answer) -> Noted:
        self.events.append(event)
        if answer.status == 500:
            self.wrong.append(f"{answer.data} to {event}"[:500])
        return event
