"""The contract of a store, continued: the log. Order, group commit, heads, reading, and the news of it."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.backends import LoggedPlace, gather_group, private, sign_up, to_group
from tidings.errors import Forgotten
from tidings.model import NO_HEAD, Change, Found, Head, Message, Posted, Start, Written, own, room, sent
from tidings.store import LoggedStore, Store

pytest_plugins = "tests.opened"
pytestmark = pytest.mark.anyio


async def all_news(store: LoggedStore) -> list[Posted]:
    """Every message ever posted, in order, as the store's news tells them."""
    return [change for change in (await store.changes(0, 1_000_000)).changes if isinstance(change, Posted)]


Truth = dict[str, list[tuple[int, Found]]]


def logs(written: Sequence[Written[Message]]) -> Truth:
    """The plain truth that reads are held against: each mailbox as (position, message), from what was told."""
    found: Truth = defaultdict(list)
    told = {news.message.message_id: news for one in written for news in one.batch.changes if isinstance(news, Posted)}
    for news in told.values():
        m = news.message
        found[news.mailbox].append((news.position, Found(int(m.timestamp), news.mailbox, m)))
        if news.sent_seq:
            mailbox = sent(m.sender_id)
            copy = Message(m.sender_id, m.message, m.recipient_id, m.timestamp, m.message_id, news.sent_seq, True)
            found[mailbox].append((news.position, Found(int(m.timestamp), mailbox, copy)))
    for box in found.values():
        box.sort(key=lambda one: one[1].message.seq)
    return found


class Log(NamedTuple):
    """A filled store's mailboxes, one of them empty, and what is in them."""

    mailboxes: list[str]
    truth: Truth


async def fill(store: Store, sends: int) -> Log:
    """A log with commits of several messages: three users and a group, all writing at once."""
    users = [await sign_up(store, name) for name in ("ann", "bob", "carol")]
    group = await gather_group(store, *users)
    drafts = []
    for n in range(sends):
        sender, receiver = users[n % 3], users[n * 7 // 5 % 3]
        drafts.append(to_group(sender, group, str(n)) if n % 4 == 3 else private(sender, receiver, str(n)))
    written = await asyncio.gather(*(store.send(draft) for draft in drafts))
    return Log([*map(own, users), *map(sent, users), room(group), own("user-nobody")], logs(written))


person = st.integers(0, 2)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(person, person | st.none()), min_size=1, max_size=40))
async def test_whatever_is_sent_at_once_makes_gap_free_logs(store: Store, sends: list[tuple[int, int | None]]) -> None:
    """Sends that meet in commits: mailboxes and senders' copies go 1, 2, 3 ... with later and later timestamps."""
    users = [await sign_up(store, name) for name in ("ann", "bob", "carol")]  # each example has its own in one store
    group = await gather_group(store, *users)
    drafts = [
        to_group(users[sender], group) if receiver is None else private(users[sender], users[receiver])
        for sender, receiver in sends
    ]
    written = await asyncio.gather(*(store.send(draft) for draft in drafts))
    assert [(w.value.message_id, w.value.sender_id) for w in written] == [(d.message_id, d.sender_id) for d in drafts]
    truth = logs(written)
    mailboxes = [*map(own, users), *map(sent, users), room(group)]
    for mailbox in mailboxes:
        assert [found.message.seq for _, found in truth[mailbox]] == list(range(1, len(truth[mailbox]) + 1))
        assert all(a < b for a, b in pairwise(found.timestamp for _, found in truth[mailbox]))
    received = [found.message.message_id for m in mailboxes if m[0] != "s" for _, found in truth[m]]
    assert sorted(received) == sorted(d.message_id for d in drafts)
    copied = [found.message.message_id for m in mailboxes if m[0] == "s" for _, found in truth[m]]
    assert sorted(copied) == sorted(d.message_id for d in drafts if not d.is_group and d.sender_id != d.recipient_id)


@pytest.mark.logged
async def test_a_commit_takes_several_messages_and_one_of_each_mailbox(store: LoggedStore) -> None:
    """Of 60 sends at once some share a commit, and so a timestamp; no two of one mailbox or one sender's copies do."""
    await fill(store, 60)
    together: dict[str, list[Posted]] = defaultdict(list)
    for news in await all_news(store):
        together[news.message.timestamp].append(news)
    assert max(map(len, together.values())) > 1
    for posts in together.values():
        mailboxes = [p.mailbox for p in posts] + [sent(p.message.sender_id) for p in posts if p.sent_seq]
        assert len(mailboxes) == len(set(mailboxes))


async def test_a_mailbox_keeps_the_order_of_its_senders_calls(store: Store, ann: str, bob: str) -> None:
    """Ann's sends to Bob, all made at once, are appended in the order in which she made them."""
    await asyncio.gather(*(store.send(private(ann, bob, str(n))) for n in range(50)))
    found = await store.read([Start(own(bob))], 100)
    assert [f.message.message for f in found] == [str(n) for n in range(50)]


