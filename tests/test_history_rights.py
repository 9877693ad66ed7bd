"""The judge of histories, on rights and keys: who may be given what, what may be accepted, how a key is answered."""

import pytest

from tests.histories.story import Story
from tidings.model import Message


def test_a_private_message_to_somebody_else_is_found() -> None:
    """Eve is given what Ann wrote to Bob."""
    story = Story()
    first = story.send("ann", "bob", "one")
    story.read("eve", first)
    assert story.kinds() == {"leak"}


def test_a_copy_of_somebody_elses_message_is_found() -> None:
    """Eve is given the copy that Ann's devices are meant to have."""
    story = Story()
    first = story.send("ann", "bob", "one")
    fields = {name: getattr(first, name) for name in first.__struct_fields__}
    story.read("eve", Message(**{**fields, "sent": True}), sent=True)
    assert story.kinds() == {"leak"}


def test_a_message_accepted_past_a_block_is_found() -> None:
    """Bob's block was answered before Ann sent."""
    story = Story()
    story.change("block", "bob", "ann")
    story.send("ann", "bob", "one")
    assert story.kinds() == {"leak"}


def test_a_message_around_a_block_is_not_accused() -> None:
    """Overlapping the block, after the unblocking, or stored before the block and repeated with its key after it."""
    story = Story()
    story.change("block", "bob", "ann")
    story.change("unblock", "bob", "ann")
    first = story.send("ann", "bob", "after", 1)
    story.send("ann", "bob", "early", 2, outcome="unknown", key="k")
    story.change("block", "bob", "ann")
    second = story.send("ann", "bob", "early", 2, key="k")
    third = story.send("ann", "bob", "overlap", 3, invoked=51)
    story.read("bob", first, second, third)
    assert story.kinds() == set()


def test_a_read_after_removal_is_found() -> None:
    """Bob was put out of the room, and reads on."""
    story = Story()
    story.group("ann", "bob")
    first = story.send("ann", "room", "one", private=False)
    story.change("remove", "room", "bob")
    story.read("bob", first)
    assert story.kinds() == {"leak"}


def test_what_a_stream_gave_may_be_taken_later() -> None:
    """Bob was put out of the room: what was said before may wait in his stream, what was said after may not."""
    story = Story()
    story.group("ann", "bob")
    first = story.send("ann", "room", "one", private=False)
    story.change("remove", "room", "bob")
    story.read("bob", first, streamed=True)
    assert story.kinds() == set()
    second = story.send("ann", "room", "two", 2, private=False)
    story.read("bob", second, streamed=True)
    assert story.kinds() == {"leak"}


def test_a_group_message_to_a_stranger_is_found() -> None:
    """Eve was never in the room."""
    story = Story()
    story.group("ann")
    first = story.send("ann", "room", "one", private=False)
    story.read("eve", first)
    assert story.kinds() == {"leak"}


def test_a_group_message_from_a_stranger_is_found() -> None:
    """Eve's message to a room that she is not in was accepted."""
    story = Story()
    story.group("ann")
    story.send("eve", "room", "one", private=False)
    assert story.kinds() == {"leak"}


def test_a_read_that_overlaps_the_removal_is_not_accused() -> None:
    """The read was asked for before the removal was answered, and either answer is right."""
    story = Story()
    story.group("ann", "bob")
    first = story.send("ann", "room", "one", private=False)
    story.change("remove", "room", "bob")
    story.read("bob", first, invoked=42)
    story.read("bob", chain="2", invoked=42)
    assert story.kinds() == set()


@pytest.mark.parametrize("differs", ["message_id", "seq", "content"])
def test_a_key_answered_in_two_ways_is_found(differs: str) -> None:
    """The repeat of a send is answered with another id or seq, or the key serves another text."""
    story = Story()
    story.send("ann", "bob", "one", time=7, key="k")
    other = {"message_id": {"message_id": "message-2"}, "seq": {"seq": 2}, "content": {}}[differs]
    story.send("ann", "bob", "two" if differs == "content" else "one", time=7, key="k", **other)  # type: ignore[arg-type]
    assert "idempotency" in story.kinds()


def test_a_key_refused_after_it_succeeded_is_found() -> None:
    """A repeat of what succeeded must be answered alike, not refused."""
    story = Story()
    story.send("ann", "bob", "one", key="k")
    story.send("ann", "bob", "one", outcome="refused", code="blocked", key="k")
    assert story.kinds() == {"idempotency"}


def test_a_repeated_change_that_is_told_already_so_is_found() -> None:
    """Bob's block got no answer, and its repeat is told that he blocks her already: by nobody but the first attempt."""
    story = Story()
    story.change("block", "bob", "ann", outcome="unknown", key="k")
    story.change("block", "bob", "ann", outcome="refused", code="already_blocked", key="k")
    assert story.kinds() == {"idempotency"}


def test_a_key_reused_and_refused_is_right() -> None:
    """Another text under the same key gets 422."""
    story = Story()
    story.send("ann", "bob", "one", key="k")
    story.send("ann", "bob", "two", outcome="refused", code="idempotency_key_reused", key="k")
    assert story.kinds() == set()
