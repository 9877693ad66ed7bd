"""The store on DynamoDB beyond the contract: several nodes at one mailbox, lost answers, throttling, crashes between.

A node speaks to the server through a door that does to their talk what the test says (tests/standin/between.py).
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import pytest

from tests.backends import DynamoPlace, gather_group, key, mailbox, private, sign_up, to_group
from tests.standin.between import Between, Talk, clash, fail, hush, hush_and_forget, lose, throttle, times
from tidings.errors import Conflict, KeyReused, Refused, StoreUnavailable
from tidings.model import Group, Key, Message, Posted, Start, User, mint, own, room, sent
from tidings.store.dynamodb import DynamoStore

pytest_plugins = ("tests.opened", "tests.standin.opened")
pytestmark = pytest.mark.anyio

PUTS = ("PutItem", "TransactWriteItems")
MANY = 600  # messages: some are put together, and both nodes meet each other's


@pytest.mark.parametrize("is_private", [True, False])
async def test_two_nodes_at_one_mailbox_leave_no_hole(tables: DynamoPlace, is_private: bool) -> None:
    """Many messages to one mailbox through two nodes at once: each there once, in seqs without a hole.

    (Ten thousand, through nodes that hear each other: tests/test_nodes_at_once.py.)
    """
    nodes = [await tables.serve(write_wait_s=300) for _ in range(2)]
    ann, bob = await sign_up(nodes[0], "ann"), await sign_up(nodes[1], "bob")
    group = await gather_group(nodes[0], ann, bob)
    drafts = [
        (node, private(ann, bob, str(n)) if is_private else to_group(ann, group, str(n)))
        for n in range(MANY // 2)
        for node in nodes
    ]
    written = await asyncio.gather(*(node.send(draft) for node, draft in drafts))
    assert [w.value.message_id for w in written] == [draft.message_id for _, draft in drafts]
    found = await mailbox(nodes[0], own(bob) if is_private else room(group))
    assert sorted(m.seq for m in found) == sorted(w.value.seq for w in written) == list(range(1, MANY + 1))
    assert {m.seq: m for m in found} == {w.value.seq: w.value for w in written}
    assert tables.meter.conflicts > 0
    if is_private:
        copies = await mailbox(nodes[1], sent(ann))
        assert sorted(m.message_id for m in copies) == sorted(m.message_id for m in found)


LOST: dict[str, Callable[[Talk], None]] = {
    "done, unanswered": hush,
    "done, unanswered, forgotten": hush_and_forget,
    "done, said to have failed": fail,
    "never arrived": lose,
    "throttled": throttle,
}


@pytest.mark.parametrize("fault", LOST.values(), ids=list(LOST))
@pytest.mark.parametrize("keyed", [False, True])
async def test_a_send_is_done_once_whatever_becomes_of_its_calls(
    here: DynamoStore, door: Between, fault: Callable[[Talk], None], keyed: bool
) -> None:
    """The first two answers of each kind of put are lost, or never given: the sends succeed, and are there once."""
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    group = await gather_group(here, ann)
    for n, draft in enumerate((private(ann, bob), to_group(ann, group), private(ann, ann), private(ann, bob))):
        door.fault = times(2, fault, *PUTS)
        written = await here.send(draft, key(str(n)) if keyed else None)
        assert written.value.message_id == draft.message_id
        (news,) = written.batch.changes
        assert isinstance(news, Posted)
        assert news.message == written.value
    assert len(await mailbox(here, own(bob))) == 2
    assert len(await mailbox(here, sent(ann))) == 2
    assert len(await mailbox(here, room(group))) == len(await mailbox(here, own(ann))) == 1


@pytest.mark.parametrize("fault", LOST.values(), ids=list(LOST))
@pytest.mark.parametrize("keyed", [False, True])
async def test_a_change_is_done_once_whatever_becomes_of_its_calls(
    here: DynamoStore, door: Between, fault: Callable[[Talk], None], keyed: bool
) -> None:
    """Sign-up, group, block, joining, leaving: none is told a conflict with itself. (Unblocking rests on the token.)"""

    def keys(name: str) -> Key | None:
        door.fault = times(1, fault, *PUTS)
        return key(name) if keyed else None

    ann = (await here.create_user(User(mint("user"), "ann"), keys("ann"))).value.user_id
    bob = (await here.create_user(User(mint("user"), "bob"), keys("bob"))).value.user_id
    group = (await here.create_group(Group(mint("group"), "friends"), keys("group"))).value.group_id
    await here.block(ann, bob, keys("block"))
    await here.add_member(group, ann, keys("add"))
    await here.remove_member(group, ann, keys("remove"))
    if keyed or fault is not hush_and_forget:
        await here.unblock(ann, bob, keys("unblock"))
    for again in (here.remove_member(group, ann), here.unblock(bob, ann)):
        with pytest.raises(Conflict):
            await again


async def test_who_was_overtaken_goes_behind(here: DynamoStore, there: DynamoStore, door: Between) -> None:
    """The answer to Ann's put is lost, and Bob writes behind it before she asks again: hers stays where it is."""
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    group = await gather_group(here, ann, bob)
    overtaking: list[asyncio.Task[object]] = []

    def overtake(talk: Talk) -> None:
        hush(talk)
        overtaking.append(asyncio.create_task(there.send(to_group(bob, group, "second"))))

    door.fault = times(1, overtake, "PutItem")
    first = await here.send(to_group(ann, group, "first"))
    await asyncio.gather(*overtaking)
    assert first.value.seq == 1
    assert [m.message for m in await mailbox(there, room(group))] == ["first", "second"]


