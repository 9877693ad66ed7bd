"""The judge of histories: each fault is found under its name, and what merely overlaps is not accused."""

import random
from pathlib import Path

import pytest

from tests.histories.story import Story
from tests.histories.world import World
from tidings.history import Fault, Sending, read_history, write_history
from tidings.history.__main__ import main
from tidings.model import Message


def test_a_right_history_passes_and_is_counted() -> None:
    """Two messages, read once each by cursor, by timestamp and by their sender: nothing is wrong, all is counted."""
    story = Story()
    first, second = story.send("ann", "bob", "one"), story.send("ann", "bob", "two", 2)
    story.events.append(Fault("kill", story.now))
    story.read("bob", first, second)
    story.read("bob", cursor="c1")
    story.read("bob", first, second, chain="t", time=0)
    story.read("bob", chain="t", time=int(second.timestamp))
    verdict = story.judged()
    assert verdict, verdict.report()
    assert verdict.counts["sends acknowledged"] == 2
    assert verdict.counts["reads"] == 4
    assert verdict.counts["kills"] == 1
    assert "2 sends, 2 sends acknowledged" in verdict.summary()
    assert verdict.summary().endswith("0 anomalies")


def test_a_lost_write_is_found() -> None:
    """Bob reads to the end after Ann was answered, and neither he nor anybody is given her message."""
    story = Story()
    story.send("ann", "bob", "one")
    story.read("bob")
    assert story.kinds() == {"lost"}


def test_a_lost_write_is_found_by_timestamp() -> None:
    """A reader by timestamp to whom the acknowledged message never comes."""
    story = Story()
    story.send("ann", "bob", "one")
    story.read("bob", time=0)
    assert story.kinds() == {"lost"}


def test_a_lost_group_message_is_found() -> None:
    """A member reads a group to the end without what was acknowledged."""
    story = Story()
    story.group("ann", "bob")
    story.send("ann", "room", "one", private=False)
    story.read("bob")
    assert story.kinds() == {"lost"}


def test_what_nobody_read_afterwards_is_not_lost() -> None:
    """Sends that are answered after the last read are counted, not accused; so are pages with more to come."""
    story = Story()
    story.read("bob")
    story.send("ann", "bob", "one")
    story.read("bob", cursor="c1", more=True)
    verdict = story.judged()
    assert verdict, verdict.report()
    assert verdict.counts["messages acknowledged and never read"] == 1


def test_a_lost_sent_copy_is_found() -> None:
    """Ann's second device asks for her copies, and lacks one."""
    story = Story()
    first = story.send("ann", "bob", "one")
    story.read("bob", first)
    story.read("ann", sent=True)
    assert story.kinds() == {"lost"}


def test_a_stale_read_is_found() -> None:
    """A read to the end lacks what was acknowledged before; the next one has it."""
    story = Story()
    first = story.send("ann", "bob", "one")
    story.read("bob")
    story.read("bob", first, cursor="c1")
    assert story.kinds() == {"stale"}


def test_an_overlapping_read_is_not_stale() -> None:
    """The same, but the read was asked for before the send was answered."""
    story = Story()
    first = story.send("ann", "bob", "one")
    story.read("bob", invoked=12)
    story.read("bob", first, cursor="c1")
    assert story.kinds() == set()


def test_a_skipped_message_is_found() -> None:
    """Bob is given the third message after the first; Carol's cursor shows that the second exists."""
    story = Story()
    story.group("ann", "bob", "carol")
    first, second, third = (story.send("ann", "room", str(n), n, private=False) for n in (1, 2, 3))
    story.read("carol", first, second, third)
    story.read("bob", first, third)
    assert story.kinds() == {"skipped"}


def test_a_message_skipped_by_timestamp_is_found() -> None:
    """A message shows up in the mailbox below the timestamp that Bob has passed on, so he never gets it."""
    story = Story()
    first, second = story.send("ann", "bob", "1", 1, 100), story.send("ann", "bob", "2", 2, 90)
    story.read("bob", first, second, chain="cursor")
    story.read("bob", first, chain="time", time=0, invoked=12)
    story.read("bob", chain="time", time=100)
    assert story.kinds() == {"skipped", "timestamps"}


