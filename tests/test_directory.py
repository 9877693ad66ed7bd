"""The directory: bounded, loaded once by many who ask at once, and never older than the news, whenever that comes."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from tests.backends import LoggedPlace, gather_group, private, sign_up, to_group
from tests.nodes import interpose
from tidings.directory import Directory
from tidings.errors import Unknown
from tidings.model import Batch, Change, Head, Message, Posted, User, mint, own, room, sent
from tidings.store import LoggedStore

pytest_plugins = "tests.opened"
pytestmark = [pytest.mark.anyio, pytest.mark.logged]


@pytest.fixture
def directory(store: LoggedStore) -> Directory:
    """A directory with room for three users and four heads."""
    return Directory(store, max_users=3, max_heads=4)


async def meanwhile(place: LoggedPlace, call: str, asked: Awaitable[object], news: Callable[[], None]) -> object:
    """What is asked, while `news` comes in just as its first store call of that name begins."""

    def once(name: str) -> None:
        if name == call:
            place.meter.on_call = None
            news()

    place.meter.on_call = once
    answer = await asked
    assert place.meter.on_call is None, "nothing was asked of the store"
    return answer


async def test_many_who_ask_at_once_make_one_load(place: LoggedPlace, directory: Directory, ann: str) -> None:
    """Twenty ask for Ann and for her heads at once: the store is asked once for each, and later not at all."""
    entries = await asyncio.gather(*(directory.entry(ann) for _ in range(20)))
    assert {entry.profile.user.username for entry in entries} == {"ann"}
    mailboxes = entries[0].mailboxes_with_sent
    heads = await asyncio.gather(*(directory.heads(mailboxes) for _ in range(20)))
    assert all(head == heads[0] for head in heads)
    assert (place.meter.calls["profile"], place.meter.calls["heads"]) == (1, 1)
    await directory.entry(ann)
    await directory.heads(mailboxes)
    assert (place.meter.calls["profile"], place.meter.calls["heads"]) == (1, 1)


async def test_an_entry_names_the_mailboxes_of_now(store: LoggedStore, directory: Directory, ann: str) -> None:
    """Ann's entry: her own mailbox, her groups', with or without her copies; and another digest for each such set."""
    alone = await directory.entry(ann)
    assert (alone.mailboxes, alone.mailboxes_with_sent) == ((own(ann),), (own(ann), sent(ann)))
    group = (await gather_group(store), await gather_group(store))[1]
    directory.apply((await store.add_member(group, ann)).batch)
    inside = await directory.entry(ann)
    assert inside.mailboxes == (room(group), own(ann))
    membership = inside.membership(group)
    assert membership is not None
    assert membership.group_id == group
    assert inside.membership("group-nowhere") is None
    digests = {alone.digest, alone.digest_with_sent, inside.digest, inside.digest_with_sent}
    assert len(digests) == 4


async def test_news_of_a_user_drops_the_entry(store: LoggedStore, directory: Directory, ann: str, bob: str) -> None:
    """Ann joins a group: her entry is gone until it is asked for, Bob's is untouched."""
    await directory.entry(ann)
    before = await directory.entry(bob)
    group = await gather_group(store)
    directory.apply((await store.add_member(group, ann)).batch)
    assert directory.find(ann) is None
    assert directory.find(bob) is before
    assert (await directory.entry(ann)).membership(group)


async def test_news_during_a_load_makes_it_be_done_again(
    place: LoggedPlace, store: LoggedStore, directory: Directory, ann: str
) -> None:
    """While Ann's entry is being read, news of her comes in: it is read once more before anybody gets it."""
    batch = (await store.add_member(await gather_group(store), ann)).batch
    await meanwhile(place, "profile", directory.entry(ann), partial(directory.apply, batch))
    assert place.meter.calls["profile"] == 2
    assert directory.find(ann) is not None


async def test_a_reset_during_a_load_makes_it_be_done_again(place: LoggedPlace, directory: Directory, ann: str) -> None:
    """The feed breaks off while Ann's entry is being read: what was read may be older than the new beginning."""
    await meanwhile(place, "profile", directory.entry(ann), partial(directory.reset, 9))
    assert place.meter.calls["profile"] == 2


def told(mailbox: str, seq: int, sent_seq: int = 0, sender: str = "user-nobody") -> Batch:
    """The news that a message with this seq was posted; its timestamp is ten times that."""
    message = Message(sender, "hello", mailbox[1:], str(10 * seq), "message-1", seq)
    return Batch(0, 1, (Posted(1, mailbox, message, sent_seq),))


async def test_news_during_a_load_of_heads_moves_them_on(
    place: LoggedPlace, store: LoggedStore, directory: Directory, ann: str, bob: str
) -> None:
    """Of what is read and what the news says meanwhile, the later head is given, and kept."""
    for _ in range(3):
        await store.send(private(ann, bob))
    (now,) = await store.heads([own(bob)])
    for seq, expected in ((1, now), (3, now), (5, Head(5, 50))):
        directory.reset(0)
        news = told(own(bob), seq)
        heads = await meanwhile(place, "heads", directory.heads([own(bob)]), partial(directory.apply, news))
        assert heads == {own(bob): expected}
        assert directory.find_head(own(bob)) == expected