async def test_transactions_that_clash_are_tried_again(here: DynamoStore, door: Between) -> None:
    """The server cancels a transaction because of another one: nobody is told, and it is done in the end."""
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    door.fault = times(3, clash, "TransactWriteItems")
    assert (await here.send(private(ann, bob))).value.seq == 1
    assert door.seen.count("TransactWriteItems") == 4


@pytest.mark.parametrize("fault", LOST.values(), ids=list(LOST))
async def test_an_outcome_that_stays_unknown_is_found_out_by_its_key(
    tables: DynamoPlace, there: DynamoStore, door: Between, fault: Callable[[Talk], None]
) -> None:
    """No put of one node is ever answered: Ann is told so, with when to come back. Her key, elsewhere, finds the truth.

    Others write meanwhile. Whether her message was stored or not, there is one of it in the end.
    """
    ann, bob, carol = [await sign_up(there, name) for name in ("ann", "bob", "carol")]
    await there.send(private(carol, bob))
    here = await tables.serve(through=door.url, write_wait_s=0.3)
    door.fault = times(1_000, fault, "TransactWriteItems")
    with pytest.raises(StoreUnavailable) as caught:
        await here.send(private(ann, bob, "hello"), key("k"))
    assert caught.value.retry_s is not None
    for _ in range(40):
        await there.send(private(carol, bob))
    with pytest.raises(KeyReused):
        await there.send(private(ann, bob, "other"), key("k", "other"))
    again = await asyncio.gather(*(there.send(private(ann, bob, "hello"), key("k")) for _ in range(5)))
    (found,) = [m for m in await mailbox(there, own(bob)) if m.sender_id == ann]
    assert {a.value for a in again} == {found}
    assert found.seq == (2 if fault in (hush, hush_and_forget, fail) else 42)
    (copy,) = await mailbox(there, sent(ann))
    assert copy.message_id == found.message_id
    assert all(a.batch.changes == (Posted(0, own(bob), found, 1),) for a in again)


