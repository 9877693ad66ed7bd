"""The contract of a store, held against every backend: who is there, what is allowed, what a refusal leaves.

The module's words in `tidings/store/__init__.py` are the list. Its other parts: `test_store_log.py` (order, group
commit, reading), `test_store_once.py` (idempotency keys), `test_store_history.py` (durability, runs, processes).
"""

import asyncio
from collections.abc import Awaitable

import pytest

from tests.backends import Place, gather_group, private, sign_up, to_group
from tidings.errors import Conflict, Refused, TidingsError, TooMany, Unavailable, Unknown
from tidings.model import NO_HEAD, Group, Posted, Start, User, mint, own, room, sent
from tidings.store import Store

pytest_plugins = "tests.opened"
pytestmark = [pytest.mark.anyio, pytest.mark.written]

EDGES = ["\0", "a\0b", "🜁 日本 ž", "'; DROP TABLE users; --", "\u202e\ufeff", "x" * 16_384, "\U0010ffff" * 4_096]


async def refusal(write: Awaitable[object]) -> TidingsError:
    """The error that a write raises."""
    with pytest.raises(TidingsError) as caught:
        await write
    return caught.value


async def test_a_user_is_found_with_nothing_around_them(store: Store) -> None:
    """Ann signs up: her profile has her name, no membership, no block, and her mailboxes were never written to."""
    ann = User(mint("user"), "ann")
    assert (await store.create_user(ann)).value == ann
    profile = await store.find_profile(ann.user_id)
    assert profile is not None
    assert (profile.user, profile.memberships) == (ann, ())
    assert await store.blocks(ann.user_id) == []
    assert await store.heads([own(ann.user_id), sent(ann.user_id)]) == [NO_HEAD, NO_HEAD]


async def test_names_are_not_unique(store: Store) -> None:
    """Two users and two groups of one name live side by side."""
    first, second = await sign_up(store, "ann"), await sign_up(store, "ann")
    profiles = [await store.find_profile(first), await store.find_profile(second)]
    assert [p and p.user for p in profiles] == [User(first, "ann"), User(second, "ann")]
    groups = [Group(mint("group"), "friends"), Group(mint("group"), "friends")]
    for group in groups:
        await store.create_group(group)
    assert [await store.find_group(group.group_id) for group in groups] == groups


async def test_a_group_starts_empty(store: Store) -> None:
    """A new group is found, has no members, and its mailbox was never written to."""
    group = Group(mint("group"), "friends")
    assert (await store.create_group(group)).value == group
    assert await store.find_group(group.group_id) == group
    assert await store.members(group.group_id, "", 10) == []
    assert await store.heads([room(group.group_id)]) == [NO_HEAD]


async def test_the_unknown_is_told_by_find_and_empty_lists(store: Store) -> None:
    """Reads about a user or group that nobody made find nothing and raise nothing."""
    assert await store.find_profile("user-nobody") is None
    assert await store.find_group("group-nowhere") is None
    assert await store.blocks("user-nobody") == []
    assert await store.members("group-nowhere", "", 10) == []
    assert await store.heads(["uuser-nobody", "ggroup-nowhere", "suser-nobody"]) == [NO_HEAD] * 3
    assert await store.heads([]) == []
    assert await store.read([Start("uuser-nobody"), Start("ggroup-nowhere", time=5)], 10) == []
    assert await store.read_before("uuser-nobody", 10, 10) == []


async def test_a_name_comes_back_as_it_was(store: Store) -> None:
    """Names with NULs, quotes, emoji and the last code point are stored letter by letter."""
    for text in EDGES:
        user_id = await sign_up(store, text)
        group = Group(mint("group"), text)
        await store.create_group(group)
        await store.add_member(group.group_id, user_id)
        profile = await store.find_profile(user_id)
        assert profile is not None
        assert (profile.user.username, profile.memberships[0].group_name) == (text, text)
        assert await store.members(group.group_id, "", 10) == [User(user_id, text)]


