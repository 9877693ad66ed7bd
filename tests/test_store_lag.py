"""Whatever the index of mailboxes lacks, every read gives the same, and no number is left out or given twice."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import apsw
import msgspec
import pytest

from tests.backends import LoggedPlace, SqlitePlace, gather_group, private, sign_up, to_group
from tidings.errors import StoreUnavailable
from tidings.model import NO_HEAD, Change, Found, Head, Message, Posted, Start, Written, own, room, sent
from tidings.store import LoggedStore
from tidings.store.sqlite import foreign, sends
from tidings.store.sqlite.transaction import Transaction

pytest_plugins = "tests.opened"
pytestmark = [pytest.mark.anyio, pytest.mark.logged]


class Log:
    """The reference: each mailbox as a plain list of (position, what a read must give)."""

    def __init__(self) -> None:
        self.mailboxes: dict[str, list[tuple[int, Found]]] = defaultdict(list)
        self.gone: dict[str, Head] = {}

    def take(self, changes: Sequence[Change]) -> None:
        """Add a commit's messages, which must have the next seq of each mailbox."""
        for change in changes:
            if isinstance(change, Posted):
                message = change.message
                self._add(change.position, change.mailbox, message.seq, is_sent=False, message=message)
                if change.sent_seq:
                    mailbox = sent(message.sender_id)
                    self._add(change.position, mailbox, change.sent_seq, is_sent=True, message=message)

    def _add(self, position: int, mailbox: str, seq: int, *, is_sent: bool, message: Message) -> None:
        assert seq == self.head(mailbox).seq + 1
        shown = msgspec.structs.replace(message, seq=seq, sent=is_sent)
        self.mailboxes[mailbox].append((position, Found(int(shown.timestamp), mailbox, shown)))

    def drop(self, mailbox: str, seq: int) -> None:
        """What retention does."""
        items = self.mailboxes[mailbox]
        last = next(found for _, found in items if found.message.seq == seq)
        self.mailboxes[mailbox] = [item for item in items if item[1].message.seq > seq]
        self.gone[mailbox] = Head(seq, last.timestamp, seq, last.timestamp)

    def head(self, mailbox: str) -> Head:
        gone = self.gone.get(mailbox, NO_HEAD)
        if not self.mailboxes[mailbox]:
            return gone
        _, last = self.mailboxes[mailbox][-1]
        return Head(last.message.seq, last.timestamp, gone.gone, gone.gone_timestamp)

    def read(self, starts: list[Start], limit: int, until: int) -> list[Found]:
        found = [
            item
            for start in starts
            for position, item in self.mailboxes[start.mailbox]
            if position <= until
            and (item.message.seq > start.seq if start.time is None else item.timestamp > start.time)
        ]
        return sorted(found, key=lambda item: (item.timestamp, item.mailbox))[:limit]

    def read_before(self, mailbox: str, before: int, limit: int, until: int) -> list[Found]:
        items = self.mailboxes[mailbox]
        return [item for position, item in items if item.message.seq < before and position <= until][-limit:]


def fail_now_and_then(monkeypatch: pytest.MonkeyPatch, chance: random.Random) -> list[str]:
    """Let commits fail like a disk, before or after the last that they write: what was done in them is undone.

    Gives a list that each failure is added to.
    """
    end, failures = Transaction.end, list[str]()

    def failing(tx: Transaction, lag_max: int) -> None:
        when = chance.choices(("before", "after", ""), (1, 1, 8))[0]
        if when == "after":
            end(tx, lag_max)
        if when:
            failures.append(when)
            raise apsw.FullError("planted")
        end(tx, lag_max)

    monkeypatch.setattr(Transaction, "end", failing)
    return failures


async def until_it_succeeds(write: Callable[[], Awaitable[object]]) -> None:
    """Try again while the disk fails."""
    while True:
        with suppress(StoreUnavailable):
            await write()
            return