async def test_nothing_lasts_longer_than_it_may(tables: DynamoPlace, door: Between) -> None:
    """A server that only throttles: writes, sends and reads end in time, each with when to come back."""
    good = await tables.serve()
    ann, bob = await sign_up(good, "ann"), await sign_up(good, "bob")
    here = await tables.serve(through=door.url, write_wait_s=0.2, read_wait_s=0.2)
    door.fault = throttle
    for call in (
        here.send(private(ann, bob)),
        here.block(ann, bob),
        here.find_profile(ann),
        here.heads([own(ann)]),
        here.read([Start(own(ann)), Start(sent(ann))], 10),
        here.members("group-x", "", 10),
        here.floor(),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            await call
        assert (caught.value.code, caught.value.retry_s is not None) == ("store_unavailable", True)
    door.fault = lambda _: None
    assert (await here.send(private(ann, bob))).value.seq == 1


@pytest.mark.parametrize("seed", range(3))
async def test_messages_and_keys_survive_a_bad_line(tables: DynamoPlace, door: Between, seed: int) -> None:
    """A fifth of the calls is lost, unanswered or throttled; senders repeat until told: all is there once."""
    good = await tables.serve()
    users = [await sign_up(good, name) for name in ("ann", "bob", "carol", "eve")]
    group = await gather_group(good, *users)
    nodes = [await tables.serve(through=door.url, write_wait_s=0.5) for _ in range(2)]
    chance = random.Random(seed)

    def fault(talk: Talk) -> None:
        if chance.random() < 0.2:
            chance.choice((hush, hush_and_forget, lose, throttle))(talk)

    door.fault = fault

    async def insist(n: int) -> Message:
        sender, receiver = users[n % 4], users[n // 4 % 4]
        while True:
            draft = to_group(sender, group, str(n)) if n % 3 == 0 else private(sender, receiver, str(n))
            try:
                return (await chance.choice(nodes).send(draft, key(str(n)))).value
            except StoreUnavailable:
                continue

    told = await asyncio.gather(*(insist(n) for n in range(150)))
    door.fault = lambda _: None
    stored = [m for name in [*map(own, users), room(group)] for m in await mailbox(good, name)]
    assert Counter(m.message for m in stored) == Counter(str(n) for n in range(150))
    assert {m.message_id: m for m in stored} == {m.message_id: m for m in told}
    copies = [m.message_id for user in users for m in await mailbox(good, sent(user))]
    private_ones = [m.message_id for m in stored if m.recipient_id in users and m.recipient_id != m.sender_id]
    assert sorted(copies) == sorted(private_ones)


@pytest.mark.parametrize("is_private", [True, False])
async def test_nothing_is_taken_past_a_block_that_is_answered(
    here: DynamoStore, door: Between, is_private: bool
) -> None:
    """Ann's send was checked, and its put is held up, when Bob blocks her (or she is removed) on the same node.

    He is answered once hers has ended; nothing that is stored later is hers.
    """
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    group = await gather_group(here, ann, bob)
    draft, name = (private(ann, bob), own(bob)) if is_private else (to_group(ann, group), room(group))
    await here.send(draft)
    begun = asyncio.Event()

    def hold_up(talk: Talk) -> None:
        if "box" in str(talk.request) and talk.operation in PUTS and not begun.is_set():
            begun.set()
            throttle(talk)

    door.fault = hold_up
    sending = asyncio.ensure_future(here.send(private(ann, bob) if is_private else to_group(ann, group)))
    await begun.wait()
    await (here.block(bob, ann) if is_private else here.remove_member(group, ann))
    assert sending.done()
    stored = await mailbox(here, name)
    with pytest.raises(Refused):
        await here.send(private(ann, bob) if is_private else to_group(ann, group))
    await asyncio.wait((sending,))
    assert await mailbox(here, name) == stored


async def test_a_put_that_is_held_up_is_decided_by_the_rights_of_then(
    here: DynamoStore, there: DynamoStore, door: Between
) -> None:
    """Ann's put is throttled until Bob has blocked her on another node: she is refused, within a second or so."""
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    await here.send(private(ann, bob))
    begun = asyncio.Event()

    def hold_up(talk: Talk) -> None:
        if talk.operation == "TransactWriteItems":
            begun.set()
            throttle(talk)

    door.fault = hold_up
    sending = asyncio.ensure_future(here.send(private(ann, bob)))
    await begun.wait()
    await there.block(bob, ann)
    with pytest.raises(Refused):
        await sending
    assert len(await mailbox(there, own(bob))) == 1


async def test_what_the_feed_tells_spares_a_conflict(
    tables: DynamoPlace, here: DynamoStore, there: DynamoStore, door: Between
) -> None:
    """A node that is told of another's message puts behind it at once; one that is not finds it in its place."""
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    await here.send(private(ann, bob))
    for n in range(3):
        written = await there.send(private(ann, bob))
        here.learn(written.batch)
        here.learn(written.batch)  # repeated, or late, it does no harm
        written = await here.send(private(ann, bob))
        assert written.value.seq == 2 * n + 3
        there.learn(written.batch)
    assert tables.meter.conflicts == 0
    await there.send(private(ann, bob))
    assert (await here.send(private(ann, bob))).value.seq == 9
    assert tables.meter.conflicts == 1


async def test_news_that_comes_between_hides_no_key(there: DynamoStore, here: DynamoStore, door: Between) -> None:
    """While a keyed send is on its way, its repeat is stored through another node, and told: there is one message."""
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    await here.send(private(ann, bob))
    elsewhere: list[Message] = []

    async def overtake() -> None:
        written = await there.send(private(ann, bob), key("k"))
        here.learn(written.batch)
        elsewhere.append(written.value)

    def fault(talk: Talk) -> None:
        talk.first = overtake()

    door.fault = times(1, fault, "TransactWriteItems")
    assert (await here.send(private(ann, bob), key("k"))).value == elsewhere[0]
    assert len(await mailbox(here, own(bob))) == 2


async def test_who_looks_for_one_key_looks_for_all(tables: DynamoPlace, there: DynamoStore, door: Between) -> None:
    """Two keyed sends go together: one's key is old, so slots are read for it. Meanwhile the other is stored elsewhere.

    What is read on the way is looked at for both: each is there once.
    """
    ann, bob = await sign_up(there, "ann"), await sign_up(there, "bob")
    here, cut_off = await tables.serve(through=door.url), await tables.serve(through=door.url, write_wait_s=0.3)
    door.fault = times(1_000, lose, "TransactWriteItems")
    with pytest.raises(StoreUnavailable):
        await cut_off.send(private(ann, bob, "old"), key("old"))  # the key is there, the message is not
    door.fault = lambda _: None
    for _ in range(3):
        await here.send(private(ann, bob))
    elsewhere: list[Message] = []

    async def overtake() -> None:
        elsewhere.append((await there.send(private(ann, bob, "new"), key("new"))).value)

    def fault(talk: Talk) -> None:
        talk.first = overtake()

    door.fault = times(1, fault, "Query")
    old, new = await asyncio.gather(
        here.send(private(ann, bob, "old"), key("old")), here.send(private(ann, bob, "new"), key("new"))
    )
    assert new.value == elsewhere[0]
    assert [m.message for m in await mailbox(here, own(bob))] == ["hello"] * 3 + ["new", "old"]
    assert old.value.seq == 5
