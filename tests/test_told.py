"""What was committed is told, and only that, whatever became of its caller: no reader stays behind the store."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.backends import LoggedPlace, gather_group, private, sign_up, to_group
from tests.nodes import ROADS, Served, begin, commit_untold, interpose, join
from tests.test_bounds import holding_the_file
from tests.wires import Wires
from tidings.errors import Refused, StoreUnavailable
from tidings.model import Posted, Start, Written, own, room, sent
from tidings.store import LoggedStore
from tidings.store.sqlite import foreign, writes
from tidings.store.sqlite.transaction import Transaction

pytest_plugins = "tests.opened"
pytestmark = [pytest.mark.anyio, pytest.mark.logged]

DEADLINE_S = 5.0
on_every_road = pytest.mark.parametrize("road", ROADS)


def is_hot(node: Served, user: str, cursor: str) -> bool:
    """Whether a poll is answered by the protocol, as without news."""
    return node.messages.find_none_after(user, cursor.encode(), False) is not None


@on_every_road
async def test_an_overdue_send_that_was_committed_all_the_same_is_read(
    place: LoggedPlace, alone: Served, monkeypatch: pytest.MonkeyPatch, road: str
) -> None:
    """Ann's send is answered 503 while it is in the file already: once that is known, Bob's next poll has it."""
    ann, bob = await sign_up(alone.store, "ann"), await sign_up(alone.store, "bob")
    cursor = (await alone.poll(bob)).cursor
    sending, tell_it = await commit_untold(alone, monkeypatch, lambda: begin(alone, road, ann, bob, "overdue"))
    for job in alone.store._jobs._held:  # type: ignore[attr-defined]  # it has waited as long as it may
        job.due = 0.0
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(sending, DEADLINE_S)
    assert is_hot(alone, bob, cursor)
    tell_it()
    assert not is_hot(alone, bob, cursor)
    assert await alone.texts(bob, cursor=cursor) == ["overdue"]


@on_every_road
async def test_a_send_that_could_not_be_told_is_read(alone: Served, monkeypatch: pytest.MonkeyPatch, road: str) -> None:
    """A commit comes behind one that is not applied yet, and the store can't be read just then: 503, and yet read."""
    ann, bob, carol = [await sign_up(alone.store, name) for name in ("ann", "bob", "carol")]
    cursor = (await alone.poll(bob)).cursor
    first, tell_first = await commit_untold(alone, monkeypatch, lambda: begin(alone, "route", ann, carol, "first"))
    second, tell_second = await commit_untold(alone, monkeypatch, lambda: begin(alone, road, carol, bob, "second"))

    async def fails(after: int, limit: int) -> None:
        raise StoreUnavailable("store_unavailable", "planted", retry_s=1)

    first.cancel()
    with monkeypatch.context() as broken:
        broken.setattr(alone.store, "changes", fails)
        tell_first()
        tell_second()
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(second, DEADLINE_S)
    assert not is_hot(alone, bob, cursor)
    assert await alone.texts(bob, cursor=cursor) == ["second"]
    assert await alone.texts(carol) == ["first"]


@on_every_road
async def test_sends_are_answered_when_their_readers_have_them(
    alone: Served, monkeypatch: pytest.MonkeyPatch, road: str
) -> None:
    """Two commits are told in one step, the first one's caller going on only later: whoever is answered is read."""
    ann, bob, carol = [await sign_up(alone.store, name) for name in ("ann", "bob", "carol")]
    cursor = (await alone.poll(bob)).cursor
    first, tell_first = await commit_untold(alone, monkeypatch, lambda: begin(alone, "route", ann, carol, "first"))
    second, tell_second = await commit_untold(alone, monkeypatch, lambda: begin(alone, road, carol, bob, "second"))
    found: list[bool] = []
    second.add_done_callback(lambda _: found.append(is_hot(alone, bob, cursor)))
    tell_first()
    tell_second()
    await asyncio.wait_for(asyncio.gather(first, second), DEADLINE_S)
    assert found == [False]
    assert alone.feed.position == alone.memory._tail.position == await alone.store.position()
    assert await alone.texts(bob, cursor=cursor) == ["second"]


