"""A stream as such, whatever carries it: subscribe, then the backlog, then what comes; each message once, in order.

While a session is live, the tail hands it each batch and it writes at once: no task wakes. Whatever it can't be sure
of (a change of memberships, a gap, news that were lost, a reader that has not taken what was written) makes it go back
to reading from its cursor, as a poll would, and live again from there.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Protocol, Self

import msgspec

from tidings.cursor import Marks
from tidings.errors import TidingsError, Unavailable
from tidings.model import Message, Posted, own, room, sent
from tidings.service import Messages, Node, Question
from tidings.service.messages import NOW
from tidings.service.reading import Page, Reading
from tidings.tail import News

PAGE = 100  # messages of the backlog written at a time; what is behind them waits until the reader took them
TRIES_MAX = 5  # at a store that does not answer, in a row
RECONNECT_S = 2.0  # whom a stopping server told to come back, does so within so long, not all at once


Encode = Callable[[Posted, bool], bytes]


class Event(msgspec.Struct, frozen=True, gc=False):
    """One message: its JSON, shared by all who read it, and the cursor after it, which is this reader's own."""

    encoded: bytes
    cursor: str


class Ending(msgspec.Struct, frozen=True):
    """Why a stream ended: a code as in problem+json; after how many seconds to come back, None for never so."""

    code: str
    detail: str
    retry_s: float | None

    @classmethod
    def by(cls, error: TidingsError) -> "Ending":
        """What a poll would be refused with; those who are sent away together don't come back so."""
        return cls(error.code, str(error), None if error.retry_s is None else _spread(error.retry_s))


class Outlet(Protocol):
    """What carries a stream. Nothing here waits or fails: what can't be written is for nobody."""

    @property
    def is_full(self) -> bool:
        """Whether the reader has not taken what was written; then nothing more is."""

    def write(self, events: Sequence[Event]) -> None:
        """Messages, oldest first."""

    def heartbeat(self, cursor: str) -> None:
        """Nothing new: the cursor so far."""

    def expired(self) -> None:
        """Some messages before those that follow are not kept any more."""


