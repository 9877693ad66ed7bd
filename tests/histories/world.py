"""A small correct messaging server in memory, and overlapping clients of it whose calls make a history."""

import random
from collections import defaultdict
from collections.abc import Callable

from tidings.history import Changing, Event, Fault, Operation, Reading, Sending
from tidings.model import Message, own, room, sent

USERS = ("ann", "bob", "carol", "eve")
ROOMS = ("attic", "kitchen")


class Follower:
    """One chain of reads: by cursor (`mark` is the server's vector) or by timestamp."""

    def __init__(self, name: str, reader: str, by_time: bool, with_sent: bool, from_now: bool) -> None:
        self.name = name
        self.reader = reader
        self.with_sent = with_sent
        self.cursor = "now" if from_now and not by_time else ""
        self.time: int | None = 0 if by_time else None
        self.vector: dict[str, int] | None = None
        self.steps = 0


class World:
    """Each call takes effect at one moment between its invocation and its answer; `history` gives what clients saw."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._now = 1_000
        self._timestamp = 0
        self._free: dict[str, int] = defaultdict(int)  # when each client may call again
        self._mailboxes: dict[str, list[Message]] = defaultdict(list)
        self._stays: dict[tuple[str, str], tuple[int, int]] = {}  # (room, user): number of the stay, head at joining
        self._blocks: set[tuple[str, str]] = set()
        self._keys: dict[str, Message] = {}
        self._retries: dict[str, tuple[str, str, bool, str]] = {}
        self._events: list[Event] = []
        self._count = 0

    def history(self, steps: int) -> list[Event]:
        """So many calls; then every follower reads to the end."""
        rng = self._rng
        followers = [
            Follower(f"{reader}-{n}", reader, by_time=n == 1, with_sent=n == 2, from_now=n == 3)
            for reader in USERS
            for n in range(4)
        ]
        for group in ROOMS:
            for user in USERS[:3]:
                self._change("add", group, user)
        kinds: list[tuple[int, Callable[[], None]]] = [
            (10, self._send),
            (10, lambda: self._read(rng.choice(followers), rng.choice((1, 2, 1000)))),
            (1, lambda: self._change(rng.choice(("add", "remove")), rng.choice(ROOMS), rng.choice(USERS))),
            (1, lambda: self._change(rng.choice(("block", "unblock")), rng.choice(USERS), rng.choice(USERS))),
            (1, lambda: self._events.append(Fault("kill", self._now))),
        ]
        for _ in range(steps):
            weights, calls = zip(*kinds, strict=True)
            rng.choices(calls, weights)[0]()
        for follower in followers:
            self._read(follower, 1000, cut=False)
        rng.shuffle(self._events)
        return self._events

    def _moment(self, client: str) -> tuple[int, int]:
        """Invoked and answered of a call that takes effect now; the calls of one client do not overlap."""
        self._now = max(self._now, self._free[client] + 1) + self._rng.randint(1, 9)
        invoked = max(self._free[client] + 1, self._now - self._rng.randint(0, 60))
        answered = self._now + self._rng.randint(0, 60)
        self._free[client] = answered
        return invoked, answered

    def _send(self) -> None:
        rng = self._rng
        sender = rng.choice(USERS)
        client = f"send-{sender}"
        self._count += 1
        private = rng.random() < 0.6
        fresh = (
            rng.choice(USERS if private else ROOMS),
            f"text {self._count}",
            private,
            rng.choice(("", f"k{self._count}")),
        )
        recipient, text, private, key = self._retries.pop(client, fresh)
        invoked, answered = self._moment(client)
        refusal = "" if key in self._keys else self._refusal(sender, recipient, private)
        cut = rng.random() < 0.15
        message = None
        if not refusal and not (cut and rng.random() < 0.5):
            message = self._keys.get(key) or self._store(sender, recipient, text, private)
            if key:
                self._keys[key] = message
        if cut and key:
            self._retries[client] = (recipient, text, private, key)
        self._events.append(
            Sending(
                invoked=invoked,
                answered=answered,
                outcome="unknown" if cut else "refused" if refusal else "ok",
                code="" if cut else refusal,
                sender=sender,
                recipient=recipient,
                text=text,
                private=private,
                key=key,
                answer=None if cut else message,
            )
        )

    def _refusal(self, sender: str, recipient: str, private: bool) -> str:
        if private:
            return "blocked" if (recipient, sender) in self._blocks else ""
        return "" if (recipient, sender) in self._stays else "not_a_member"

    def _store(self, sender: str, recipient: str, text: str, private: bool) -> Message:
        self._timestamp += self._rng.randint(1, 3)
        box = self._mailboxes[own(recipient) if private else room(recipient)]
        message_id, stamp = f"message-{self._timestamp}", str(self._timestamp)
        message = Message(sender, text, recipient, stamp, message_id, len(box) + 1)
        box.append(message)
        if private and sender != recipient:
            copies = self._mailboxes[sent(sender)]
            copies.append(Message(sender, text, recipient, stamp, message_id, len(copies) + 1, True))
        return message

    def _change(self, operation: Operation, of: str, other: str) -> None:
        invoked, answered = self._moment(f"admin-{self._rng.randint(1, 2)}")
        refusal = self._apply(operation, of, other)
        cut = self._rng.random() < 0.1
        self._events.append(
            Changing(
                invoked=invoked,
                answered=answered,
                outcome="unknown" if cut else "refused" if refusal else "ok",
                code="" if cut else refusal,
                operation=operation,
                of=of,
                other=other,
            )
        )

    def _apply(self, operation: Operation, of: str, other: str) -> str:
        pair = (of, other)
        if operation in ("add", "block"):
            if pair in self._stays or pair in self._blocks:
                return "already_a_member" if operation == "add" else "already_blocked"
            if operation == "add":
                self._stays[pair] = (self._now, len(self._mailboxes[room(of)]))
            else:
                self._blocks.add(pair)
            return ""
        if pair not in self._stays and pair not in self._blocks:
            return "not_so"
        self._stays.pop(pair, None)
        self._blocks.discard(pair)
        return ""

    def _read(self, follower: Follower, limit: int, cut: bool | None = None) -> None:
        invoked, answered = self._moment(follower.name)
        starts = self._starts(follower)
        news: list[tuple[int, str, str, Message]] = []
        for entry, (mailbox, seq) in starts.items():
            for message in self._mailboxes[mailbox]:
                if int(message.timestamp) > follower.time if follower.time is not None else message.seq > seq:
                    news.append((int(message.timestamp), mailbox, entry, message))
        news.sort(key=lambda found: found[:2])
        if follower.cursor == "now":
            news = []
        page = news[:limit]
        was_cut = self._rng.random() < 0.1 if cut is None else cut
        follower.steps += 0 if was_cut else 1
        given = "" if follower.time is not None else f"{follower.name}-{follower.steps}"
        self._events.append(
            Reading(
                invoked=invoked,
                answered=answered,
                outcome="unknown" if was_cut else "ok",
                reader=follower.reader,
                chain=follower.name,
                cursor=follower.cursor,
                time=follower.time,
                sent=follower.with_sent,
                messages=[] if was_cut else [found[3] for found in page],
                given="" if was_cut else given,
                more=len(news) > limit and not was_cut,
            )
        )
        if was_cut:
            return
        vector = {entry: seq for entry, (_, seq) in starts.items()}
        vector.update({entry: message.seq for _, _, entry, message in page})
        follower.vector, follower.cursor = vector, given
        if follower.time is not None:
            follower.time = max((found[0] for found in page), default=follower.time)

    def _starts(self, follower: Follower) -> dict[str, tuple[str, int]]:
        """Where a follower stands, by mailbox or stay: its mailbox and the last seq given."""
        is_now = follower.cursor == "now"
        places = {own(follower.reader): (own(follower.reader), 0)}
        if follower.with_sent:
            places[sent(follower.reader)] = (sent(follower.reader), 0)
        for (group, user), (number, joined) in self._stays.items():
            if user == follower.reader:
                places[f"stay {number}"] = (room(group), 0 if follower.vector is None else joined)
        if is_now:
            return {entry: (mailbox, len(self._mailboxes[mailbox])) for entry, (mailbox, _) in places.items()}
        known = follower.vector or {}
        return {entry: (mailbox, known.get(entry, seq)) for entry, (mailbox, seq) in places.items()}