@pytest.mark.parametrize("with_sent", [False, True])
async def test_no_poll_is_hot_past_what_another_process_acknowledged(
    store: LoggedStore, worker: Served, with_sent: bool
) -> None:
    """Ann's send, then Bob's removal from a group, were taken by another process that told nobody: no poll is hot."""
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    group = await gather_group(store, ann, bob)

    def hot(cursor: str, time: int) -> list[bool]:
        found = worker.messages.find_none_after(bob, cursor.encode(), with_sent)
        return [found is not None, worker.messages.find_none_later(bob, time, with_sent) is not None]

    written = await store.send(private(ann, bob, "hello"))
    time = int(written.value.timestamp)
    cursor = (await worker.poll(bob, with_sent=with_sent)).cursor
    assert hot(cursor, time) == [True, True]
    await store.send(private(ann, bob, "again"))
    assert hot(cursor, time) == [False, False]
    assert await worker.texts(bob, timestamp=time) == ["again"]
    answer = await worker.poll(bob, cursor=cursor, with_sent=with_sent)
    assert [message.message for message in answer.messages] == ["again"]
    time, cursor = int(answer.messages[0].timestamp), answer.cursor
    assert hot(cursor, time) == [True, True]
    await store.remove_member(group, bob)
    assert hot(cursor, time) == [False, False]


async def test_a_page_with_more_to_come_leads_to_no_hot_poll(alone: Served) -> None:
    """Bob read one of two messages: the cursor he got, asked with in the form that is answered hot, has the second."""
    ann, bob = await sign_up(alone.store, "ann"), await sign_up(alone.store, "bob")
    for text in ("one", "two"):
        await alone.messages.send(ann, bob, text, False, None)
    page = await alone.poll(bob, limit=1)
    assert (page.more, is_hot(alone, bob, page.cursor)) == (True, False)
    assert await alone.texts(bob, cursor=page.cursor) == ["two"]