async def test_heads_read_before_a_reset_are_not_kept(
    place: LoggedPlace, store: LoggedStore, directory: Directory, ann: str, bob: str
) -> None:
    """The feed breaks off while heads are read: they are given, but the next who asks has them read anew."""
    await store.send(private(ann, bob))
    heads = await meanwhile(place, "heads", directory.heads([own(bob)]), partial(directory.reset, 9))
    assert isinstance(heads, dict)
    assert heads[own(bob)].seq == 1
    assert directory.find_head(own(bob)) is None
    assert (await directory.heads([own(bob)]))[own(bob)].seq == 1


async def test_news_moves_the_heads_that_are_held(store: LoggedStore, directory: Directory, ann: str, bob: str) -> None:
    """A message moves the heads of its mailbox and of its sender's copies; heads not held are not made up."""
    await directory.heads([own(bob), sent(ann)])
    directory.apply((await store.send(private(ann, bob))).batch)
    assert [directory.find_head(m) for m in (own(bob), sent(ann))] == await store.heads([own(bob), sent(ann)])
    directory.apply((await store.send(private(bob, ann))).batch)
    assert directory.find_head(own(ann)) is None
    assert directory.find_head(sent(bob)) is None


async def test_a_head_read_ahead_of_the_news_does_not_go_back(
    store: LoggedStore, directory: Directory, ann: str, bob: str
) -> None:
    """Heads were read after a commit whose news comes only then: the news takes nothing back."""
    first = await store.send(private(ann, bob))
    second = await store.send(private(ann, bob))
    await directory.heads([own(bob)])
    for written in (first, second):
        directory.apply(written.batch)
        head = directory.find_head(own(bob))
        assert head is not None
        assert head.seq == 2


async def test_the_least_recently_used_leave(store: LoggedStore, directory: Directory, ann: str, bob: str) -> None:
    """There is room for three users and four heads: who was not asked for the longest makes room."""
    others = [await sign_up(store, name) for name in ("carol", "eve")]
    for user in (ann, bob, others[0], ann, others[1]):
        await directory.entry(user)
    assert directory.users == 3
    assert [directory.find(user) is not None for user in (ann, bob, *others)] == [True, False, True, True]
    for user in (ann, bob, *others):
        await directory.heads([own(user)])
    await directory.heads([own(ann)])
    await directory.heads([sent(ann)])
    assert directory.heads_held == 4
    assert [directory.find_head(own(user)) is not None for user in (ann, bob, *others)] == [True, False, True, True]


async def test_more_heads_than_fit_are_given_all_the_same(store: LoggedStore, directory: Directory, ann: str) -> None:
    """Ann is in more groups than there is room for heads: she is given all, and the room is not exceeded."""
    groups = [await gather_group(store, ann) for _ in range(6)]
    await store.send(to_group(ann, groups[0]))
    mailboxes = (await directory.entry(ann)).mailboxes_with_sent
    heads = await directory.heads(mailboxes)
    assert [heads[m].seq for m in mailboxes] == [1, 0, 0, 0, 0, 0, 0, 0]
    assert directory.heads_held == 4


async def test_an_unknown_user_is_not_remembered_as_such(store: LoggedStore, directory: Directory) -> None:
    """Who was asked for too early is found as soon as they signed up."""
    eve = User(mint("user"), "eve")
    with pytest.raises(Unknown):
        await directory.entry(eve.user_id)
    await store.create_user(eve)
    assert (await directory.entry(eve.user_id)).profile.user == eve


async def test_a_reset_forgets_everything(directory: Directory, ann: str) -> None:
    """After the feed broke off nothing is held that may be wrong."""
    await directory.heads((await directory.entry(ann)).mailboxes)
    directory.reset(9)
    assert (directory.users, directory.heads_held) == (0, 0)
    assert directory.find(ann) is None
    assert directory.find_head(own(ann)) is None


async def test_a_membership_is_of_the_group_that_is_asked_for(
    store: LoggedStore, directory: Directory, ann: str
) -> None:
    """Ann is in three groups: each membership is found as the store has it."""
    groups = [await gather_group(store, ann) for _ in range(3)]
    entry = await directory.entry(ann)
    profile = await store.find_profile(ann)
    assert profile is not None
    assert [entry.membership(m.group_id) for m in profile.memberships] == list(profile.memberships)
    assert {m.group_id for m in profile.memberships} == set(groups)


async def test_a_message_told_late_moves_no_head_back(
    store: LoggedStore, directory: Directory, ann: str, bob: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Bob's head is looked up, two messages come, the first told after the second: his head is the second."""
    changes: list[Change] = []

    async def send_two() -> None:
        for _ in range(2):
            changes.extend((await store.send(private(ann, bob))).batch.changes)
        for change in reversed(changes):
            directory.apply(Batch(0, 9, (change,)))

    interpose(monkeypatch, store, "heads", send_two)
    assert (await directory.heads([own(bob)]))[own(bob)].seq == 2
    directory.apply(Batch(0, 9, tuple(changes[:1])))
    assert (await directory.heads([own(bob)]))[own(bob)].seq == 2
