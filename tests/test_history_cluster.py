"""The judge of histories, of a cluster's: what nodes are allowed is not accused, anything more is found as ever."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.histories.plants import PLANTS, Plant
from tests.histories.story import Story
from tests.histories.world import World
from tidings.history import Allowance, Event, Reading, check

LATER = 1_000_000


def allowed(story: Story, *, lag: int = 0, settling: int = 0, until: int = LATER, anew: int = 0) -> None:
    story.events.append(Allowance(lag, settling, until, anew))


def test_another_node_may_show_it_a_little_later() -> None:
    """Bob asks 5 after Ann was answered, and is given her message by the next read: right within a lag of 10."""
    story = Story()
    story.read("bob")
    message = story.send("ann", "bob", "one")
    story.read("bob", cursor="c0")
    story.read("bob", message, cursor="c0")
    assert story.kinds() == {"stale"}
    allowed(story, lag=10)
    assert story.kinds() == set()


def test_later_than_that_is_found() -> None:
    """Bob's read lacks what was acknowledged 25 before it."""
    story = Story()
    story.read("bob")
    message = story.send("ann", "bob", "one")
    story.now += 20
    story.read("bob", cursor="c0")
    story.read("bob", message, cursor="c0")
    allowed(story, lag=10)
    assert story.kinds() == {"stale"}


def test_once_all_is_quiet_nothing_is_late() -> None:
    """The same read, after the moment from which on every node is as one."""
    story = Story()
    story.read("bob")
    message = story.send("ann", "bob", "one")
    story.read("bob", cursor="c0")
    story.read("bob", message, cursor="c0")
    allowed(story, lag=10, until=story.now - 10)
    assert story.kinds() == {"stale"}


def test_by_timestamp_it_is_shown_when_it_is_settled() -> None:
    """A reader by timestamp, and one of everything, may be given it much later; who goes on by cursor may not."""
    for reading in ({"time": 0}, {"cursor": ""}):
        story = Story()
        message = story.send("ann", "bob", "one")
        story.now += 50
        story.read("bob", **reading)
        story.read("bob", message, **reading | ({"cursor": "c1"} if "cursor" in reading else {}))
        assert story.kinds() == {"stale"}
        allowed(story, lag=10, settling=100)
        assert story.kinds() == set()
    story = Story()
    story.read("bob")
    message = story.send("ann", "bob", "one")
    story.now += 50
    story.read("bob", cursor="c0")
    story.read("bob", message, cursor="c0")
    allowed(story, lag=10, settling=100)
    assert story.kinds() == {"stale"}


def test_what_is_never_given_is_lost_all_the_same() -> None:
    """Whatever the nodes are allowed, who reads to the end when all is quiet must have been given everything."""
    story = Story()
    story.send("ann", "bob", "one")
    story.read("bob", time=0)
    allowed(story, lag=50, settling=100, until=story.now - 1)
    assert story.kinds() == {"lost"}


def test_who_was_removed_may_read_on_for_a_moment() -> None:
    """Bob is given the room's message right after his removal was answered; within the lag that is right, later not."""
    for later, kinds in ((0, set()), (30, {"leak"})):
        story = Story()
        story.group("ann", "bob")
        message = story.send("ann", "room", "one", private=False)
        story.change("remove", "room", "bob")
        story.now += later
        story.read("bob", message)
        allowed(story, lag=20)
        assert story.kinds() == kinds


def test_a_stream_may_give_what_was_sent_within_the_lag() -> None:
    """Bob takes from his stream, long after his removal, what was sent right behind it; anything later is a leak."""
    for later, kinds in ((0, set()), (30, {"leak"})):
        story = Story()
        story.group("ann", "bob")
        story.read("bob")
        story.change("remove", "room", "bob")
        story.now += later
        message = story.send("ann", "room", "one", private=False)
        story.now += 500
        story.read("bob", message, cursor="c1", streamed=True)
        allowed(story, lag=20)
        assert story.kinds() == kinds


def test_a_block_binds_at_once() -> None:
    """The store decides about blocks, so no lag excuses a private message that was sent after one was answered."""
    story = Story()
    story.change("block", "bob", "eve")
    story.send("eve", "bob", "one")
    allowed(story, lag=100)
    assert story.kinds() == {"leak"}


def test_who_has_just_joined_may_be_unknown_for_a_moment() -> None:
    """Bob begins to read just after he joined, at a node that has not heard of it: what was before is not his."""
    story = Story()
    story.group("ann")
    story.send("ann", "room", "one", private=False)
    story.group("bob")
    story.read("bob")
    after = story.send("ann", "room", "two", 2, private=False)
    story.read("bob", after, cursor="c1")
    assert story.kinds() == {"lost", "skipped"}
    allowed(story, lag=30, until=LATER)
    assert story.kinds() == set()


def test_a_counted_stall_is_allowed_by_timestamp_alone() -> None:
    """A message told under a later timestamp may come twice by timestamp, if it was counted; never by cursor."""
    story = Story()
    message = story.send("ann", "bob", "one", time=100)
    again = replace(message, timestamp="200")
    story.read("bob", message, time=0)
    story.read("bob", again, time=100)
    assert story.kinds() == {"disagreement", "doubled"}
    allowed(story, anew=1)
    assert story.kinds() == set()
    story.read("bob", message, chain="2", cursor="c1")
    story.read("bob", again, chain="2", cursor="c2")
    assert story.kinds() == {"doubled"}


def test_more_stalls_than_were_counted_are_found() -> None:
    """Two messages have two timestamps, and one was told under another."""
    story = Story()
    for seq in (1, 2):
        message = story.send("ann", "bob", f"{seq}", seq)
        story.read("bob", replace(message, timestamp=f"{1000 + seq}"), chain=f"{seq}", cursor="c")
    allowed(story, anew=1)
    assert "disagreement" in story.kinds()


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_fault_planted_anywhere_is_found(plant: Plant, seed: int) -> None:
    """What a fault in a cluster's history is called, is what it is called in that of one server."""
    rng = random.Random(seed)
    events = World(rng).history(400)
    kind, faulty = plant(events, rng)
    assert kind in check([*faulty, Allowance(30, 60, _quiet(faulty))]).kinds()


def _quiet(events: Sequence[Event]) -> int:
    """A moment before the last read to the end in every chain."""
    last: dict[tuple[str, str], int] = {}
    for event in events:
        if isinstance(event, Reading) and event.outcome == "ok" and not event.more:
            key = event.reader, event.chain
            last[key] = max(last.get(key, 0), event.invoked)
    return min(last.values())