class Session:
    """One reader's stream. `open` first, then `run`; a subscriber of the tail in between.

    It has a place among all that are held until it is let go; as a context manager, at its end.
    """

    __slots__ = (
        *("_boxes", "_cursor", "_digest", "_encode", "_ending", "_first", "_interrupted", "_is_live", "_marks"),
        *("_messages", "_node", "_outlet", "_question"),
    )

    def __init__(self, messages: Messages, node: Node, question: Question, encode: Encode) -> None:
        self._messages = messages
        self._node = node
        self._question = question
        self._encode = encode
        self._cursor = question.cursor or NOW
        self._boxes: tuple[str, ...] = ()
        self._is_live = False
        self._ending: Ending | None = None
        self._interrupted: asyncio.Future[None] | None = None
        self._first: Reading | None = None
        self._outlet: Outlet
        self._marks: Marks
        self._digest = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.let_go()

    def let_go(self) -> None:
        """Leave its place among all, and be handed nothing more, whether it ran or not."""
        self._is_live = False
        self._node.tail.unsubscribe(self, self._boxes)
        self._messages.let_go(self._question.user_id)

    async def open(self) -> None:
        """Check the question, before anything is written. Raises what a poll raises."""
        self._node.check_open()
        async with self._node.in_time():
            if self._cursor == NOW:
                answer = await self._messages.poll(self._question_from(NOW))
                self._cursor = answer.cursor or ""
            self._first = await self._begin()

    async def run(self, outlet: Outlet) -> Ending:
        """Carry on until the stream ends, and say how: `gone` if there is nobody to be told any more."""
        self._outlet = outlet
        try:
            while self._ending is None:
                await self._read_on()
                await self._pause()
            return self._ending
        except TidingsError as error:
            return Ending.by(error)
        finally:
            self._is_live = False

    def end(self, ending: Ending | None = None) -> None:
        """End it: told so, or (None) because nobody is there any more."""
        if self._ending is None:
            self._ending = ending or Ending("gone", "", None)
        self._interrupt()

    def resume(self) -> None:
        """The reader took what was written."""
        if not self._is_live:
            self._interrupt()

    def beat(self) -> None:
        """Show the reader that the stream lives, and how far it is."""
        if self._is_live and not self._outlet.is_full:
            self._cursor = self._marks.mint(self._node.tail.position, self._digest)
            self._outlet.heartbeat(self._cursor)

    def take(self, news: Sequence[News], position: int) -> None:
        """Write what the tail hands over."""
        if not self._is_live or not news:
            return
        if len(news) > PAGE:  # this node stood still for a while; so much is given page by page
            self._fall_back()
            return
        if self._outlet.is_full:
            self._is_live = False  # until it is drained
            return
        marks, events = self._marks, []
        last = len(news) - 1
        for index, (mailbox, seq, posted) in enumerate(news):
            before = marks.seq(mailbox)
            if before is None or seq != before + 1:
                if before is not None and seq <= before:
                    continue
                self._fall_back()
                break
            marks.move(mailbox, seq)
            hint = (position, self._digest) if index == last else (posted.position, 0)
            is_copy = mailbox[0] == "s"
            events.append(Event(self._encode(posted, is_copy), marks.mint(*hint)))
        if events:
            self._cursor = events[-1].cursor
            self._outlet.write(events)

    def altered(self) -> None:
        """Read on with the memberships of now."""
        self._fall_back()

    def lost(self) -> None:
        """Read on from the cursor."""
        self._fall_back()

    def drained(self) -> None:
        """Tell the reader to come back, each at a time of its own."""
        retry_s = RECONNECT_S * secrets.randbelow(1001) / 1000
        self.end(Ending("shutting_down", "This server is stopping.", retry_s))

    def give_up(self) -> None:
        """End it: the reader takes nothing."""
        self.end(Ending("slow_reader", "What was written was not taken in time.", 0.0))

    def _fall_back(self) -> None:
        if self._is_live:
            self._is_live = False
            self._interrupt()

    def _interrupt(self) -> None:
        if self._interrupted is not None and not self._interrupted.done():
            self._interrupted.set_result(None)

    async def _pause(self) -> None:
        """Wait while live, or for the reader."""
        if self._ending is not None or not (self._is_live or self._outlet.is_full):
            return
        self._interrupted = asyncio.get_running_loop().create_future()
        await self._interrupted
        self._interrupted = None

    async def _read_on(self) -> None:
        """Give the backlog, as far as the reader takes it; when nothing is left, be live in the same step."""
        tries = 0
        while self._ending is None and not self._is_live and not self._outlet.is_full:
            try:
                async with self._node.in_time():  # nothing runs between its end and what follows
                    reading, self._first = self._first or await self._begin(), None
                    is_all = await self._give(reading)
                tries = 0
            except Unavailable as error:
                tries += 1
                if tries >= TRIES_MAX:
                    raise
                await asyncio.sleep(_spread(error.retry_s or 0.0))
                continue
            if is_all and reading.is_current:
                self._marks, self._digest, self._is_live = reading.marks(), reading.digest, True
                self._outlet.heartbeat(self._cursor)
            elif not is_all:
                await self._messages.give_way()

    async def _begin(self) -> Reading:
        """A reading from the cursor; from then on the tail hands over what it does not give."""
        reading = await self._messages.begin(self._question_from(self._cursor))
        boxes = reading.mailboxes
        if boxes != self._boxes:
            self._node.tail.unsubscribe(self, set(self._boxes) - set(boxes))
            self._node.tail.subscribe(self, boxes)
            self._boxes = boxes
            self._node.feed.expect_news()
            await self._node.sight()  # else what was committed since the reading began waits for the next look
        if not self._node.tail.is_open:  # looked at only now: who subscribed too late was not told
            self.drained()
        return reading

    async def _give(self, reading: Reading) -> bool:
        """Write one page; whether it was the last."""
        marks = reading.marks()
        page = await reading.next(PAGE)
        if self._ending is not None or self._outlet.is_full:
            return False  # what was read is read again
        if page.expired:
            self._outlet.expired()
        self._cursor = reading.cursor(page.more)
        if page.messages:
            self._outlet.write(self._events(page, marks, reading.until))
        return not page.more

    def _events(self, page: Page, marks: Marks, until: int) -> list[Event]:
        """A page's messages, each with a cursor; only the last one's says that there is nothing else up to `until`."""
        events = []
        for message in page.messages:
            marks.move(self._mailbox(message), message.seq)
            events.append(Event(msgspec.json.encode(message), marks.mint(until, 0)))
        events[-1] = Event(events[-1].encoded, self._cursor)
        return events

    def _mailbox(self, message: Message) -> str:
        user_id = self._question.user_id
        if message.sent:
            return sent(user_id)
        return own(user_id) if message.recipient_id == user_id else room(message.recipient_id)

    def _question_from(self, cursor: str) -> Question:
        return Question(self._question.user_id, cursor=cursor, with_sent=self._question.with_sent, limit=PAGE)


def _spread(seconds: float) -> float:
    return seconds * (1 + secrets.randbelow(501) / 1000)