class Life:
    """Two processes of one server, at first with nothing written, and all that they were told."""

    def __init__(self, place: LoggedPlace, chance: random.Random, lag_max: int) -> None:
        self.place = place
        self.chance = chance
        self.lag_max = lag_max
        self.log = Log()

    async def begin(self) -> None:
        self.stores = await self.open(self.lag_max)
        self.cast = [await sign_up(self.stores[0], name) for name in ("ann", "bob", "carol", "eve")]
        self.groups = [await gather_group(self.stores[0], *self.cast) for _ in range(2)]
        self.mailboxes = [*map(own, self.cast), *map(sent, self.cast), *map(room, self.groups)]

    async def open(self, lag_max: int) -> list[LoggedStore]:
        server = await self.place.serve(index_lag_max=lag_max)
        return [server, await self.place.join(server, index_lag_max=lag_max)]

    async def send(self) -> None:
        """Some messages at once, by both processes; of commits that fail, there is nothing."""
        chance = self.chance
        drafts = [
            to_group(sender, chance.choice(self.groups)) if chance.random() < 0.4 else private(sender, receiver)
            for sender, receiver in (chance.choices(self.cast, k=2) for _ in range(chance.randint(1, 9)))
        ]
        asked = [chance.choice(self.stores).send(draft) for draft in drafts]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        batches = {outcome.batch.last: outcome.batch for outcome in outcomes if isinstance(outcome, Written)}
        assert all(isinstance(outcome, Written | StoreUnavailable) for outcome in outcomes), outcomes
        for _, batch in sorted(batches.items()):
            self.log.take(batch.changes)

    async def alter(self) -> None:
        """Positions without a message; who joins, joins at the group's head."""
        store, group = self.chance.choice(self.stores), self.chance.choice(self.groups)
        for change in (store.remove_member, store.add_member):
            await until_it_succeeds(partial(change, group, self.cast[0]))
        profile = await store.find_profile(self.cast[0])
        assert profile is not None
        (stay,) = [stay for stay in profile.memberships if stay.group_id == group]
        assert stay.joined_seq == self.log.head(room(group)).seq

    async def drop(self) -> None:
        """The first messages of a group are kept no more: some, or all."""
        mailbox = room(self.chance.choice(self.groups))
        if self.log.mailboxes[mailbox]:
            seq = self.chance.choice(self.log.mailboxes[mailbox])[1].message.seq
            self.place.drop_messages(mailbox, seq)
            self.log.drop(mailbox, seq)

    async def reopen(self) -> None:
        """The server ends and starts again, with as much lag or another."""
        for store in reversed(self.stores):
            await self.place.leave(store)
        self.stores = await self.open(self.chance.choice((self.lag_max, self.lag_max, 0, 5)))

    async def look(self) -> None:
        """Every kind of read, from around every edge."""
        chance, store, log = self.chance, self.chance.choice(self.stores), self.log
        assert await store.heads(self.mailboxes) == [log.head(mailbox) for mailbox in self.mailboxes]
        last = await store.position()
        for _ in range(12):
            until, limit = chance.choice((last, last + 9, max(0, last - chance.randint(0, 9)))), chance.randint(1, 12)
            starts = [self.start(mailbox) for mailbox in chance.sample(self.mailboxes, chance.choice((1, 2, 10)))]
            assert await store.read(starts, limit, until) == log.read(starts, limit, until)
            mailbox = starts[0].mailbox
            before = log.head(mailbox).seq + 2 - chance.randint(0, 9)
            assert await store.read_before(mailbox, before, limit, until) == log.read_before(
                mailbox, before, limit, until
            )

    def start(self, mailbox: str) -> Start:
        head = self.log.head(mailbox)
        if self.chance.random() < 0.5:
            return Start(mailbox, max(head.gone, head.seq + 1 - self.chance.randint(0, 9)))
        times = [found.timestamp for _, found in self.log.mailboxes[mailbox]] or [1]
        return Start(mailbox, time=self.chance.choice(times[-9:]) + self.chance.randint(-1, 1))


@pytest.mark.parametrize("known_max", [3, 50_000])
@pytest.mark.parametrize("lag_max", [0, 1, 3, 7, 500])
async def test_reads_and_numbers_are_the_same_whatever_the_index_lacks(
    place: LoggedPlace, monkeypatch: pytest.MonkeyPatch, lag_max: int, known_max: int
) -> None:
    """Two processes write, fail, trim, end and start again in any order: each read is what the log says, and each
    message has the next number of its mailbox, whether the index has it, and what the writer remembers."""
    monkeypatch.setattr(sends, "_KNOWN_MAX", known_max)
    monkeypatch.setattr(foreign, "MOST", known_max)  # what another process did is not learned change by change then
    life = Life(place, random.Random(lag_max * 2 + known_max), lag_max)
    await life.begin()
    failures = fail_now_and_then(monkeypatch, life.chance)
    for _ in range(60):
        await life.chance.choices((life.send, life.alter, life.drop, life.reopen), (70, 10, 10, 10))[0]()
        await life.look()
    assert {*failures} == {"before", "after"}
    assert sum(len(items) for items in life.log.mailboxes.values()) > 50


async def test_a_place_that_is_taken_refuses_writes_and_loses_none(place: LoggedPlace) -> None:
    """Somebody put a row into the index by hand: writes are refused once it is in the way, what was answered is read,
    and with the row gone all goes on without a hole."""
    store = await place.serve(index_lag_max=3)
    worker = await place.join(store, index_lag_max=3)
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    await store.send(private(ann, bob))
    await worker.send(private(ann, bob))  # the fourth position: from here on all have places
    assert isinstance(place, SqlitePlace)
    db = place.open_file()
    db.execute("INSERT INTO places VALUES (?, 4, 1000)", (own(bob),))
    answered = [1, 2]
    for n in range(12):
        with suppress(StoreUnavailable):
            answered.append((await (store, worker)[n % 2].send(private(ann, bob))).value.seq)
    assert answered == [1, 2, 3, 4, 5]
    for node in (store, worker):
        assert [found.message.seq for found in await node.read([Start(sent(ann))], 20)] == answered
    db.execute("DELETE FROM places WHERE position = 1000")
    db.close()
    for node in (worker, store):
        answered.append((await node.send(private(ann, bob))).value.seq)
    assert answered == [1, 2, 3, 4, 5, 6, 7]
    for node in (store, worker):
        assert [found.message.seq for found in await node.read([Start(own(bob))], 20)] == answered
