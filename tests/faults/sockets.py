"""Clients that send over WebSockets, and that read message by message, by whichever transport comes to hand."""

import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import httpx
import msgspec
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage
from websockets.sync.client import ClientConnection

from tests.faults.calls import NO_EFFECT
from tests.faults.clients import BUSY, Client, Scene
from tests.readers import TRUST, events_of
from tests.sockets import opened
from tidings.history import Outcome, Reading, Sending
from tidings.model import Message

BATCHES = (1, 3, 30)  # sends at once: more than a socket has in flight
LOST = (ConnectionClosed, OSError, EOFError, InvalidHandshake, InvalidMessage, httpx.HTTPError)
ANSWER_S = 30.0
SILENT_S = 2.0


class Intent(NamedTuple):
    """A message that is meant once."""

    recipient: str
    text: str
    private: bool
    key: str


class SocketSender(Client):
    """Sends many at once over a socket, which is cut now and then; each again until its outcome is known."""

    def __init__(
        self,
        scene: Scene,
        name: str,
        seed: str,
        user: str,
        people: Sequence[str],
        rooms: Sequence[str],
        urls: Sequence[str],
    ) -> None:
        super().__init__(scene, name, seed)
        self.acknowledged = 0
        self._user = user
        self._people = people
        self._rooms = rooms
        self._urls = urls
        self._count = 0
        self._pending: dict[str, Intent] = {}
        self._done: list[Intent] = []

    def is_idle(self) -> bool:
        return not self._pending

    def step(self) -> None:
        if not self.scene.target.up.wait(1):
            return
        url, since = self.rng.choice(self._urls), time.monotonic()
        try:
            with opened(url, self._user) as socket:
                for _ in range(self.rng.randint(1, 20)):
                    self._exchange(socket, self._batch())
        except TimeoutError:  # an answer that never comes
            if not self.scene.target.may_hang(url, since):
                raise
        except LOST:
            return

    def _batch(self) -> list[Intent]:
        batch = [*self._pending.values()]
        while len(batch) < self.rng.choice(BATCHES) and not self.scene.over.is_set():
            batch.append(self._intent())
        again = self.rng.random() < 0.2 and self._done
        return [*batch, self.rng.choice(self._done[-50:])] if again else batch

    def _intent(self) -> Intent:
        self._count += 1
        private = self.rng.random() < 0.5
        recipient = self.rng.choice(self._people if private else self._rooms)
        text = f"{self.name} {self._count}"
        return Intent(recipient, text, private, text.replace(" ", "-"))

    def _exchange(self, socket: ClientConnection, batch: Sequence[Intent]) -> None:
        """Send them all, then take the answers; what is not answered when the socket ends has an unknown outcome."""
        asked: dict[str, tuple[Intent, int]] = {}
        try:
            for ref, intent in enumerate(batch):
                self._pending[intent.key] = intent
                asked[str(ref)] = intent, time.monotonic_ns()
                socket.send(_asking(str(ref), intent))
            if self.rng.random() < 0.05:
                socket.close()
            while asked:
                said = json.loads(socket.recv(ANSWER_S))
                if said["type"] in ("sent", "refused"):
                    self._settle(*asked.pop(said["ref"]), said)
        finally:
            for intent, invoked in asked.values():
                self._note(intent, invoked, "unknown")

    def _settle(self, intent: Intent, invoked: int, said: dict[str, Any]) -> None:
        if said["type"] == "sent":
            self._note(intent, invoked, "ok", answer=msgspec.convert(said["message"], Message))
            self._done.append(self._pending.pop(intent.key, intent))
            self.acknowledged += 1
            return
        code, status = said["problem"]["code"], said["problem"]["status"]
        is_sure = status < 500 or code in NO_EFFECT
        self._note(intent, invoked, "refused" if is_sure else "unknown", code)
        if is_sure and code not in BUSY:
            self._pending.pop(intent.key, None)
        if status == 500:
            self.recorder.wrong.append(f"{said}")

    def _note(
        self, intent: Intent, invoked: int, outcome: Outcome, code: str = "", answer: Message | None = None
    ) -> None:
        event = Sending(
            invoked=invoked,
            answered=time.monotonic_ns(),
            outcome=outcome,
            code=code,
            sender=self._user,
            recipient=intent.recipient,
            text=intent.text,
            private=intent.private,
            key=intent.key,
            answer=answer,
        )
        self.recorder.events.append(event)


