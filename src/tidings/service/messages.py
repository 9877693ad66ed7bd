"""Messages: sending, and asking for news."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import msgspec

from tidings import cursor as cursors
from tidings.cursor import Hint, Vector
from tidings.errors import TooMany, Unavailable
from tidings.model import Draft, Key, Message, Start, Written, mint, own, room, sent
from tidings.service.node import Node
from tidings.service.reading import Page, Reading, is_all_given, moment_of, read_vector

Settle = Callable[[Message | None, Exception | None], None]

NOW = "now"  # the cursor that asks for a cursor
LOOK_AGAIN_S = 1.0  # at the store, while the feed is away and nobody is woken


class Question(msgspec.Struct, frozen=True):
    """Any tidings for me since ...? At most one of `cursor` and `timestamp` (Unix ms) is given; `wait_s` seconds."""

    user_id: str
    cursor: str | None = None
    timestamp: int | None = None
    limit: int = 1_000
    with_sent: bool = False
    wait_s: float = 0.0


class Answer(msgspec.Struct, frozen=True):
    """One page; by timestamp, and before the last of several pages, `cursor` is None."""

    messages: Sequence[Message]
    cursor: str | None
    more: bool = False
    expired: bool = False


class Messages:
    """What can be done with messages."""

    def __init__(self, node: Node, count_hot: Callable[[str], None], count_cold: Callable[[str], None]) -> None:
        self._node = node
        self._count_hot = count_hot
        self._count_cold = count_cold
        self._waits: Counter[str] = Counter()
        self._telling: set[asyncio.Task[None]] = set()
        self._way = asyncio.Lock()
        self.waits = 0  # long-polls held

    async def send(self, sender_id: str, recipient_id: str, text: str, is_group: bool, key: Key | None) -> Message:
        """Append a message; when this returns it is durable, and every later read sees it.

        Raises Unknown, Refused, KeyReused, TooMany, Unavailable.
        """
        draft = Draft(sender_id, recipient_id, text, mint("message"), is_group)
        return await self._node.told(await self._node.store.send(draft, key))

    def submit(
        self, sender_id: str, recipient_id: str, text: str, is_group: bool, key: Key | None, settle: Settle
    ) -> None:
        """`send` without waiting: `settle` is told later what it gives or would raise. Raises TooMany, Unavailable."""
        draft = Draft(sender_id, recipient_id, text, mint("message"), is_group)
        self._node.store.submit(draft, key, partial(self._stored, settle))

    def _stored(self, settle: Settle, written: Written[Message] | None, error: Exception | None) -> None:
        if written is None:
            settle(None, error)
        elif self._node.tell(written):
            settle(written.value, None)
        else:
            telling = asyncio.create_task(self._tell(settle, written))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)

    async def _tell(self, settle: Settle, written: Written[Message]) -> None:
        try:
            message = await self._node.told(written)
        except Exception as error:
            settle(None, error)
        else:
            settle(message, None)

    def find_none_after(self, user_id: str, cursor: bytes, with_sent: bool) -> bytes | None:
        """The whole body of an answer without news, if memory alone can tell that there is none; else None.

        Raises Malformed for a cursor that is not this user's.
        """
        node = self._node
        entry = node.directory.find(user_id)
        if entry is None or not node.feed.is_fresh():
            return None
        hint = cursors.read(user_id, cursor)
        digest = entry.digest_with_sent if with_sent else entry.digest
        mailboxes = entry.mailboxes_with_sent if with_sent else entry.mailboxes
        is_hinted = (
            hint.digest == digest and hint.run == node.feed.identity and hint.generation == node.store.generation
        )
        has_news = node.tail.has_news(mailboxes, hint.position) if is_hinted else None
        if has_news or (has_news is None and not is_all_given(node, hint, entry, with_sent)):
            return None
        if not is_hinted or hint.position != node.tail.position:  # the same vector behind a hint of now: it stays hot
            hint = Hint(node.store.generation, node.feed.identity, node.tail.position, digest, hint.raw)
            cursor = cursors.mint(user_id, hint).encode()
        return b'{"messages":null,"cursor":"%b"}' % cursor

    def find_none_later(self, user_id: str, timestamp: int, with_sent: bool) -> bytes | None:
        """The same for a question by timestamp."""
        node = self._node
        entry = node.directory.find(user_id)
        if entry is None or not node.feed.is_fresh():
            return None
        find_head = node.directory.find_head
        for mailbox in entry.mailboxes_with_sent if with_sent else entry.mailboxes:
            head = find_head(mailbox)
            if head is None or head.timestamp > timestamp:
                return None
        return b'{"messages":null}'

    async def poll(self, question: Question) -> Answer:
        """One page, waiting for it if the question says so. Raises Unknown, Malformed, AnotherHistory, Unavailable."""
        if question.cursor == NOW:
            return await self._now(question)
        reading, page = await self._found(question)
        return _answer(question, reading, page, may_go_on=True)

    async def pages(self, question: Question) -> AsyncIterator[Answer]:
        """Everything up to the moment of the call, in pages of at most `limit`, each with membership looked up anew.

        Waits for the first one if the question says so. Only the last page has a cursor (none by timestamp).
        """
        if question.cursor == NOW:
            yield await self._now(question)
            return
        reading, page = await self._found(question)
        yield _answer(question, reading, page, may_go_on=not page.more)
        while page.more:
            await self.give_way()
            async with self._node.in_time():
                await reading.follow()
                page = await reading.next(question.limit)
            yield _answer(question, reading, page, may_go_on=not page.more)

    async def give_way(self) -> None:
        """Wait between two pages: of all long readings, one goes on in each turn of the event loop.

        Else those whose pages are all in memory would keep everybody from being answered.
        """
        async with self._way:
            await asyncio.sleep(0)

    async def _found(self, question: Question) -> tuple[Reading, Page]:
        """A reading and its first page, which is waited for if it has no news and the question says so."""
        loop = asyncio.get_running_loop()
        until = loop.time() + question.wait_s
        async with self._node.in_time():
            found = await self._look(question)
        if found[1].messages or loop.time() >= until:
            return found
        with self.holding(question.user_id):
            return await self._wait(question, until)

    async def _look(self, question: Question) -> tuple[Reading, Page]:
        """The first page, by which the poll is counted."""
        reading = await self.begin(question)
        page = await reading.next(question.limit)
        if page.why_cold:
            self._count_cold(page.why_cold)
        else:
            self._count_hot("tail" if page.messages else "no_news")
        return reading, page

    async def begin(self, question: Question) -> Reading:
        """Where to read from. Raises Unknown, Malformed, AnotherHistory, Unavailable.

        The position is taken before anything else is looked at, so nothing can fall between.
        """
        node, user_id = self._node, question.user_id
        sight = await node.sight()
        moment, settled = moment_of(node), node.feed.settled  # nothing runs in between
        was_held = sight.find(user_id) is not None
        entry = await sight.entry(user_id)
        if question.cursor is not None:
            hint = cursors.read(user_id, question.cursor.encode())
            reading = await read_vector(node, sight, hint, entry, question.with_sent, moment)
        else:
            mailboxes = entry.mailboxes_with_sent if question.with_sent else entry.mailboxes
            starts = {mailbox: Start(mailbox, 0, question.timestamp) for mailbox in mailboxes}
            reading = Reading(node, sight, entry, starts, moment, with_sent=question.with_sent, settled=settled)
        reading.why_cold = "" if was_held else "user"
        return reading

    async def _now(self, question: Question) -> Answer:
        """A cursor after everything there is; it has no hint, since the heads may be newer than what was applied."""
        node, user_id = self._node, question.user_id
        async with node.in_time():
            sight = await node.sight()
            entry = await sight.entry(user_id)
            mailboxes = entry.mailboxes_with_sent if question.with_sent else entry.mailboxes
            heads = await sight.heads(mailboxes)
            position = await node.store.position()
        vector = Vector(
            heads[own(user_id)].seq,
            heads[sent(user_id)].seq if question.with_sent else None,
            {m.key: heads[room(m.group_id)].seq for m in entry.profile.memberships},
        )
        hint = Hint(node.store.generation, node.feed.identity, position, 0, cursors.pack_vector(vector))
        return Answer((), cursors.mint(user_id, hint))

    async def _wait(self, question: Question, until: float) -> tuple[Reading, Page]:
        """Subscribe, then look, then wait: news between look and wait is not slept through.

        Each look has a time of its own, since waiting is what was asked for; the last begins when the wait is over.
        """
        node, user_id = self._node, question.user_id
        loop = asyncio.get_running_loop()
        while True:
            waiter = node.tail.wait_for((own(user_id),))  # from here on a change of memberships wakes as well
            node.feed.expect_news()
            try:
                async with node.in_time():
                    entry = await node.directory.entry(user_id)
                    mailboxes = entry.mailboxes_with_sent if question.with_sent else entry.mailboxes
                    node.tail.wait_for_more(waiter, mailboxes)
                    found = await self._look(question)
                if found[1].messages or loop.time() >= until or not node.tail.is_open:
                    return found
                is_fresh = node.feed.is_fresh()  # if not, what others wrote may be in the store alone
                try:
                    async with asyncio.timeout_at(until if is_fresh else min(until, loop.time() + LOOK_AGAIN_S)):
                        await waiter.woken.wait()
                except TimeoutError:
                    continue
            finally:
                node.tail.leave(waiter)

    @contextmanager
    def holding(self, user_id: str) -> Iterator[None]:
        """Count a long-poll as held. Raises TooMany, Unavailable."""
        self.hold(user_id)
        try:
            yield
        finally:
            self.let_go(user_id)

    def hold(self, user_id: str) -> None:
        """Count a long-poll or a stream as held, until it is let go. Raises TooMany, Unavailable."""
        settings = self._node.settings
        if self._waits[user_id] >= settings.waits_per_user_max:
            raise TooMany("too_many_waits", "This user holds too many long-polls and streams.", retry_s=1)
        if self.waits >= settings.waits_max:
            raise Unavailable("overloaded", "This server holds too many long-polls and streams.", retry_s=5)
        self.waits += 1
        self._waits[user_id] += 1

    def let_go(self, user_id: str) -> None:
        """It is over."""
        self.waits -= 1
        self._waits[user_id] -= 1
        if not self._waits[user_id]:
            del self._waits[user_id]


def _answer(question: Question, reading: Reading, page: Page, *, may_go_on: bool) -> Answer:
    """A page as it is given: with the cursor behind it, if whoever asked goes on from there by cursor."""
    cursor = reading.cursor(page.more) if may_go_on and question.timestamp is None else None
    return Answer(page.messages, cursor, page.more, page.expired)
