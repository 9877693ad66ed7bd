"""The contract of a store, continued: what outlives a process, what belongs to one history, and several processes."""

import asyncio

import pytest

from tests.backends import LoggedPlace, Place, gather_group, private, sign_up, to_group
from tidings.errors import Refused, StartError
from tidings.model import Message, Posted, Start, own, room, sent
from tidings.store import Store

pytest_plugins = "tests.opened"
pytestmark = pytest.mark.anyio


async def everything(store: Store, users: list[str], group: str) -> tuple[object, ...]:
    """All that a store says of some users and a group."""
    mailboxes = [*map(own, users), *map(sent, users), room(group)]
    return (
        [await store.find_profile(user) for user in users],
        [await store.blocks(user) for user in users],
        await store.find_group(group),
        await store.members(group, "", 10),
        await store.heads(mailboxes),
        await store.read([Start(mailbox) for mailbox in mailboxes], 1_000),
        await store.position(),
    )


async def test_everything_outlives_the_process(place: Place) -> None:
    """Users, blocks, memberships, messages and heads are the same after the store was closed and opened again."""
    store = await place.serve()
    users = [await sign_up(store, name) for name in ("ann", "bob", "carol")]
    ann, bob, carol = users
    group = await gather_group(store, ann, bob)
    await store.block(carol, ann)
    await asyncio.gather(*(store.send(private(ann, bob, str(n))) for n in range(10)))
    await store.send(to_group(bob, group))
    before = await everything(store, users, group)
    await place.leave(store)
    again = await place.serve()
    assert await everything(again, users, group) == before
    assert (await again.send(private(ann, bob))).value.seq == 11


async def test_timestamps_go_on_after_a_restart(place: Place) -> None:
    """The first message after each of several openings is later than the last one before it."""
    last = 0
    for n in range(3):
        store = await place.serve()
        ann = await sign_up(store, "ann")
        for _ in range(20):
            timestamp = int((await store.send(private(ann, ann, str(n)))).value.timestamp)
            assert timestamp > last
            last = timestamp
        await place.leave(store)


@pytest.mark.logged
async def test_a_generation_stays_and_a_run_is_new(place: LoggedPlace) -> None:
    """The history's number is the same at each opening; each server start has a number of its own, its workers that."""
    generations, runs = set(), []
    for _ in range(3):
        store = await place.serve()
        worker = await place.join(store)
        assert (worker.generation, worker.run) == (store.generation, store.run)
        generations.add(store.generation)
        runs.append(store.run)
        await place.leave(worker)
        await place.leave(store)
    assert len(generations) == 1
    assert len({*runs, *generations}) == 4
    assert all(-(1 << 63) <= number < 1 << 63 for number in runs)


@pytest.mark.logged
async def test_a_run_knows_its_own_positions(place: LoggedPlace) -> None:
    """Over three openings a position belongs to the run that was there when it was the last, and to no other."""
    spans: dict[int, tuple[int, int]] = {}
    for _ in range(3):
        store = await place.serve()
        first = await store.position()
        ann = await sign_up(store, "ann")
        await store.send(private(ann, ann))
        assert await store.knows(store.run, await store.position())
        spans[store.run] = (first, await store.position())
        await place.leave(store)
    store = await place.serve()
    for run, (first, last) in spans.items():
        known = [position for position in range(-1, 20) if await store.knows(run, position)]
        assert known == list(range(first, last + 1))
    assert not await store.knows(store.run, await store.position() + 1)
    assert await store.knows(store.run, await store.position())
    assert not await store.knows(4_711, 1)


@pytest.mark.logged
async def test_a_worker_knows_what_its_server_knows(place: LoggedPlace) -> None:
    """A position that another process of the server reached is known at once."""
    store = await place.serve()
    worker = await place.join(store)
    ann = await sign_up(store, "ann")
    for node, other in ((store, worker), (worker, store)):
        written = await node.send(private(ann, ann))
        assert await other.knows(store.run, written.batch.last)
        assert not await other.knows(store.run, written.batch.last + 1)


@pytest.mark.logged
async def test_a_copy_put_back_by_hand_is_noticed(place: LoggedPlace) -> None:
    """After an older copy of the file took the store's place, what was known then is known, all later is not.

    Neither is it once the positions that were lost are given out anew.
    """
    store = await place.serve()
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    old = (store.run, await store.position())
    await place.leave(store)
    place.copy()
    store = await place.serve()
    await store.send(private(ann, bob))
    lost = [(store.run, await store.position()), (old[0], old[1] + 1)]
    await place.leave(store)
    place.put_back()
    store = await place.serve()
    for _ in range(3):
        assert await store.knows(*old)
        assert [await store.knows(*one) for one in lost] == [False, False]
        await store.send(private(bob, ann))
    assert (await store.send(private(ann, bob))).value.seq == 1


@pytest.mark.logged
async def test_a_copy_of_the_running_run_is_noticed_too(place: LoggedPlace) -> None:
    """A copy made by hand while the server ran: what the run gave out after the copy is unknown to the next server."""
    store = await place.serve()
    ann = await sign_up(store, "ann")
    await place.leave(store)  # so that the file is whole: the run is still the last one
    place.copy()
    run, position = store.run, await sign_up_alone(place)
    place.put_back()
    store = await place.serve()
    assert not await store.knows(run, position)
    assert await store.find_profile(ann) is not None


async def sign_up_alone(place: LoggedPlace) -> int:
    """A server start with one sign-up; gives the position that it reached."""
    store = await place.serve()
    await sign_up(store, "eve")
    position = await store.position()
    await place.leave(store)
    return position


