"""The tail: recent messages in memory, by mailbox; polls are served from it, and those who wait are woken by it."""

import asyncio
import sys
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from tidings.model import Altered, Batch, Found, Message, Posted, own, sent

# What a message takes beside its text, at the most: by tracemalloc, 100,000 private ones between 200,000 users take 891
# each (in two mailboxes of their own), between 40,000 users 847, in 1,000 groups 676.
_ENTRY_BYTES = 900
_SLOTS = 2_400  # in which the window's time is told: for ten minutes, a quarter of a second each


class _Box(msgspec.Struct, gc=False):
    """The recent part of one mailbox, in the order of seq, without a gap: one message, or several by their seq.

    Neither is looked into by the garbage collector, which would stop the process to walk lists.
    """

    first_seq: int
    end_seq: int  # that comes next
    last_position: int
    news: Posted | dict[int, Posted]
    is_cut: bool = False  # not all that came before it in the tail's time is here

    def at(self, seq: int) -> Posted:
        """The news with a seq that is here."""
        return self.news[seq] if isinstance(self.news, dict) else self.news


News = tuple[str, int, Posted]  # the mailbox, the message's seq there, and the message


class Waiter:
    """Somebody who waits for news of some mailboxes."""

    __slots__ = ("mailboxes", "woken")

    def __init__(self) -> None:
        self.mailboxes: set[str] = set()
        self.woken = asyncio.Event()


class Subscriber(Protocol):
    """Who is handed the news of some mailboxes as it is applied. No method may fail, wait, or call the tail."""

    def take(self, news: Sequence[News], position: int) -> None:
        """News of one batch in its order; with it, everything of these mailboxes up to `position` was handed over."""

    def altered(self) -> None:
        """The directory entry is no longer what it was: nothing that comes after may be taken until it is read."""

    def lost(self) -> None:
        """News may be missing from here on: what is needed must be read."""

    def drained(self) -> None:
        """The server stops."""