async def test_copies_keep_the_order_of_their_senders_calls(store: Store, ann: str, bob: str, carol: str) -> None:
    """Ann and Bob write to three in turn, all at once: mailboxes and copies are in the order of the calls."""
    drafts = [private((ann, bob)[n // 3 % 2], (ann, bob, carol)[n % 3], str(n)) for n in range(120)]
    await asyncio.gather(*(store.send(draft) for draft in drafts))
    for mailbox in (own(ann), own(bob), own(carol), sent(ann), sent(bob)):
        numbers = [int(f.message.message) for f in await store.read([Start(mailbox)], 1_000)]
        assert numbers == sorted(numbers)
        assert len(numbers) == 40


@pytest.mark.logged
async def test_a_write_returns_the_news_of_its_whole_commit(store: LoggedStore) -> None:
    """The batches that concurrent writes return are disjoint or the same, cover the log, and equal its news."""
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    group = await gather_group(store, ann, bob)
    begin = await store.position()
    writes: list[Written[Any]] = await asyncio.gather(
        *(store.send(private(ann, bob)) for _ in range(5)),
        *(store.send(to_group(bob, group)) for _ in range(5)),
        store.block(ann, bob),
        store.remove_member(group, ann),
    )
    batches = {w.batch.last: w.batch for w in writes}
    edge = begin
    for last in sorted(batches):
        assert batches[last].after == edge
        assert batches[last] == await store.changes(edge, 1) or len(batches[last].changes) > 1
        edge = last
    whole = [change for last in sorted(batches) for change in batches[last].changes]
    assert whole == list((await store.changes(begin, 1_000)).changes)
    assert edge == await store.position()


@pytest.mark.logged
async def test_positions_grow_one_by_one(store: LoggedStore) -> None:
    """The news of a log has no hole and no position twice, and its last one is the store's."""
    await fill(store, 40)
    positions = [change.position for change in (await store.changes(0, 1_000)).changes]
    assert positions == list(range(1, len(positions) + 1))
    assert positions[-1] == await store.position() == store.latest()


@pytest.mark.logged
async def test_changes_come_in_whole_commits_at_every_limit(store: LoggedStore) -> None:
    """Paged at any limit, the news is the same, and no page ends within a commit or far beyond its limit."""
    await fill(store, 40)
    whole = await store.changes(0, 1_000)
    posts = [change for change in whole.changes if isinstance(change, Posted)]
    commit_ends = {post.message.timestamp: post.position for post in posts}
    longest = max(Counter(post.message.timestamp for post in posts).values())
    for limit in (1, 2, 3, 7):
        position = 0
        paged: list[Change] = []
        while (page := await store.changes(position, limit)).changes:
            assert page.after == position
            assert len(page.changes) < limit + longest
            last = page.changes[-1]
            assert page.last == last.position
            assert not isinstance(last, Posted) or commit_ends[last.message.timestamp] == last.position
            position = page.last
            paged += page.changes
        assert paged == list(whole.changes)
        assert (page.after, page.last) == (position, position)


@pytest.mark.logged
async def test_forgotten_news_is_said_and_the_messages_are_still_there(place: LoggedPlace) -> None:
    """News up to a position is trimmed: asking from before it raises Forgotten, from it on it is all there."""
    store = await place.serve()
    mailboxes = (await fill(store, 20)).mailboxes
    before = await store.read([Start(m) for m in mailboxes], 1_000)
    whole = (await store.changes(0, 1_000)).changes
    place.drop_news(10)
    for after in (0, 9):
        with pytest.raises(Forgotten):
            await store.changes(after, 1_000)
    assert (await store.changes(10, 1_000)).changes == whole[10:]
    assert await store.read([Start(m) for m in mailboxes], 1_000) == before
    assert await store.recent(60_000, 1_000) >= 10


@pytest.mark.logged
async def test_recent_is_bounded_by_number_and_by_age(store: LoggedStore) -> None:
    """A tail may begin at most `limit` changes back, and not before the window: one in the future holds nothing."""
    assert await store.recent(60_000, 10) == 0
    await fill(store, 40)
    last = await store.position()
    for limit in (0, 1, 5, 20):
        assert last - limit <= await store.recent(3_600_000, limit) <= last
    assert await store.recent(3_600_000, 1_000) == 0
    assert await store.recent(-60_000, 1_000) == last


@pytest.mark.logged
async def test_recent_counts_the_age_of_directory_changes_too(store: LoggedStore) -> None:
    """Where nobody wrote a message yet, sign-ups older than the window are left out as well."""
    await sign_up(store, "ann")
    assert await store.recent(-60_000, 1_000) == await store.position()


starts = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 12) | st.none(), st.integers(-1, 60)),
    min_size=1,
    max_size=8,
    unique_by=lambda start: start[0],
)


@pytest.fixture
async def log(store: Store) -> Log:
    """A filled store."""
    return await fill(store, 60)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(starts, st.integers(1, 40), st.none() | st.integers(0, 80))