def _asking(ref: str, intent: Intent) -> str:
    to = "receiverId" if intent.private else "groupId"
    fields = {"type": "send", "ref": ref, to: intent.recipient, "message": intent.text}
    return json.dumps({**fields, "idempotencyKey": intent.key})


class Hopper(Client):
    """Reads some messages by a socket, by events or by polls, leaves, and goes on behind the last cursor by another.

    Each message is noted as it comes, so that one given to who has left its group is known by the time.
    """

    def __init__(self, scene: Scene, name: str, seed: str, user: str, urls: Sequence[str], *, sent: bool) -> None:
        super().__init__(scene, name, seed)
        self.given = 0
        self.ways: set[str] = set()
        self._user = user
        self._urls = urls
        self._sent = sent
        self._copies = {"sent": "include"} if sent else {}
        self._cursor = ""
        self._asked = time.monotonic_ns()

    def step(self) -> None:
        if not self.scene.target.up.wait(1):
            return
        ways = {"poll": self._poll, "sse": self._events, "websocket": self._frames}
        way = self.rng.choice([*ways]) if self._cursor else "poll"
        self.ways.add(way)
        url, since = self.rng.choice(self._urls), time.monotonic()
        try:
            ways[way](url, self.rng.randint(1, 60))
        except (TimeoutError, httpx.TimeoutException):
            if way == "poll" and not self.scene.target.may_hang(url, since):
                raise  # a stream is silent while its process is stopped
        except LOST:
            return

    def read_on(self) -> None:
        """Read to the end; call it when the thread is over and the server is well."""
        self._asked = time.monotonic_ns()
        while self._poll(self.scene.target.url, 1000):
            pass

    def _poll(self, url: str, limit: int) -> bool:
        """Whether there is more."""
        query = {**self._copies, "limit": str(min(limit, self.scene.page)), "wait": "0.5"}
        if self._cursor:
            query["cursor"] = self._cursor
        answer = httpx.get(f"{url}/v1/messages/{self._user}", params=query, timeout=ANSWER_S, verify=TRUST)
        if not self._is_well(answer):
            return True
        said = answer.json()
        messages = msgspec.convert(said["messages"] or [], list[Message])
        self._note(messages, said["cursor"], is_streamed=False, more=said.get("more", False))
        return bool(said.get("more"))

    def _events(self, url: str, most: int) -> None:
        path, last = f"{url}/v1/messages/{self._user}/stream", {"Last-Event-ID": self._cursor}
        with httpx.stream("GET", path, params=self._copies, headers=last, timeout=SILENT_S, verify=TRUST) as answer:
            if not self._is_well(answer):
                return
            for kind, cursor, said in events_of(answer.iter_lines()):
                if kind == "closed":
                    self._expect_return(said)
                    return
                self._note([msgspec.convert(said, Message)] if kind == "message" else [], cursor)
                most -= 1
                if most <= 0 or self.scene.over.is_set():
                    return

    def _frames(self, url: str, most: int) -> None:
        with opened(url, self._user, cursor=self._cursor, **self._copies) as socket:
            try:
                while most > 0 and not self.scene.over.is_set():
                    said = json.loads(socket.recv(SILENT_S))
                    message = said.get("message")
                    self._note([msgspec.convert(message, Message)] if message else [], said["cursor"])
                    most -= 1
            except ConnectionClosed:
                if socket.close_reason:
                    self._expect_return(json.loads(socket.close_reason))

    def _note(self, messages: list[Message], cursor: str, *, is_streamed: bool = True, more: bool = True) -> None:
        now = time.monotonic_ns()
        event = Reading(
            invoked=self._asked,
            answered=now,
            reader=self._user,
            chain=self.name,
            cursor=self._cursor,
            sent=self._sent,
            messages=messages,
            given=cursor,
            more=more,
            streamed=is_streamed,
        )
        self.recorder.events.append(event)
        self.given += len(messages)
        self._cursor, self._asked = cursor, now

    def _is_well(self, answer: httpx.Response) -> bool:
        if answer.status_code not in (200, 429, 503):
            self.recorder.wrong.append(f"{self.name}: {answer.status_code} {answer.read()!r}")
        return answer.status_code == 200

    def _expect_return(self, ending: dict[str, Any]) -> None:
        if not ending["retry"]:
            self.recorder.wrong.append(f"{self.name}: {ending}")