def test_a_hole_is_found() -> None:
    """Bob is given seq 1 and 3; nobody has ever seen 2."""
    story = Story()
    first, third = story.send("ann", "bob", "1", 1), story.send("ann", "bob", "3", 3)
    story.read("bob", first, third)
    assert story.kinds() == {"hole"}


def test_a_message_given_twice_is_found() -> None:
    """The same message comes again under the next cursor."""
    story = Story()
    first = story.send("ann", "bob", "one")
    story.read("bob", first)
    story.read("bob", first, cursor="c1")
    assert story.kinds() == {"doubled"}


def test_reading_again_after_a_lost_answer_is_not_doubled() -> None:
    """The first answer was cut off, so the same cursor is asked again: given once."""
    story = Story()
    first = story.send("ann", "bob", "one")
    story.read("bob", first, outcome="unknown")
    story.read("bob", first)
    assert story.kinds() == set()


def test_an_intent_stored_twice_is_found() -> None:
    """A repeat with the same key is stored as a second message."""
    story = Story()
    first = story.send("ann", "bob", "one", outcome="unknown", key="k")
    second = story.send("ann", "bob", "one", 2, message_id="message-again", key="k")
    story.read("bob", first, second)
    assert story.kinds() == {"doubled"}


def test_a_repeat_without_a_key_may_be_stored_twice() -> None:
    """Two calls without key are two intents."""
    story = Story()
    first = story.send("ann", "bob", "one", outcome="unknown")
    second = story.send("ann", "bob", "one", 2, message_id="message-again")
    story.read("bob", first, second)
    assert story.kinds() == set()


def test_going_back_is_found() -> None:
    """Seq 1 comes after seq 2."""
    story = Story()
    first, second = story.send("ann", "bob", "1", 1), story.send("ann", "bob", "2", 2)
    story.read("bob", second, first)
    assert "non-monotonic" in story.kinds()


def test_a_message_not_later_than_the_timestamp_is_found() -> None:
    """Asked for what is later than 50, the server gives what is from 50."""
    story = Story()
    first = story.send("ann", "bob", "one", time=50)
    story.read("bob", first, time=50)
    assert story.kinds() == {"non-monotonic"}


def test_readers_who_disagree_are_found() -> None:
    """One place of a room holds different messages for Ann and for Bob."""
    story = Story()
    story.group("ann", "bob")
    one = story.send("ann", "room", "one", 1, outcome="unknown", private=False)
    other = story.send("ann", "room", "other", 1, outcome="unknown", private=False)
    story.read("ann", one)
    story.read("bob", other)
    assert story.kinds() == {"disagreement"}


@pytest.mark.parametrize("change", [{"timestamp": "7"}, {"message": "else"}, {"seq": 2}, {"sender_id": "eve"}])
def test_a_message_told_in_two_ways_is_found(change: dict[str, object]) -> None:
    """What Bob reads is not what Ann was answered: another timestamp, text, seq or sender under the same id."""
    story = Story()
    first = story.send("ann", "bob", "one")
    fields = {name: getattr(first, name) for name in first.__struct_fields__}
    story.read("bob", Message(**{**fields, **change}))
    assert "disagreement" in story.kinds()


def test_an_answer_for_another_message_is_found() -> None:
    """Ann sends one text and is answered with another."""
    story = Story()
    first = story.send("ann", "bob", "one")
    call = story.events[0]
    assert isinstance(call, Sending)
    story.events[0] = Sending(invoked=1, answered=2, sender="ann", recipient="bob", text="two", answer=first)
    assert story.kinds() == {"disagreement"}


def test_timestamps_that_do_not_increase_are_found() -> None:
    """The second message of a mailbox has the first one's timestamp."""
    story = Story()
    first, second = story.send("ann", "bob", "1", 1, 50), story.send("ann", "bob", "2", 2, 50)
    story.read("bob", first, second)
    assert story.kinds() == {"timestamps"}


def test_a_phantom_is_found() -> None:
    """Bob reads what nobody sent."""
    story = Story()
    story.read("bob", Message("ann", "boo", "bob", "1", "message-boo", 1))
    assert story.kinds() == {"phantom"}