async def test_a_read_is_the_merge_of_its_mailboxes(
    store: Store, log: Log, begins: list[tuple[int, int | None, int]], limit: int, until: int | None
) -> None:
    """From any starts by seq or by time, any limit and any `until`, a read gives what sorting the plain lists gives."""
    truth = log.truth
    times = sorted({f.timestamp for boxes in truth.values() for _, f in boxes})
    wanted, expected = [], []
    for index, seq, n in begins:
        time = times[n % len(times)] + n % 2 if n >= 0 else 0
        wanted.append(Start(log.mailboxes[index], seq) if seq is not None else Start(log.mailboxes[index], time=time))
        for position, found in truth[log.mailboxes[index]]:
            is_after = found.message.seq > seq if seq is not None else found.timestamp > time
            if is_after and (until is None or position <= until):
                expected.append(found)
    expected.sort(key=lambda found: (found.timestamp, found.mailbox))
    assert await store.read(wanted, limit, until) == expected[:limit]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 7), st.integers(0, 30), st.integers(1, 30), st.none() | st.integers(0, 80))
async def test_reading_backwards_gives_the_last_ones_oldest_first(
    store: Store, log: Log, index: int, before: int, limit: int, until: int | None
) -> None:
    """Below any seq, at any limit and up to any position: what cutting the plain list gives."""
    mailbox = log.truth[log.mailboxes[index]]
    truth = [f for position, f in mailbox if f.message.seq < before and (until is None or position <= until)]
    assert await store.read_before(log.mailboxes[index], before, limit, until) == truth[-limit:]


async def test_heads_are_the_last_of_each_mailbox(store: Store, log: Log) -> None:
    """Own, sent and group mailboxes: seq and timestamp of the last message, in the order asked for, repeats too."""
    boxes, truth = log
    expected = [Head(truth[m][-1][1].message.seq, truth[m][-1][1].timestamp) if truth[m] else NO_HEAD for m in boxes]
    assert await store.heads(boxes) == expected
    assert await store.heads(boxes[::-1] + boxes) == expected[::-1] + expected


@pytest.mark.logged
async def test_a_head_outlives_its_messages(place: LoggedPlace) -> None:
    """Retention drops some and then all of Bob's messages: his head stands, the rest is read, the next seq is new."""
    store = await place.serve()
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    messages = [(await store.send(private(ann, bob, str(n)))).value for n in range(5)]
    times = [int(m.timestamp) for m in messages]
    place.drop_messages(own(bob), 3)
    assert await store.heads([own(bob)]) == [Head(5, times[4], 3, times[2])]
    for start in (Start(own(bob)), Start(own(bob), 3), Start(own(bob), time=times[0]), Start(own(bob), time=times[2])):
        assert [f.message for f in await store.read([start], 10)] == messages[3:]
    assert [f.message for f in await store.read([Start(own(bob), time=times[3])], 10)] == messages[4:]
    assert [f.message for f in await store.read_before(own(bob), 5, 10)] == messages[3:4]
    place.drop_messages(own(bob), 5)
    assert await store.heads([own(bob)]) == [Head(5, times[4], 5, times[4])]
    assert await store.read([Start(own(bob)), Start(own(bob), time=0)], 10) == []
    assert (await store.send(private(ann, bob))).value.seq == 6


async def test_a_write_is_read_by_whoever_asks_after_it_returned(store: Store, ann: str, bob: str) -> None:
    """Every send is in the heads and the mailbox as soon as it returned."""
    for n in range(1, 21):
        written = await store.send(private(ann, bob))
        heads, found = await asyncio.gather(store.heads([own(bob), sent(ann)]), store.read([Start(own(bob), n - 1)], 5))
        assert [head.seq for head in heads] == [n, n]
        assert [f.message for f in found] == [written.value]


@pytest.mark.logged
async def test_readers_see_whole_commits_while_others_write(store: LoggedStore, ann: str, bob: str) -> None:
    """Beside a hundred sends, a read never sees a message without its copy, nor a commit in part."""
    sends = asyncio.gather(*(store.send(private(ann, bob)) for _ in range(100)))
    while not sends.done():
        found = await store.read([Start(own(bob)), Start(sent(ann))], 1_000)
        received = {f.message.message_id for f in found if not f.message.sent}
        assert received == {f.message.message_id for f in found if f.message.sent}
    await sends


async def test_readers_meet_no_hole_while_others_write(store: Store, ann: str, bob: str, carol: str) -> None:
    """Beside two hundred sends, every read of a mailbox goes on from seq to seq, from the start that it was given."""
    sends = asyncio.gather(*(store.send(private(who, bob)) for _ in range(100) for who in (ann, carol)))
    while not sends.done():
        for start in (Start(own(bob)), Start(own(bob), 20), Start(sent(ann))):
            found = await store.read([start], 1_000)
            assert [f.message.seq for f in found] == list(range(start.seq + 1, start.seq + 1 + len(found)))
    await sends