async def test_a_generation_is_that_of_every_process(place: Place) -> None:
    """The generation of a store says which history it is: 64 random bits, not 0, for each process and at any time."""
    store = await place.serve()
    worker = await place.join(store)
    generations = {store.generation, worker.generation}
    await place.leave(worker)
    await place.leave(store)
    generations.add((await place.serve()).generation)
    (generation,) = generations
    assert generation != 0
    assert -(1 << 63) <= generation < 1 << 63


@pytest.mark.logged
async def test_a_second_server_is_refused_in_one_line(place: LoggedPlace) -> None:
    """While a store is served, another server start on it fails, the first goes on; later starts are free again."""
    store = await place.serve()
    for _ in range(2):
        with pytest.raises(StartError) as caught:
            await place.serve()
        assert "\n" not in str(caught.value)
    ann = await sign_up(store, "ann")
    worker = await place.join(store)
    with pytest.raises(StartError):
        await place.serve()
    await place.leave(store)
    with pytest.raises(StartError):
        await place.serve()  # a worker still serves
    await place.leave(worker)
    again = await place.serve()
    assert await again.find_profile(ann) is not None


@pytest.mark.logged
async def test_a_worker_of_an_earlier_server_is_refused(place: LoggedPlace) -> None:
    """Who comes to join a server that was replaced meanwhile is sent away."""
    first = await place.serve()
    await place.leave(first)
    second = await place.serve()
    second_worker = await place.join(second)
    with pytest.raises(StartError) as caught:
        await place.join_run(second, first.run)
    assert "\n" not in str(caught.value)
    await sign_up(second_worker, "ann")


async def test_a_block_by_one_process_binds_the_other_at_once(place: Place) -> None:
    """Bob blocks Ann through one process, back and forth: each next send through the other is decided by that."""
    store = await place.serve()
    worker = await place.join(store)
    ann, bob = await sign_up(store, "ann"), await sign_up(worker, "bob")
    for _ in range(10):
        await store.block(bob, ann)
        with pytest.raises(Refused):
            await worker.send(private(ann, bob))
        await worker.unblock(bob, ann)
        await store.send(private(ann, bob))


async def test_a_removal_by_one_process_binds_the_other_at_once(place: Place) -> None:
    """Ann is put out through one process and let in through the other: each next send is decided by that."""
    store = await place.serve()
    worker = await place.join(store)
    ann = await sign_up(store, "ann")
    group = await gather_group(store, ann)
    for _ in range(10):
        await store.remove_member(group, ann)
        with pytest.raises(Refused):
            await worker.send(to_group(ann, group))
        await worker.add_member(group, ann)
        await store.send(to_group(ann, group))


async def test_two_processes_write_one_log(place: Place) -> None:
    """A hundred sends through two processes at once: no hole, no timestamp twice, one order for both, all told."""
    store = await place.serve()
    worker = await place.join(store)
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    group = await gather_group(store, ann, bob)
    written = await asyncio.gather(
        *(node.send(private(ann, bob, str(n))) for n in range(25) for node in (store, worker)),
        *(node.send(to_group(bob, group, str(n))) for n in range(25) for node in (worker, store)),
    )
    for mailbox in (own(bob), room(group), sent(ann)):
        found = await store.read([Start(mailbox)], 1_000)
        assert [f.message.seq for f in found] == list(range(1, 51))
        assert len({f.timestamp for f in found}) == 50
        assert sorted(found, key=lambda f: f.timestamp) == found
        assert await worker.read([Start(mailbox)], 1_000) == found
    posts = {change.message.message_id for w in written for change in w.batch.changes if isinstance(change, Posted)}
    assert posts == {w.value.message_id for w in written}
    assert len(posts) == 100


@pytest.mark.logged
async def test_two_processes_tell_one_news(place: LoggedPlace) -> None:
    """A hundred sends through two processes at once: the news that they return is whole commits in one order."""
    store = await place.serve()
    worker = await place.join(store)
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    begin = await store.position()
    sends = (node.send(private(ann, bob, str(n))) for n in range(50) for node in (store, worker))
    written = await asyncio.gather(*sends)
    edges = sorted({(w.batch.after, w.batch.last) for w in written})
    assert [after for after, _ in edges] == [begin, *(last for _, last in edges[:-1])]
    news = await worker.changes(begin, 1_000)
    assert news == await store.changes(begin, 1_000)
    posts: list[Message] = [change.message for change in news.changes if isinstance(change, Posted)]
    assert {p.message_id for p in posts} == {w.value.message_id for w in written}
    assert len(posts) == 100


async def test_a_commit_of_one_process_is_seen_by_the_other_at_once(place: Place) -> None:
    """What one process acknowledged, the other's heads and reads have."""
    store = await place.serve()
    worker = await place.join(store)
    ann, bob = await sign_up(store, "ann"), await sign_up(worker, "bob")
    for n in range(1, 11):
        writer, reader = (store, worker) if n % 2 else (worker, store)
        written = await writer.send(private(ann, bob))
        assert [head.seq for head in await reader.heads([own(bob)])] == [n]
        assert [f.message for f in await reader.read([Start(own(bob), n - 1)], 10)] == [written.value]


@pytest.mark.logged
async def test_a_position_of_one_process_is_the_others_at_once(place: LoggedPlace) -> None:
    """What one process acknowledged is in the other's `latest` and `position`, and it was so in its own."""
    store = await place.serve()
    worker = await place.join(store)
    ann, bob = await sign_up(store, "ann"), await sign_up(worker, "bob")
    for n in range(1, 11):
        writer, reader = (store, worker) if n % 2 else (worker, store)
        written = await writer.send(private(ann, bob))
        assert writer.latest() == reader.latest() == await reader.position() == written.batch.last
