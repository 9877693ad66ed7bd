"""The contract of a store, continued: idempotency keys. Once per intent, whatever the write."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from tests.backends import Place, gather_group, key, private, sign_up, to_group
from tidings.errors import KeyReused, Refused
from tidings.model import Draft, Group, Key, Start, User, Written, mint, own, room, sent
from tidings.store import Store

pytest_plugins = "tests.opened"
pytestmark = [pytest.mark.anyio, pytest.mark.written]


class Scene(msgspec.Struct, frozen=True):
    """What the writes below are about: Ann is in `group`, not in `other`, and blocks Carol."""

    ann: str
    bob: str
    carol: str
    group: str
    other: str


@pytest.fixture
async def scene(store: Store, ann: str, bob: str, carol: str) -> Scene:
    """Users, groups and a block, so that each write can succeed once."""
    made = Scene(ann, bob, carol, await gather_group(store, ann, bob), await gather_group(store))
    await store.block(ann, carol)
    return made


Write = Callable[[Store, Scene, Key], Awaitable[Written[Any]]]
# Each call makes new ids, as two calls over HTTP would: a repeat must give the first call's.
WRITES: dict[str, Write] = {
    "create_user": lambda store, scene, key: store.create_user(User(mint("user"), "eve"), key),
    "create_group": lambda store, scene, key: store.create_group(Group(mint("group"), "friends"), key),
    "block": lambda store, scene, key: store.block(scene.ann, scene.bob, key),
    "unblock": lambda store, scene, key: store.unblock(scene.ann, scene.carol, key),
    "add_member": lambda store, scene, key: store.add_member(scene.other, scene.ann, key),
    "remove_member": lambda store, scene, key: store.remove_member(scene.group, scene.ann, key),
    "send": lambda store, scene, key: store.send(private(scene.ann, scene.bob), key),
    "send to oneself": lambda store, scene, key: store.send(private(scene.ann, scene.ann), key),
    "send to a group": lambda store, scene, key: store.send(to_group(scene.ann, scene.group), key),
}
every_write = pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))


async def state(store: Store, scene: Scene) -> tuple[object, ...]:
    """All that a write of these could change."""
    mailboxes = [own(scene.ann), own(scene.bob), sent(scene.ann), room(scene.group)]
    return (
        await store.position(),
        await store.heads(mailboxes),
        await store.read([Start(mailbox) for mailbox in mailboxes], 100),
        await store.blocks(scene.ann),
        await store.find_profile(scene.ann),
        await store.members(scene.group, "", 10),
        await store.members(scene.other, "", 10),
    )


@every_write
async def test_a_repeat_changes_nothing_and_answers_alike(store: Store, scene: Scene, write: Write) -> None:
    """A write repeated under its key gives the first answer and takes no position.

    It tells no news, but where the first call's may be untold: there it tells the same again.
    """
    first = await write(store, scene, key("k"))
    after = await state(store, scene)
    again = await write(store, scene, key("k"))
    assert again.value == first.value
    assert again.batch.changes in ((), first.batch.changes if again.batch.last == 0 else ())
    assert await state(store, scene) == after


@every_write
async def test_a_key_with_other_content_is_refused(store: Store, scene: Scene, write: Write) -> None:
    """The same key with another content is refused, and changes nothing; under another key it is taken."""
    await store.create_user(User(mint("user"), "eve"), key("k", "this"))
    before = await state(store, scene)
    with pytest.raises(KeyReused) as caught:
        await write(store, scene, key("k", "that"))
    assert caught.value.code == "idempotency_key_reused"
    assert await state(store, scene) == before
    await write(store, scene, key("another", "that"))


@every_write
async def test_twenty_at_once_take_effect_once(store: Store, scene: Scene, write: Write) -> None:
    """Twenty calls under one key, all waiting together: all get one answer, and there is one effect."""
    answers = await asyncio.gather(*(write(store, scene, key("k")) for _ in range(20)))
    assert len({repr(answer.value) for answer in answers}) == 1
    after = await state(store, scene)
    assert (await write(store, scene, key("k"))).value == answers[0].value
    assert await state(store, scene) == after
    changes = {change.position: change for answer in answers for change in answer.batch.changes}
    assert len(changes) <= 1


@every_write
async def test_a_key_lives_on_in_the_store(place: Place, store: Store, scene: Scene, write: Write) -> None:
    """A repeat after the store was closed and opened again, and one through another process, are repeats."""
    first = await write(store, scene, key("k"))
    await place.leave(store)
    again = await place.serve()
    worker = await place.join(again)
    after = await state(again, scene)
    assert (await write(again, scene, key("k"))).value == first.value
    assert (await write(worker, scene, key("k"))).value == first.value
    assert await state(worker, scene) == after


async def test_two_processes_racing_with_one_key_take_effect_once(place: Place, store: Store, scene: Scene) -> None:
    """Ten sends under one key through each of two processes at once: one message, one answer."""
    worker = await place.join(store)
    sends = [node.send(private(scene.ann, scene.bob), key("k")) for _ in range(10) for node in (store, worker)]
    answers = await asyncio.gather(*sends)
    (found,) = await store.read([Start(own(scene.bob))], 10)
    assert {answer.value.message_id for answer in answers} == {found.message.message_id}


async def test_a_refused_call_is_not_remembered(store: Store, scene: Scene) -> None:
    """Ann's keyed send is refused while Bob blocks her; the same call is taken afterwards, and repeated then on."""
    draft = private(scene.ann, scene.bob)
    await store.block(scene.bob, scene.ann)
    with pytest.raises(Refused):
        await store.send(draft, key("k"))
    await store.unblock(scene.bob, scene.ann)
    first = await store.send(draft, key("k"))
    assert first.value.seq == 1
    assert (await store.send(draft, key("k"))).value == first.value