async def test_who_was_removed_while_an_old_stay_was_looked_up_is_not_put_back(
    store: LoggedStore, worker: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Carol's cursor names a stay that ended, and while the store is asked about that she is removed elsewhere, too:
    her next poll is of what she is in now."""
    ann, carol = await sign_up(store, "ann"), await sign_up(store, "carol")
    left, group = await gather_group(store, ann, carol), await gather_group(store, ann, carol)
    cursor = (await worker.poll(carol)).cursor
    await store.remove_member(left, carol)
    await worker.poll(carol)

    async def remove() -> None:
        batch = (await store.remove_member(group, carol)).batch
        await worker.feed.publish(batch)

    interpose(monkeypatch, worker.memory._directory, "reload", remove)
    await worker.poll(carol, cursor=cursor)
    await store.send(to_group(ann, group, "without Carol"))
    await worker.feed.catch_up()
    assert await worker.texts(carol) == []
    assert await worker.texts(carol, cursor=cursor) == []


def refuse_commits(writer: Any, times: int) -> Callable[[], None]:
    """Let so many COMMITs fail, when everything before went well; gives what ends it."""
    left = iter(range(times))
    writer._db.set_commit_hook(lambda: next(left, None) is not None)
    return lambda: writer._db.set_commit_hook(None)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("failures", [1, 2, 3, 4])
async def test_a_commit_that_failed_leaves_no_trace(alone: Served, failures: int, known: bool) -> None:
    """Commits fail at their very end, at first for three sends together, then for one alone: what was answered 503 is
    not there, what was answered 200 is, and the places in each mailbox go on without a hole."""
    ann, bob, carol = [await sign_up(alone.store, name) for name in ("ann", "bob", "carol")]
    group = await gather_group(alone.store, ann, bob, carol)
    if known:
        await alone.store.send(private(ann, bob, "before"))
        await alone.store.send(to_group(ann, group, "before"))
    writer: Any = alone.store._writer  # type: ignore[attr-defined]  # whose connection is made to fail
    end = refuse_commits(writer, failures)
    drafts = [private(ann, bob, "one"), private(bob, carol, "two"), to_group(carol, group, "three")]
    outcomes = await asyncio.gather(*(alone.store.send(draft) for draft in drafts), return_exceptions=True)
    end()
    assert any(isinstance(outcome, StoreUnavailable) for outcome in outcomes) or failures < 4
    kept = [draft.message for draft, o in zip(drafts, outcomes, strict=True) if isinstance(o, Written)]
    outcomes += await asyncio.gather(*(alone.store.send(draft) for draft in drafts), return_exceptions=True)
    assert all(isinstance(outcome, Written) for outcome in outcomes[3:])
    assert {type(outcome) for outcome in outcomes} <= {Written, StoreUnavailable}
    for mailbox in (own(bob), own(carol), room(group), sent(ann), sent(bob)):
        found = await alone.store.read([Start(mailbox)], 100)
        assert [item.message.seq for item in found] == list(range(1, len(found) + 1))
    texts = await alone.texts(bob) + await alone.texts(carol, timestamp=1)
    for draft in drafts:
        copies = 2 if draft.recipient_id == group else 1
        assert texts.count(draft.message) == copies * (1 + kept.count(draft.message))


NASTY = (
    "\0",
    "a\0b",
    "\x01\x1f\x7f",
    '"\\',
    "\u2028\u2029\ufeff",
    "\U0001f600" * 4,
    "\\u0000",
    "é\n\r\t",
    "[1]",
    "null",
)


async def test_what_a_writer_reads_of_others_is_what_they_wrote(
    place: LoggedPlace, store: LoggedStore, wires: Wires, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process sends every kind of text: whoever writes next has read it on the way, to the letter."""
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    group = await gather_group(store, ann, bob)
    worker = await join(place, store, wires)
    await worker.messages.send(bob, ann, "so that the writer knows where it stands", False, None)
    told: list[Any] = []
    worker.store.follow(lambda batch: told.append(batch))
    written = [await store.send(private(ann, bob, text)) for text in NASTY]
    written.append(await store.send(to_group(ann, group, "to all")))
    written.append(await store.send(private(bob, bob, "to myself")))
    await store.add_member(await gather_group(store), bob)
    after = written[0].batch.after
    await worker.store.send(private(bob, ann, "next"))
    (batch,) = told
    truth = await store.changes(after, batch.last - after)
    assert (batch.after, batch.last, *batch.changes) == (truth.after, truth.last, *truth.changes)
    assert [c.message.message for c in batch.changes if isinstance(c, Posted)] == [*NASTY, "to all", "to myself"]


async def test_what_a_writer_reads_of_others_is_applied_in_order_or_not_at_all(
    store: LoggedStore, worker: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process has not applied its own last commit when its next one brings what came between: nothing is lost."""
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    start = (await worker.poll(bob)).cursor
    await worker.messages.send(ann, bob, "1", False, None)
    first, tell_first = await commit_untold(worker, monkeypatch, lambda: begin(worker, "plain", ann, bob, "2"))
    await store.send(private(ann, bob, "3"))
    second, tell_second = await commit_untold(worker, monkeypatch, lambda: begin(worker, "plain", ann, bob, "4"))
    await asyncio.sleep(0)  # what was read on the way is told before
    tell_second()
    tell_first()
    await asyncio.wait_for(asyncio.gather(first, second), DEADLINE_S)
    assert [await worker.texts(bob, cursor=start), await worker.texts(bob)] == [["1", "2", "3", "4"]] * 2


@pytest.mark.parametrize("why", ["too many", "trimmed"])
async def test_a_writer_that_can_not_read_all_of_others_decides_by_the_store(
    place: LoggedPlace, store: LoggedStore, wires: Wires, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Bob's block of Ann, taken elsewhere, is not among what a writer reads of others: once it has met both of them
    in other sends, Ann is refused all the same, and no place in a mailbox is given twice."""
    ann, bob, carol = [await sign_up(store, name) for name in ("ann", "bob", "carol")]
    worker = await join(place, store, wires)
    for receiver in (bob, carol):
        await worker.messages.send(ann, receiver, "before", False, None)
    await store.send(private(ann, carol, "elsewhere"))
    block = (await store.block(bob, ann)).batch
    if why == "trimmed":
        place.drop_news(block.last)
    else:
        monkeypatch.setattr(foreign, "MOST", 1)
    await worker.messages.send(ann, carol, "after", False, None)
    await worker.messages.send(carol, bob, "after", False, None)
    with pytest.raises(Refused):
        await worker.messages.send(ann, bob, "blocked", False, None)
    assert await worker.texts(carol) == ["before", "elsewhere", "after"]
    assert await worker.texts(bob) == ["before", "after"]


async def test_a_removal_is_not_passed_over_by_news_of_others(
    store: LoggedStore, worker: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process removed Carol and has not applied that, when its next commit brings what another one sent in
    between: once the removal is answered, nothing of that group is hers."""
    ann, carol = await sign_up(store, "ann"), await sign_up(store, "carol")
    group = await gather_group(store, ann, carol)
    cursor = (await worker.poll(carol)).cursor
    await worker.messages.send(ann, ann, "so that the writer knows where it stands", False, None)

    async def remove() -> Any:
        written = await worker.store.remove_member(group, carol)
        await worker.feed.publish(written.batch)

    removing, tell_first = await commit_untold(worker, monkeypatch, lambda: asyncio.create_task(remove()))
    await store.send(to_group(ann, group, "elsewhere"))
    sending, tell_second = await commit_untold(worker, monkeypatch, lambda: begin(worker, "plain", ann, carol, "hers"))
    tell_first()
    tell_second()
    await asyncio.wait_for(asyncio.gather(removing, sending), DEADLINE_S)
    assert await worker.texts(carol, cursor=cursor) == ["hers"]
    assert await worker.texts(carol) == ["hers"]


async def test_a_write_that_fails_half_way_leaves_no_half(store: LoggedStore) -> None:
    """A block is written, then the disk fails: in the same commit as others or alone, nothing of it is kept."""
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    before = await store.position()

    def half(tx: Transaction) -> None:
        writes.block(tx, bob, ann, writes.Limits(9, 9, 9))
        raise apsw.IOError("planted")

    writer: Any = store._writer  # type: ignore[attr-defined]  # which takes any write
    halves = [writer.do(half) for _ in range(3)]
    *failed, sent_one = await asyncio.gather(*halves, store.send(private(ann, bob)), return_exceptions=True)
    assert [type(outcome) for outcome in failed] == [StoreUnavailable] * 3
    assert isinstance(sent_one, Written)
    assert await store.blocks(bob) == []
    assert [type(change) for change in (await store.changes(before, 100)).changes] == [Posted]


async def test_who_is_put_off_keeps_their_place(store: LoggedStore, tmp_path: Path) -> None:
    """Ann's second message waits for the next commit; Eve's, which came later to the same mailbox, is not before it."""
    ann, bob, carol, eve = [await sign_up(store, name) for name in ("ann", "bob", "carol", "eve")]
    with holding_the_file(tmp_path):
        drafts = (private(ann, bob, "first"), private(ann, carol, "second"), private(eve, carol, "third"))
        sending = [asyncio.create_task(store.send(draft)) for draft in drafts]
        await asyncio.sleep(0)
        assert store.waiting == len(drafts)
    await asyncio.wait_for(asyncio.gather(*sending), DEADLINE_S)
    found = await store.read([Start(own(carol))], 10)
    assert [item.message.message for item in found] == ["second", "third"]