async def test_a_message_comes_back_as_it_was(store: Store, ann: str, bob: str) -> None:
    """Texts with NULs, quotes, emoji and 16 KiB are the same in the answer, the mailbox, the copy and the news."""
    for text in EDGES:
        written = await store.send(private(ann, bob, text))
        last = written.value.seq - 1
        found = await store.read([Start(own(bob), last), Start(sent(ann), last)], 10)
        assert [f.message.message for f in found] == [text, text]
        assert written.value.message == text
        (news,) = written.batch.changes
        assert isinstance(news, Posted)
        assert (news.mailbox, news.message, news.sent_seq) == (own(bob), written.value, written.value.seq)


async def test_blocks_are_listed_in_order_and_taken_back(store: Store, ann: str, bob: str, carol: str) -> None:
    """Ann blocks Carol and Bob and takes one back: her list holds what is so now, in order of ids; Bob's nothing."""
    await store.block(ann, carol)
    await store.block(ann, bob)
    assert await store.blocks(ann) == sorted([bob, carol])
    await store.unblock(ann, bob)
    assert await store.blocks(ann) == [carol]
    assert await store.blocks(bob) == []


async def test_a_block_is_set_and_unset_once(store: Store, ann: str, bob: str) -> None:
    """Blocking the blocked and unblocking the unblocked are conflicts, each with its code."""
    assert (await refusal(store.unblock(ann, bob))).code == "not_blocked"
    await store.block(ann, bob)
    error = await refusal(store.block(ann, bob))
    assert (type(error), error.code) == (Conflict, "already_blocked")
    await store.unblock(ann, bob)
    assert (await refusal(store.unblock(ann, bob))).code == "not_blocked"


async def test_block_asks_for_the_user_then_the_other(store: Store, ann: str) -> None:
    """Of two unknown users the first is named; a known one's unknown other is named before any conflict."""
    for change in (store.block, store.unblock):
        error = await refusal(change("user-nobody", "user-noone"))
        assert (type(error), error.code) == (Unknown, "unknown_user")
        assert "user-nobody" in error.detail
        assert "user-noone" in (await refusal(change(ann, "user-noone"))).detail
        assert "user-nobody" in (await refusal(change("user-nobody", ann))).detail


async def test_a_blocked_sender_is_refused(store: Store, ann: str, bob: str) -> None:
    """Bob blocks Ann: her private message is refused, his to her is not, and hers is taken once the block is gone."""
    await store.block(bob, ann)
    error = await refusal(store.send(private(ann, bob)))
    assert (type(error), error.code) == (Refused, "blocked")
    assert (await store.send(private(bob, ann))).value.seq == 1
    await store.unblock(bob, ann)
    assert (await store.send(private(ann, bob))).value.seq == 1


async def test_a_block_spares_the_groups(store: Store, ann: str, bob: str) -> None:
    """Bob blocks Ann: what she writes to their group is taken all the same."""
    group = await gather_group(store, ann, bob)
    await store.block(bob, ann)
    assert (await store.send(to_group(ann, group))).value.seq == 1


async def test_who_blocks_themselves_is_refused_by_themselves(store: Store, ann: str) -> None:
    """Ann may write to herself until she blocks herself."""
    assert (await store.send(private(ann, ann))).value.seq == 1
    await store.block(ann, ann)
    assert (await refusal(store.send(private(ann, ann)))).code == "blocked"


async def test_a_private_send_asks_for_the_receiver_then_the_sender(store: Store, ann: str) -> None:
    """With both unknown the receiver is named; with a known receiver, the sender."""
    assert "user-noone" in (await refusal(store.send(private("user-nobody", "user-noone")))).detail
    error = await refusal(store.send(private("user-nobody", ann)))
    assert (type(error), error.code) == (Unknown, "unknown_user")
    assert "user-nobody" in error.detail


async def test_a_group_send_asks_for_the_sender_the_group_then_the_membership(store: Store, ann: str) -> None:
    """Each is refused in its turn: unknown sender, unknown group, no membership."""
    group = await gather_group(store)
    assert (await refusal(store.send(to_group("user-nobody", "group-nowhere")))).code == "unknown_user"
    assert (await refusal(store.send(to_group(ann, "group-nowhere")))).code == "unknown_group"
    error = await refusal(store.send(to_group(ann, group)))
    assert (type(error), error.code) == (Refused, "not_a_member")


