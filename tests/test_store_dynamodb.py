"""The store on DynamoDB beyond the contract: several nodes at one mailbox, lost answers, throttling, crashes between.

A node speaks to the server through a door that does to their talk what the test says (tests/standin/between.py).
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import pytest

from tests.backends import DynamoPlace, gather_group, key, mailbox, private, sign_up, to_group
from tests.standin.between import Between, Talk, clash, hush, hush_and_forget, lose, throttle, times
from tidings.errors import Conflict, KeyReused, StoreUnavailable
from tidings.model import Group, Key, Message, Posted, Start, User, mint, own, room, sent
from tidings.store.dynamodb import DynamoStore

pytest_plugins = ("tests.opened", "tests.standin.opened")
pytestmark = pytest.mark.anyio

PUTS = ("PutItem", "TransactWriteItems")


@pytest.mark.parametrize("is_private", [True, False])
async def test_two_nodes_at_one_mailbox_leave_no_hole(tables: DynamoPlace, is_private: bool) -> None:
    """Three thousand messages to one mailbox through two nodes at once: each there once, in seqs without a hole."""
    nodes = [await tables.serve(mailbox_waiting_max=2_000, write_wait_s=300) for _ in range(2)]
    ann, bob = await sign_up(nodes[0], "ann"), await sign_up(nodes[1], "bob")
    group = await gather_group(nodes[0], ann, bob)
    drafts = [
        (node, private(ann, bob, str(n)) if is_private else to_group(ann, group, str(n)))
        for n in range(1_500)
        for node in nodes
    ]
    written = await asyncio.gather(*(node.send(draft) for node, draft in drafts))
    assert [w.value.message_id for w in written] == [draft.message_id for _, draft in drafts]
    found = await mailbox(nodes[0], own(bob) if is_private else room(group))
    assert sorted(m.seq for m in found) == sorted(w.value.seq for w in written) == list(range(1, 3_001))
    assert {m.seq: m for m in found} == {w.value.seq: w.value for w in written}
    assert sum(node.conflicts for node in nodes) > 0
    if is_private:
        copies = await mailbox(nodes[1], sent(ann))
        assert sorted(m.message_id for m in copies) == sorted(m.message_id for m in found)


LOST: dict[str, Callable[[Talk], None]] = {
    "done, unanswered": hush,
    "done, unanswered, forgotten": hush_and_forget,
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
    assert found.seq == (2 if fault in (hush, hush_and_forget) else 42)
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


async def test_messages_and_keys_survive_a_bad_line(tables: DynamoPlace, door: Between) -> None:
    """A fifth of the calls is lost, unanswered or throttled; senders repeat until told: all is there once."""
    good = await tables.serve()
    users = [await sign_up(good, name) for name in ("ann", "bob", "carol", "eve")]
    group = await gather_group(good, *users)
    nodes = [await tables.serve(through=door.url, write_wait_s=0.5) for _ in range(2)]
    chance = random.Random(5)

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
