"""Interleavings that are rare, opened wide: a real node over a real store is held where another call can slip in."""

import asyncio
import random
import threading
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.backends import Counting, LoggedPlace, gather_group, key, private, sign_up, to_group
from tests.nodes import Served, begin, commit_untold, interpose, join, tell
from tests.wires import Wires
from tidings.config import Settings
from tidings.cursor import Hint, Vector, pack_vector, unpack_vector
from tidings.cursor import mint as mint_cursor
from tidings.cursor import read as read_cursor
from tidings.errors import Refused, StartError, StoreUnavailable, TidingsError
from tidings.model import Batch, Draft, Message, Posted, Start, Written, own, room, sent
from tidings.store import LoggedStore, open_store
from tidings.store.sqlite import reads, sends

pytest_plugins = "tests.opened"
pytestmark = [pytest.mark.anyio, pytest.mark.logged]

DEADLINE_S = 5.0


async def test_a_cursor_of_now_is_good_though_its_commit_is_still_to_be_told(
    alone: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit is in the file, its writer not answered yet: a cursor minted now is no cursor of another history."""
    ann, bob = await sign_up(alone.store, "ann"), await sign_up(alone.store, "bob")
    sending, tell_it = await commit_untold(alone, monkeypatch, lambda: begin(alone, "route", ann, bob, "hello"))
    cursor = (await alone.poll(bob, cursor="now")).cursor
    assert await alone.texts(bob, cursor=cursor) == []
    tell_it()
    await sending
    assert await alone.texts(bob, cursor=cursor) == []
    assert await alone.texts(bob) == ["hello"]


async def test_a_send_whose_caller_went_away_is_told_all_the_same(
    alone: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ann's call ends before or while it is answered: what was committed is in Bob's next poll, with no other send."""
    ann, bob = await sign_up(alone.store, "ann"), await sign_up(alone.store, "bob")
    cursor = (await alone.poll(bob)).cursor
    sending, tell_it = await commit_untold(alone, monkeypatch, lambda: begin(alone, "route", ann, bob, "before"))
    sending.cancel()
    tell_it()
    assert await alone.texts(bob, cursor=cursor) == ["before"]
    sending, tell_it = await commit_untold(alone, monkeypatch, lambda: begin(alone, "route", ann, bob, "while"))
    tell_it()
    sending.cancel()
    await asyncio.wait([sending])
    assert await alone.texts(bob, cursor=cursor) == ["before", "while"]


async def test_who_was_removed_meanwhile_gets_nothing_sent_thereafter(
    store: LoggedStore, worker: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Carol's entry was read, then she is removed and a message sent, both told before she reads: it is not for her."""
    ann, carol = await sign_up(store, "ann"), await sign_up(store, "carol")
    group = await gather_group(store, ann, carol)

    async def remove() -> None:
        await store.remove_member(group, carol)
        await store.send(to_group(ann, group, "without Carol"))
        await tell(worker)

    interpose(monkeypatch, worker.store, "find_profile", remove)
    assert await worker.texts(carol) == []


async def test_who_waits_hears_of_a_group_joined_while_they_were_looked_up(
    store: LoggedStore, worker: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Carol waits; she joins one group, and while that is looked up a second one: its first message ends the wait."""
    ann, carol = await sign_up(store, "ann"), await sign_up(store, "carol")
    first, second = await gather_group(store, ann), await gather_group(store, ann)
    cursor = (await worker.poll(carol)).cursor
    waiting = asyncio.create_task(worker.poll(carol, cursor=cursor, wait_s=50.0))

    async def join_second() -> None:
        await store.add_member(second, carol)
        await tell(worker)

    while worker.messages.waits == 0:
        await worker.store.position()
    interpose(monkeypatch, worker.store, "find_profile", join_second)
    await store.add_member(first, carol)
    await worker.feed.catch_up()
    async with asyncio.timeout(DEADLINE_S):
        while room(second) not in worker.memory._tail._waiters:
            await worker.store.position()
        await store.send(to_group(ann, second, "welcome"))
        await worker.feed.catch_up()
        answer = await waiting
    assert [message.message for message in answer.messages] == ["welcome"]


async def test_bystanders_stay_hot_while_others_send(place: LoggedPlace, alone: Served) -> None:
    """While Ann sends to Bob, every poll of Carol's is answered from memory: nobody reads the store for it."""
    ann, bob, carol = [await sign_up(alone.store, name) for name in ("ann", "bob", "carol")]
    cursor = (await alone.poll(carol)).cursor.encode()
    place.meter.calls.clear()
    for n in range(20):
        sending = asyncio.create_task(alone.messages.send(ann, bob, str(n), False, None))
        while not sending.done():
            assert alone.messages.find_none_after(carol, cursor, False) is not None
            await asyncio.sleep(0)
        await sending
    assert place.meter.calls == {"send": 20}


async def test_a_commit_is_told_though_readers_are_too_many(
    place: LoggedPlace, store: LoggedStore, wires: Wires, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No read of the store is free, and a foreign commit came first: a send that was kept is not said to be refused."""
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    busy = await join(place, store, wires, cold_reads_max=1, cold_reads_waiting_max=1)
    gate, real = threading.Event(), reads.blocks

    def held(db: apsw.Connection, user_id: str) -> list[str]:
        assert gate.wait(10)
        return real(db, user_id)

    monkeypatch.setattr(reads, "blocks", held)
    held_up = [asyncio.create_task(busy.store.blocks(ann)) for _ in range(2)]
    await store.send(private(bob, ann, "first"))
    try:
        await asyncio.wait_for(busy.messages.send(ann, bob, "second", False, None), DEADLINE_S)
    except StoreUnavailable:
        pass  # its outcome is unknown: that may be said
    finally:
        gate.set()
        await asyncio.gather(*held_up)
    assert await busy.texts(bob) == ["second"]


@pytest.mark.parametrize("call", ["find_profile", "heads", "read"])
async def test_a_feed_that_breaks_off_amid_a_poll_loses_nothing(
    alone: Served, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """While a poll is under way, all memory is dropped and a message comes: the cursors lead to each message once."""
    ann, bob = await sign_up(alone.store, "ann"), await sign_up(alone.store, "bob")
    group = await gather_group(alone.store, ann, bob)
    start = (await alone.poll(bob)).cursor
    await alone.messages.send(ann, bob, "one", False, None)
    await alone.messages.send(ann, group, "two", True, None)
    alone.memory.reset(alone.feed.position)

    async def break_off() -> None:
        await alone.messages.send(ann, group, "three", True, None)
        alone.memory.reset(alone.feed.position)
        await alone.messages.send(ann, bob, "four", False, None)

    interpose(monkeypatch, alone.store, call, break_off)
    first = await alone.poll(bob, cursor=start)
    assert [m.message for m in first.messages] == ["one", "two"]
    assert await alone.texts(bob, cursor=first.cursor) == ["three", "four"]


async def test_a_message_told_once_more_hides_no_later_one(alone: Served) -> None:
    """All memory is dropped, then an old message is told once more, as by a retry: Bob is given the later ones, too."""
    ann, bob = await sign_up(alone.store, "ann"), await sign_up(alone.store, "bob")
    start = (await alone.poll(bob)).cursor
    first, _ = [await alone.messages.send(ann, bob, text, False, None) for text in ("one", "two")]
    position = alone.feed.position
    alone.memory.reset(position)
    alone.memory.apply(Batch(position, position + 1, (Posted(position + 1, own(bob), first, 1),)))
    assert await alone.texts(bob, cursor=start) == ["one", "two"]
    assert await alone.texts(bob, timestamp=int(first.timestamp) - 1) == ["one", "two"]


async def test_what_is_kept_no_more_is_told_once(place: LoggedPlace, alone: Served) -> None:
    """Bob's messages are gone before he read them: he is told so, and his next cursor stands after them."""
    ann, bob = await sign_up(alone.store, "ann"), await sign_up(alone.store, "bob")
    cursor = (await alone.poll(bob)).cursor
    await alone.messages.send(ann, bob, "hello", False, None)
    place.drop_messages(own(bob), 1)
    alone.memory.reset(alone.feed.position)
    told = await alone.poll(bob, cursor=cursor)
    assert (list(told.messages), told.expired) == ([], True)
    alone.memory.reset(alone.feed.position)
    assert not (await alone.poll(bob, cursor=told.cursor)).expired


async def test_one_file_has_one_server_under_any_name(store: LoggedStore, tmp_path: Path) -> None:
    """A second server that names the file by a symbolic link is refused like any other."""
    (tmp_path / "link.db").symlink_to(tmp_path / "tidings.db")
    with pytest.raises(StartError):
        await open_store(Settings(store=f"sqlite:///{tmp_path}/link.db"), Counting())


def made_up(chance: random.Random, real: Hint, key: int) -> Hint:
    """A cursor's content as somebody who knows the format would forge it, around a right one."""
    number = (0, 1, 2, 5, 255, 1 << 32, (1 << 63) - 1, (1 << 64) - 1)
    groups = {chance.choice((key, -1, 1 << 62)): chance.choice(number) for _ in range(chance.randrange(3))}
    vector = Vector(chance.choice(number), chance.choice((None, *number)), groups)
    raw = chance.choice((pack_vector(vector), real.raw + chance.randbytes(4), chance.randbytes(chance.randrange(40))))
    position = chance.choice((real.position, real.position - 1, real.position + 1, 0, -1, -(1 << 63), (1 << 63) - 1))
    run, digest = chance.choice((real.run, real.run, 7)), chance.choice((real.digest, 0, (1 << 64) - 1))
    return Hint(chance.choice((real.generation, real.generation, 0)), run, position, digest, raw)


@pytest.mark.parametrize("seed", range(4))
async def test_a_forged_cursor_is_refused_or_harmless(alone: Served, seed: int) -> None:
    """The checksum is no secret: whatever Bob makes up is 400 or 410, or an answer with a cursor that can be read."""
    ann, bob = await sign_up(alone.store, "ann"), await sign_up(alone.store, "bob")
    group = await gather_group(alone.store, ann, bob)
    await alone.messages.send(ann, bob, "one", False, None)
    await alone.messages.send(ann, group, "two", True, None)
    real = read_cursor(bob, (await alone.poll(bob)).cursor.encode())
    (key,) = unpack_vector(real.raw).groups
    chance, codes = random.Random(seed), set()
    for _ in range(300):
        cursor, with_sent = mint_cursor(bob, made_up(chance, real, key)), chance.random() < 0.5
        try:
            alone.messages.find_none_after(bob, cursor.encode(), with_sent)
            answer = await alone.poll(bob, cursor=cursor, with_sent=with_sent)
            unpack_vector(read_cursor(bob, answer.cursor.encode()).raw)
            codes.add("")
        except TidingsError as error:
            codes.add(error.code)
    assert codes == {"", "bad_cursor", "cursor_of_another_history"}


def spoil(_: object) -> None:
    """A write that fails like a disk."""
    raise apsw.IOError("planted")


@pytest.mark.parametrize("known_max", [3, 50_000])
async def test_what_a_writer_remembers_never_outlives_its_truth(
    place: LoggedPlace, store: LoggedStore, monkeypatch: pytest.MonkeyPatch, known_max: int
) -> None:
    """Two processes change rights in turn and send at once, some commits fail: each send is decided by the rights of
    now, each key works once, and no place in a mailbox is left out or given twice."""
    monkeypatch.setattr(sends, "_KNOWN_MAX", known_max)
    chance, stores = random.Random(known_max), [store, await place.join(store)]
    cast = [await sign_up(store, name) for name in ("ann", "bob", "carol", "eve")]
    group, blocks, members = await gather_group(store), set[tuple[str, str]](), set[str]()
    kept: dict[str, tuple[Draft, Message]] = {}
    for turn in range(60):
        here, (one, other) = chance.choice(stores), chance.choices(cast, k=2)
        if chance.random() < 0.5:
            await (here.unblock if (one, other) in blocks else here.block)(one, other)
            blocks ^= {(one, other)}
        else:
            await (here.remove_member if one in members else here.add_member)(group, one)
            members ^= {one}
        drafts = {}
        for n, sender in enumerate(chance.choices(cast, k=8)):
            drafts[f"{turn} {n}"] = to_group(sender, group) if n % 2 else private(sender, chance.choice(cast))
        drafts |= {name: kept[name][0] for name in chance.sample(sorted(kept), min(2, len(kept)))}
        asked = [chance.choice(stores).send(draft, key(name)) for name, draft in drafts.items()]
        spoilt = [process._writer.do(spoil) for process in stores if chance.random() < 0.3]  # type: ignore[attr-defined]
        outcomes = (await asyncio.gather(*asked, *spoilt, return_exceptions=True))[: len(asked)]
        for (name, draft), outcome in zip(drafts.items(), outcomes, strict=True):
            to, sender = draft.recipient_id, draft.sender_id
            if name in kept or (sender in members if draft.is_group else (to, sender) not in blocks):
                assert isinstance(outcome, Written)
                assert kept.setdefault(name, (draft, outcome.value)) == (draft, outcome.value)
            else:
                assert isinstance(outcome, Refused)
    for mailbox in (*map(own, cast), *map(sent, cast), room(group)):
        found = await stores[1].read([Start(mailbox)], 1_000)
        assert [item.message.seq for item in found] == list(range(1, len(found) + 1))
        assert mailbox[0] == "s" or len(found) == sum(m.recipient_id == mailbox[1:] for _, m in kept.values())


async def test_a_stay_is_taken_for_ended_only_by_a_look_that_began_after_the_question(
    place: LoggedPlace, store: LoggedStore, wires: Wires, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One node looks up bob's stays for an old cursor; he joins a group, is given a message by another node, and asks
    the first one on: it does not take that look for the answer, and gives him the message no second time."""
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    left, joined = await gather_group(store, ann, bob), await gather_group(store, ann)
    here, there = await join(place, store, wires), await join(place, store, wires)
    old = (await here.poll(bob)).cursor
    await store.remove_member(left, bob)
    await here.poll(bob)
    asking: list[asyncio.Task[Any]] = []

    async def join_unseen() -> None:
        with monkeypatch.context() as patched:  # the commits are in the file, and not yet on the board
            patched.setattr(store._writer, "board", None)  # type: ignore[attr-defined]
            await store.add_member(joined, bob)
            await store.send(to_group(ann, joined, "welcome"))
        await there.feed.catch_up()
        given = await there.poll(bob)
        assert [message.message for message in given.messages] == ["welcome"]
        asking.append(asyncio.create_task(here.poll(bob, cursor=given.cursor)))
        for _ in range(20):
            await asyncio.sleep(0)

    interpose(monkeypatch, here.store, "find_profile", join_unseen)
    await here.poll(bob, cursor=old)
    answer = await asking[0]
    await store.send(private(ann, bob, "hello"))
    assert await here.texts(bob, cursor=answer.cursor) == ["hello"]