async def test_a_key_refused_for_its_content_is_still_the_first_calls(store: Store, scene: Scene) -> None:
    """After the refusal of other content the key goes on standing for the first call."""
    first = await store.send(private(scene.ann, scene.bob), key("k", "this"))
    with pytest.raises(KeyReused):
        await store.send(private(scene.ann, scene.bob), key("k", "that"))
    assert (await store.send(private(scene.ann, scene.bob), key("k", "this"))).value == first.value


async def test_a_repeat_is_answered_whatever_has_changed_since(store: Store, scene: Scene) -> None:
    """Ann's sends are answered again as they were, though Bob now blocks her and she has left the group."""
    to_bob = await store.send(private(scene.ann, scene.bob), key("p"))
    to_all = await store.send(to_group(scene.ann, scene.group), key("g"))
    await store.block(scene.bob, scene.ann)
    await store.remove_member(scene.group, scene.ann)
    await store.send(to_group(scene.bob, scene.group))
    assert (await store.send(private(scene.ann, scene.bob), key("p"))).value == to_bob.value
    assert (await store.send(to_group(scene.ann, scene.group), key("g"))).value == to_all.value


async def test_without_a_key_the_same_call_is_made_twice(store: Store, scene: Scene) -> None:
    """Two equal sends without key, and two under different keys, are two messages each."""
    for keys in ((None, None), (key("one"), key("two"))):
        draft = Draft(scene.ann, scene.bob, "hello", mint("message"), is_group=False)
        answers = [await store.send(draft, one) for one in keys]
        assert answers[1].value.seq == answers[0].value.seq + 1


async def test_keys_of_one_commit_do_not_mix(store: Store, scene: Scene) -> None:
    """Thirty keyed sends at once, then all of them again: each repeat gets its own first answer."""
    drafts = [private(scene.ann, who, str(n)) for n in range(10) for who in (scene.ann, scene.bob, scene.carol)]
    first = await asyncio.gather(*(store.send(draft, key(str(n))) for n, draft in enumerate(drafts)))
    again = await asyncio.gather(*(store.send(draft, key(str(n))) for n, draft in enumerate(drafts)))
    assert [a.value for a in again] == [f.value for f in first]
    assert [f.value.message for f in first] == [draft.message for draft in drafts]


async def test_keys_may_be_any_digest(place: Place) -> None:
    """Keys that are all zeros, or differ in their last byte only, are told apart."""
    store = await place.serve()
    ann = await sign_up(store, "ann")
    names = [bytes(16), bytes(15) + b"\1", b"\xff" * 16]
    sends = [await store.send(private(ann, ann), Key(name, bytes(16))) for name in names]
    assert [s.value.seq for s in sends] == [1, 2, 3]
    again = [await store.send(private(ann, ann), Key(name, bytes(16))) for name in names]
    assert [a.value for a in again] == [s.value for s in sends]