async def test_an_id_is_taken_whole(store: Store, ann: str, bob: str) -> None:
    """An id with a NUL, a space or a letter more, or in capitals, is another id: unknown, whoever it begins with."""
    group = await gather_group(store, ann)
    for twist in (lambda i: i + "\0", lambda i: i + "\0x", lambda i: i + " ", lambda i: i[:-1], str.upper):
        assert (await refusal(store.send(private(ann, twist(bob))))).code == "unknown_user"
        assert (await refusal(store.send(private(twist(ann), bob)))).code == "unknown_user"
        assert (await refusal(store.send(to_group(twist(ann), group)))).code == "unknown_user"
        assert (await refusal(store.send(to_group(ann, twist(group))))).code == "unknown_group"
        assert (await refusal(store.block(ann, twist(bob)))).code == "unknown_user"
        assert (await refusal(store.add_member(group, twist(bob)))).code == "unknown_user"
        assert await store.find_profile(twist(ann)) is None


async def test_adding_and_removing_ask_for_the_group_then_the_user(store: Store, ann: str) -> None:
    """Each is refused in its turn: unknown group, unknown user, then what is so already."""
    group = await gather_group(store)
    for change in (store.add_member, store.remove_member):
        assert (await refusal(change("group-nowhere", "user-nobody"))).code == "unknown_group"
        assert (await refusal(change(group, "user-nobody"))).code == "unknown_user"
    assert (await refusal(store.remove_member(group, ann))).code == "not_a_member_of_it"
    await store.add_member(group, ann)
    error = await refusal(store.add_member(group, ann))
    assert (type(error), error.code) == (Conflict, "already_a_member")


async def test_a_removed_member_writes_no_more(store: Store, ann: str) -> None:
    """Once Ann's removal returned, no send of hers to the group is taken."""
    group = await gather_group(store, ann)
    await store.send(to_group(ann, group))
    await store.remove_member(group, ann)
    assert (await refusal(store.send(to_group(ann, group)))).code == "not_a_member"


async def test_each_joining_is_a_membership_of_its_own(store: Store, ann: str, bob: str) -> None:
    """Ann leaves and comes back: her new membership has a new key and the group's head of that moment."""
    group = await gather_group(store, ann, bob)
    before = await store.find_profile(ann)
    await store.send(to_group(bob, group))
    await store.remove_member(group, ann)
    await store.send(to_group(bob, group))
    await store.add_member(group, ann)
    after = await store.find_profile(ann)
    assert before is not None
    assert after is not None
    (old,), (new,) = before.memberships, after.memberships
    assert (old.joined_seq, new.joined_seq) == (0, 2)
    assert old.key != new.key
    assert -(1 << 63) <= new.key < 1 << 63


async def test_memberships_are_given_in_the_order_of_group_ids(store: Store, ann: str) -> None:
    """Ann joins three groups in no order; her profile lists them by id, each under a key of its own."""
    groups = [await gather_group(store) for _ in range(3)]
    for group in (groups[2], groups[0], groups[1]):
        await store.add_member(group, ann)
    profile = await store.find_profile(ann)
    assert profile is not None
    assert [m.group_id for m in profile.memberships] == sorted(groups)
    assert len({m.key for m in profile.memberships}) == 3


async def test_members_are_paged_by_id(store: Store) -> None:
    """Every page size gives all members once, in the order of ids, `after` exclusive."""
    users = sorted([await sign_up(store, name) for name in ("carol", "ann", "eve", "bob", "ann")])
    group = await gather_group(store, *users)
    for limit in range(1, 7):
        listed: list[str] = []
        while page := await store.members(group, listed[-1] if listed else "", limit):
            assert len(page) <= limit
            listed += [user.user_id for user in page]
        assert listed == users


async def test_a_copy_is_kept_of_private_messages_to_others_only(store: Store, ann: str, bob: str) -> None:
    """Of Ann's messages to Bob, to a group and to herself, only the first leaves a copy, marked and numbered so."""
    group = await gather_group(store, ann)
    to_bob = (await store.send(private(ann, bob))).value
    await store.send(to_group(ann, group))
    await store.send(private(ann, ann))
    (copy,) = await store.read([Start(sent(ann))], 10)
    assert copy.message.sent
    assert (copy.message.message_id, copy.message.recipient_id) == (to_bob.message_id, bob)
    assert (copy.message.seq, copy.message.timestamp) == (1, to_bob.timestamp)