def test_a_refused_message_that_appears_is_found() -> None:
    """Ann was told no, and Bob reads it all the same."""
    story = Story()
    refused = story.send("ann", "bob", "one", outcome="refused", code="blocked")
    story.read("bob", refused)
    assert story.kinds() == {"phantom"}


def test_a_message_before_its_sending_is_found() -> None:
    """Bob reads it before Ann asked for it."""
    story = Story()
    message = Message("ann", "one", "bob", "1", "message-one", 1)
    story.read("bob", message)
    story.send("ann", "bob", "one", time=1)
    assert story.kinds() == {"phantom"}


def test_an_unknown_send_may_appear_or_not_at_any_time() -> None:
    """Of three sends without an answer one comes at once, one late, one never."""
    story = Story()
    one, two, _ = (story.send("ann", "bob", text, n, outcome="unknown") for n, text in enumerate("abc", 1))
    story.read("bob", one)
    story.read("bob", cursor="c1")
    story.read("bob", two, cursor="c2")
    assert story.kinds() == set()


def test_a_cursor_counts_a_group_from_joining() -> None:
    """Bob's cursor is older than his joining: what came before is not missing, what comes after would be."""
    story = Story()
    story.group("ann")
    story.read("bob")
    story.send("ann", "room", "before", 1, private=False)
    story.group("bob")
    after = story.send("ann", "room", "after", 2, private=False)
    story.read("bob", after, cursor="c1")
    assert story.kinds() == set()
    story.send("ann", "room", "later", 3, private=False)
    story.read("bob", cursor="c2")
    assert story.kinds() == {"lost"}


def test_a_message_left_out_after_joining_is_found() -> None:
    """What was sent after Bob's joining was answered is his, even if his first page skips it."""
    story = Story()
    story.group("ann")
    story.read("bob")
    story.group("bob")
    story.send("ann", "room", "first", 1, private=False)
    second = story.send("ann", "room", "second", 2, private=False)
    story.read("bob", second, cursor="c1")
    assert "skipped" in story.kinds()


def test_a_timestamp_counts_a_group_whenever_joined() -> None:
    """By timestamp, a group joined late brings what is later than it, and only that."""
    story = Story()
    story.group("ann")
    story.send("ann", "room", "old", 1, 100, private=False)
    own = story.send("ann", "bob", "own", 1, 200)
    story.read("bob", own, time=0)
    late = story.send("ann", "room", "late", 2, 300, private=False)
    story.group("bob")
    story.read("bob", late, time=200)
    assert story.kinds() == set()


def test_a_chain_that_begins_with_now_owes_nothing_older() -> None:
    """`cursor=now` gives nothing, and all that comes after."""
    story = Story()
    story.send("ann", "bob", "old", 1)
    story.read("bob", cursor="now")
    new = story.send("ann", "bob", "new", 2)
    story.read("bob", new, cursor="c1")
    assert story.kinds() == set()
    story.send("ann", "bob", "newer", 3)
    story.read("bob", cursor="c2")
    assert story.kinds() == {"lost"}


def test_expired_messages_are_not_missing() -> None:
    """The server said that older ones are kept no more."""
    story = Story()
    story.send("ann", "bob", "old", 1)
    new = story.send("ann", "bob", "new", 2)
    story.read("bob", new, expired=True)
    assert story.kinds() == set()


def test_a_file_holds_what_was_recorded(tmp_path: Path) -> None:
    """A history written and read back is the same, and the command judges it."""
    events = World(random.Random(5)).history(200)
    path = tmp_path / "history.jsonl"
    write_history(path, events)
    assert list(read_history(path)) == events
    assert main([str(path)]) == 0
    path.write_text(path.read_text() + '{"event":"nonsense"}\n')
    assert main([str(path)]) == 2


def test_the_command_fails_on_an_anomaly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the kind and the lines."""
    story = Story()
    story.send("ann", "bob", "one")
    story.read("bob")
    write_history(tmp_path / "history.jsonl", story.events)
    assert main([str(tmp_path / "history.jsonl")]) == 1
    assert "lost: message-one (seq 1 of ubob) was acknowledged, and nobody was given it [events 1, 2]" in (
        capsys.readouterr().out
    )