class Tail:
    """What was posted in the last `window_s` seconds, at most `max_bytes` of it.

    It holds every message with a position in `complete_since < position <= position`.
    """

    def __init__(self, window_s: float, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s = window_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._boxes: dict[str, _Box] = {}
        self._log: dict[int, Posted] = {}  # in the order applied, numbered; a list would be walked by the collector
        self._first = self._next = 0  # numbers: of the oldest, of the next one
        self._slots: deque[tuple[float, int]] = deque()  # when one began, and the number of its first message
        self._waiters: dict[str, set[Waiter]] = {}
        self._subscribers: dict[str, dict[Subscriber, None]] = {}  # in the order they came
        self._is_open = True
        self.position = 0
        self.complete_since = 0
        self._complete_since_time = sys.maxsize  # every message with a later timestamp is held
        self._is_ordered = True  # by timestamps, as by positions
        self.bytes = 0

    @property
    def messages(self) -> int:
        """How many messages are held."""
        return len(self._log)

    def reset(self, position: int, latest: int | None = None) -> None:
        """Forget everything and begin anew after `position`, where no timestamp was later than `latest`."""
        self._boxes.clear()
        self._log.clear()
        self._slots.clear()
        self._first = self._next
        self.bytes = 0
        self.position = self.complete_since = position
        self._is_ordered = latest is None
        self._complete_since_time = sys.maxsize if latest is None else latest  # unknown until something is evicted
        self._wake(list(self._waiters))
        for subscriber in self.subscribers:
            subscriber.lost()

    def apply(self, batch: Batch) -> None:
        """Take the news of whole commits, then wake those who wait for them."""
        now = self._clock()
        if not self._slots or now > self._slots[-1][0] + self._window_s / _SLOTS:
            self._slots.append((now, self._next))
        log, number, size = self._log, self._next, self.bytes
        for change in batch.changes:
            if isinstance(change, Altered):
                continue
            message, sent_seq = change.message, change.sent_seq
            self._put(change.mailbox, message.seq, change)
            if sent_seq:
                self._put(sent(message.sender_id), sent_seq, change)
            log[number] = change
            number += 1
            size += _size(change)
        self._next, self.bytes = number, size
        self.position = batch.last
        self.evict()
        if self._waiters:
            self._wake(_touched(batch))
        if self._subscribers:
            self._hand_over(batch)

    def evict(self) -> None:
        """Let go of what is over the limits of time and size; called with each batch and now and then."""
        oldest = self._clock() - self._window_s
        end = self._first
        while self._slots and self._slots[0][0] <= oldest:
            self._slots.popleft()
            end = self._slots[0][1] if self._slots else self._next
        if self._log and (self._first < end or self.bytes > self._max_bytes):
            self._let_go(end)

    def has_news(self, mailboxes: Iterable[str], position: int) -> bool | None:
        """Whether one of them has a message after `position`; None if the tail does not reach back so far."""
        if not self.complete_since <= position <= self.position:
            return None
        boxes = self._boxes
        for mailbox in mailboxes:
            box = boxes.get(mailbox)
            if box is not None and box.last_position > position:
                return True
        return False

    def has_told(self, mailbox: str, seq: int, time_ms: int) -> bool:
        """Whether a message was told, by its place and timestamp; or may have been, if the tail has no more of then."""
        box = self._boxes.get(mailbox)
        return (box is not None and seq < box.end_seq) or time_ms <= self._complete_since_time

    def after_seq(self, mailbox: str, seq: int, until: int, limit: int) -> list[Found] | None:
        """At most `limit` messages after a seq, none above position `until`; None if they are not all here."""
        box = self._boxes.get(mailbox)
        if box is None or seq + 1 < box.first_seq:
            return None
        return self._cut(mailbox, box, seq + 1, until, limit)

    def after_time(self, mailbox: str, time_ms: int, until: int, limit: int) -> list[Found] | None:
        """The same, of messages later than `time_ms`."""
        box = self._boxes.get(mailbox)
        if box is None:
            return None
        first = box.first_seq
        start = first + bisect_right(range(first, box.end_seq), time_ms, key=lambda seq: _timestamp(box.at(seq)))
        is_whole = start > first or first == 1 or (time_ms >= self._complete_since_time and not box.is_cut)
        return self._cut(mailbox, box, start, until, limit) if is_whole else None

    def wait_for(self, mailboxes: Iterable[str]) -> Waiter:
        """Begin to wait; `leave` must be called in the end."""
        waiter = Waiter()
        self.wait_for_more(waiter, mailboxes)
        if not self._is_open:
            waiter.woken.set()
        return waiter

    def wait_for_more(self, waiter: Waiter, mailboxes: Iterable[str]) -> None:
        """Wait for news of these mailboxes as well."""
        waiter.mailboxes.update(mailboxes)
        for mailbox in mailboxes:
            self._waiters.setdefault(mailbox, set()).add(waiter)

    def leave(self, waiter: Waiter) -> None:
        """Stop waiting."""
        for mailbox in waiter.mailboxes:
            waiters = self._waiters[mailbox]
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[mailbox]

    def subscribe(self, subscriber: Subscriber, mailboxes: Iterable[str]) -> None:
        """Hand the news of these mailboxes over from the next batch on, until `unsubscribe`."""
        for mailbox in mailboxes:
            self._subscribers.setdefault(mailbox, {})[subscriber] = None

    def unsubscribe(self, subscriber: Subscriber, mailboxes: Iterable[str]) -> None:
        """Hand no more of these over."""
        for mailbox in mailboxes:
            subscribers = self._subscribers.get(mailbox)
            if subscribers is not None:
                subscribers.pop(subscriber, None)
                if not subscribers:
                    del self._subscribers[mailbox]

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiters or self._subscribers)

    @property
    def is_open(self) -> bool:
        """False once nobody may wait any more."""
        return self._is_open

    def drain(self) -> None:
        """Wake all who wait, now and later, because the server stops."""
        self._is_open = False
        self._wake(list(self._waiters))
        for subscriber in self.subscribers:
            subscriber.drained()

    def _put(self, mailbox: str, seq: int, posted: Posted) -> None:
        """Put it behind the others of its mailbox; at a hole they are left to the store, as is what comes too late.

        On many nodes a message may be told before the one before it, and twice.
        """
        box = self._boxes.get(mailbox)
        if box is None:
            self._boxes[mailbox] = _Box(seq, seq + 1, posted.position, posted)
            return
        if seq != box.end_seq:
            self._put_apart(mailbox, seq, posted, box)
            return
        news = box.news
        if isinstance(news, dict):
            news[seq] = posted
        else:
            box.news = {box.first_seq: news, seq: posted}
        box.end_seq = seq + 1
        box.last_position = posted.position

    def _put_apart(self, mailbox: str, seq: int, posted: Posted, box: _Box) -> None:
        if seq > box.end_seq:
            self._boxes[mailbox] = _Box(seq, seq + 1, posted.position, posted, is_cut=True)
        elif seq < box.first_seq:
            box.last_position = posted.position  # it is news all the same
            box.is_cut = True

    def _let_go(self, end: int) -> None:
        """Let go of the oldest, up to number `end`, and until there is room; there must be one."""
        log, first, size = self._log, self._first, self.bytes
        while log and (first < end or size > self._max_bytes):
            posted = log.pop(first)
            first += 1
            message, sent_seq = posted.message, posted.sent_seq
            size -= _size(posted)
            if not self._is_ordered:
                self._complete_since_time = max(self._complete_since_time, _timestamp(posted))
            self._drop(posted.mailbox, message.seq)
            if sent_seq:
                self._drop(sent(message.sender_id), sent_seq)
        self._first, self.bytes = first, size
        self.complete_since = posted.position
        if self._is_ordered:
            self._complete_since_time = _timestamp(posted)

    def _drop(self, mailbox: str, seq: int) -> None:
        """Let go of the oldest of a mailbox, if that is the one with this seq."""
        box = self._boxes.get(mailbox)
        if box is None or box.first_seq != seq:
            return
        box.first_seq = seq + 1
        if box.end_seq == box.first_seq:
            del self._boxes[mailbox]
        elif isinstance(box.news, dict):
            del box.news[seq]

    def _cut(self, mailbox: str, box: _Box, start: int, until: int, limit: int) -> list[Found]:
        end = min(box.end_seq, start + limit)
        if box.last_position > until:
            end = start + bisect_right(range(start, end), until, key=lambda seq: box.at(seq).position)
        wanted = [box.at(seq) for seq in range(start, end)]
        if mailbox[0] == "s":
            return [Found(_timestamp(news), mailbox, copy_of(news)) for news in wanted]
        return [Found(_timestamp(news), mailbox, news.message) for news in wanted]

    @property
    def subscribers(self) -> Sequence[Subscriber]:
        """Who is handed news."""
        return list({subscriber: None for some in self._subscribers.values() for subscriber in some})

    def _hand_over(self, batch: Batch) -> None:
        """Each subscriber's news in one piece; but what stands before a change of their entry comes before that."""
        subscribers = self._subscribers
        news: dict[Subscriber, list[News]] = {}
        for change in batch.changes:
            if isinstance(change, Altered):
                for subscriber in list(subscribers.get(own(change.user_id), ())):
                    subscriber.take(news.pop(subscriber, ()), change.position - 1)
                    subscriber.altered()
                continue
            for subscriber in subscribers.get(change.mailbox, ()):
                news.setdefault(subscriber, []).append((change.mailbox, change.message.seq, change))
            if change.sent_seq:
                copies = sent(change.message.sender_id)
                for subscriber in subscribers.get(copies, ()):
                    news.setdefault(subscriber, []).append((copies, change.sent_seq, change))
        for subscriber, its_own in news.items():
            subscriber.take(its_own, batch.last)

    def _wake(self, mailboxes: Iterable[str]) -> None:
        for mailbox in mailboxes:
            for waiter in self._waiters.get(mailbox, ()):
                waiter.woken.set()


def _touched(batch: Batch) -> Iterable[str]:
    """The mailboxes that a batch has something for."""
    for change in batch.changes:
        if isinstance(change, Altered):
            yield own(change.user_id)
            continue
        yield change.mailbox
        if change.sent_seq:
            yield sent(change.message.sender_id)


def _timestamp(news: Posted) -> int:
    return int(news.message.timestamp)


def _size(news: Posted) -> int:
    return _ENTRY_BYTES + sys.getsizeof(news.message.message)


def copy_of(news: Posted) -> Message:
    """The sender's copy: its seq is its place among the copies."""
    m = news.message
    return Message(m.sender_id, m.message, m.recipient_id, m.timestamp, m.message_id, news.sent_seq, True)