async def test_copies_can_be_turned_off(place: Place) -> None:
    """With the setting off, a private message leaves no copy."""
    store = await place.serve(sent_copies=False)
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    written = await store.send(private(ann, bob))
    assert [f.message for f in await store.read([Start(own(bob)), Start(sent(ann))], 10)] == [written.value]


async def test_the_limits_on_what_is_stored_are_told_apart(place: Place) -> None:
    """One group, one block, one member are all that is allowed here: each second is a conflict with its own code."""
    store = await place.serve(groups_per_user_max=1, blocks_per_user_max=1, members_per_group_max=1)
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    full = await gather_group(store, ann)
    empty = await gather_group(store)
    await store.block(ann, bob)
    assert (await refusal(store.add_member(full, bob))).code == "group_full"
    assert (await refusal(store.add_member(empty, ann))).code == "too_many_groups"
    assert (await refusal(store.block(ann, ann))).code == "too_many_blocks"
    await store.remove_member(full, ann)
    await store.unblock(ann, bob)
    await store.add_member(full, bob)
    await store.add_member(empty, ann)
    await store.block(ann, ann)


async def test_a_refusal_changes_nothing(store: Store, ann: str, bob: str) -> None:
    """After every kind of refusal position, heads, members and blocks are what they were."""
    group = await gather_group(store, bob)
    await store.block(bob, ann)
    state = await store.position(), await store.heads([own(bob), sent(ann), room(group)]), await store.blocks(bob)
    for write in (
        store.send(private(ann, bob)),
        store.send(private(ann, "user-noone")),
        store.send(to_group(ann, group)),
        store.block(bob, ann),
        store.add_member(group, bob),
        store.remove_member(group, ann),
    ):
        await refusal(write)
    after = await store.position(), await store.heads([own(bob), sent(ann), room(group)]), await store.blocks(bob)
    assert after == state
    assert [user.user_id for user in await store.members(group, "", 10)] == [bob]


async def test_a_write_that_fails_spoils_no_other(store: Store, ann: str, bob: str) -> None:
    """Somebody's sign-up under an id that is taken fails; the sends and sign-ups that waited with it are all kept."""
    outcomes = await asyncio.gather(
        *(store.send(private(ann, bob, str(n))) for n in range(10)),
        store.create_user(User(ann, "eve")),
        *(store.send(private(bob, ann, str(n))) for n in range(10)),
        sign_up(store, "carol"),
        return_exceptions=True,
    )
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert [isinstance(error, TidingsError) for error in errors] == [True]
    assert [head.seq for head in await store.heads([own(ann), own(bob)])] == [10, 10]
    profile = await store.find_profile(ann)
    assert profile is not None
    assert profile.user.username == "ann"


async def test_a_crowded_mailbox_is_busy(place: Place) -> None:
    """Three may wait for a mailbox here: of ten sends at once some are refused for now, the rest are kept in order."""
    store = await place.serve(mailbox_waiting_max=3)
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    group = await gather_group(store, ann, bob)
    outcomes = await asyncio.gather(
        *(store.send(to_group(ann, group, str(n))) for n in range(10)), return_exceptions=True
    )
    refused = [error for error in outcomes if isinstance(error, TooMany)]
    assert {(error.code, error.retry_s is not None) for error in refused} == {("mailbox_busy", True)}
    kept = await store.read([Start(room(group))], 100)
    assert len(kept) == 10 - len(refused) >= 3
    assert (await store.send(to_group(bob, group))).value.seq == len(kept) + 1


async def test_closing_finishes_what_waits_and_refuses_the_rest(place: Place) -> None:
    """Sends under way when the store is closed are durable when they return; one that comes later is refused."""
    store = await place.serve()
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    sends = [asyncio.ensure_future(store.send(private(ann, bob, str(n)))) for n in range(20)]
    late = private(ann, bob, "late")
    _, error = await asyncio.gather(asyncio.gather(*sends, place.leave(store)), refusal_of_later(store, late))
    assert isinstance(error, Unavailable)
    again = await place.serve()
    found = await again.read([Start(own(bob))], 100)
    assert [f.message.message for f in found] == [str(n) for n in range(20)]


async def refusal_of_later(store: Store, draft: object) -> TidingsError:
    """What a send is told once the store is closing."""
    return await refusal(store.send(draft))  # type: ignore[arg-type]
