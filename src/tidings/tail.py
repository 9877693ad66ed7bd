"""The tail: recent messages in memory, by mailbox; polls are served from it, and those who wait are woken by it."""

import asyncio
import sys
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable

from tidings.model import Altered, Batch, Found, Message, Posted, own, sent

_ENTRY_BYTES = 900  # what a message takes beside its text: 742 by tracemalloc (100,000 in 40,000 mailboxes), and air


class _Box:
    """The recent part of one mailbox: news in the order of seq, without a gap; `start` skips what was evicted."""

    __slots__ = ("first_seq", "news", "start")

    def __init__(self, first_seq: int) -> None:
        self.first_seq = first_seq
        self.news: list[Posted] = []
        self.start = 0

    def drop_first(self) -> bool:
        """Evict the oldest; true if nothing is left."""
        self.start += 1
        self.first_seq += 1
        if self.start * 2 > len(self.news):
            del self.news[: self.start]
            self.start = 0
        return not self.news


class Waiter:
    """Somebody who waits for news of some mailboxes."""

    __slots__ = ("mailboxes", "woken")

    def __init__(self) -> None:
        self.mailboxes: set[str] = set()
        self.woken = asyncio.Event()


class Tail:
    """What was posted in the last `window_s` seconds, at most `max_bytes` of it.

    It holds every message with a position in `complete_since < position <= position`.
    """

    def __init__(self, window_s: float, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s = window_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._boxes: dict[str, _Box] = {}
        self._order: deque[tuple[float, int, Posted]] = deque()  # when applied, size, what
        self._waiters: dict[str, set[Waiter]] = {}
        self._is_open = True
        self.position = 0
        self.complete_since = 0
        self._complete_since_time = 0  # every message with a later timestamp is held
        self.bytes = 0

    @property
    def messages(self) -> int:
        """How many messages are held."""
        return len(self._order)

    def reset(self, position: int) -> None:
        """Forget everything and begin anew after `position`."""
        self._boxes.clear()
        self._order.clear()
        self.bytes = 0
        self.position = self.complete_since = position
        self._complete_since_time = sys.maxsize  # unknown until something is evicted
        self._wake(list(self._waiters))

    def apply(self, batch: Batch) -> None:
        """Take the news of whole commits, then wake those who wait for them."""
        now = self._clock()
        woken: set[str] = set()
        for change in batch.changes:
            if isinstance(change, Altered):
                woken.add(own(change.user_id))
                continue
            message = change.message
            size = _ENTRY_BYTES + sys.getsizeof(message.message)
            self._put(change.mailbox, message.seq, change)
            woken.add(change.mailbox)
            if change.sent_seq:
                self._put(sent(message.sender_id), change.sent_seq, change)
                woken.add(sent(message.sender_id))
            self._order.append((now, size, change))
            self.bytes += size
        self.position = batch.last
        self.evict()
        self._wake(woken)

    def evict(self) -> None:
        """Let go of what is over the limits of time and size; called with each batch and now and then."""
        oldest = self._clock() - self._window_s
        while self._order and (self.bytes > self._max_bytes or self._order[0][0] <= oldest):
            _, size, posted = self._order.popleft()
            self.bytes -= size
            self._drop(posted.mailbox, posted)
            if posted.sent_seq:
                self._drop(sent(posted.message.sender_id), posted)
            self.complete_since = posted.position
            self._complete_since_time = int(posted.message.timestamp)

    def has_news(self, mailboxes: Iterable[str], position: int) -> bool | None:
        """Whether one of them has a message after `position`; None if the tail does not reach back so far."""
        if not self.complete_since <= position <= self.position:
            return None
        boxes = self._boxes
        for mailbox in mailboxes:
            box = boxes.get(mailbox)
            if box is not None and box.news[-1].position > position:
                return True
        return False

    def after_seq(self, mailbox: str, seq: int, until: int, limit: int) -> list[Found] | None:
        """At most `limit` messages after a seq, none above position `until`; None if they are not all here."""
        box = self._boxes.get(mailbox)
        if box is None or seq + 1 < box.first_seq:
            return None
        return self._cut(mailbox, box, box.start + seq + 1 - box.first_seq, until, limit)

    def after_time(self, mailbox: str, time_ms: int, until: int, limit: int) -> list[Found] | None:
        """The same, of messages later than `time_ms`."""
        box = self._boxes.get(mailbox)
        if box is None:
            return None
        index = bisect_right(box.news, time_ms, box.start, key=_timestamp)
        is_whole = index > box.start or box.first_seq == 1 or time_ms >= self._complete_since_time
        return self._cut(mailbox, box, index, until, limit) if is_whole else None

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

    @property
    def is_open(self) -> bool:
        """False once nobody may wait any more."""
        return self._is_open

    def drain(self) -> None:
        """Wake all who wait, now and later, because the server stops."""
        self._is_open = False
        self._wake(list(self._waiters))

    def _put(self, mailbox: str, seq: int, posted: Posted) -> None:
        box = self._boxes.get(mailbox)
        if box is None or seq != box.first_seq + len(box.news) - box.start:
            box = self._boxes[mailbox] = _Box(seq)  # at a hole what was before is left to the store
        box.news.append(posted)

    def _drop(self, mailbox: str, posted: Posted) -> None:
        box = self._boxes.get(mailbox)
        if box is not None and box.news[box.start] is posted and box.drop_first():
            del self._boxes[mailbox]

    def _cut(self, mailbox: str, box: _Box, index: int, until: int, limit: int) -> list[Found]:
        end = bisect_right(box.news, until, index, key=_position)
        wanted = box.news[index : min(end, index + limit)]
        if mailbox[0] == "s":
            return [Found(int(news.message.timestamp), mailbox, _copy(news)) for news in wanted]
        return [Found(int(news.message.timestamp), mailbox, news.message) for news in wanted]

    def _wake(self, mailboxes: Iterable[str]) -> None:
        for mailbox in mailboxes:
            for waiter in self._waiters.get(mailbox, ()):
                waiter.woken.set()


def _timestamp(news: Posted) -> int:
    return int(news.message.timestamp)


def _position(news: Posted) -> int:
    return news.position


def _copy(news: Posted) -> Message:
    """The sender's copy: its seq is its place among the copies."""
    m = news.message
    return Message(m.sender_id, m.message, m.recipient_id, m.timestamp, m.message_id, news.sent_seq, True)
