"""The tail against a plain list: what it says it holds is held, whatever was evicted, and who waits is woken."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tidings.model import Altered, Batch, Change, Found, Message, Posted, own, room, sent
from tidings.tail import Tail

ANN, BOB, FRIENDS = "user-ann", "user-bob", "group-friends"
RECIPIENTS = (own(ANN), own(BOB), room(FRIENDS))
MAILBOXES = (*RECIPIENTS, sent(ANN), sent(BOB), own("user-nobody"))
WINDOW_S = 10.0
ENTRY = 1_000  # about what one message counts


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Log:
    """Everything that was ever posted, as a plain list, and how to make more of it."""

    def __init__(self, position: int = 0, before: int = 3) -> None:
        self.before = before  # so many messages in each mailbox are older than this log
        self.posts: list[tuple[int, Found]] = []  # position, and the message as a mailbox has it
        self.position = position
        self.time = 1_000
        self._heads = dict.fromkeys(MAILBOXES, before)

    def commit(self, posts: Sequence[tuple[int, bool]], altered: bool = False, later_ms: int = 1) -> Batch:
        """One commit: at most one message to each recipient, from Ann or Bob; perhaps a directory change at its end."""
        after, self.time = self.position, self.time + later_ms
        changes: list[Change] = []
        taken: set[str] = set()
        for recipient, by_ann in posts:
            mailbox, sender = RECIPIENTS[recipient], ANN if by_ann else BOB
            copies = "" if mailbox in (own(sender), room(FRIENDS)) else sent(sender)
            if not taken.isdisjoint((mailbox, copies)):
                continue
            taken |= {mailbox, copies} - {""}
            changes.append(self._post(mailbox, sender, copies))
        if altered:
            self.position += 1
            changes.append(Altered(self.position, ANN))
        return Batch(after, self.position, tuple(changes))

    def _post(self, mailbox: str, sender: str, copies: str) -> Posted:
        self.position += 1
        text = "x" * (self.position % 3 * 100)
        self._heads[mailbox] += 1
        message = Message(sender, text, mailbox[1:], str(self.time), f"m{self.position}", self._heads[mailbox])
        self.posts.append((self.position, Found(self.time, mailbox, message)))
        if not copies:
            return Posted(self.position, mailbox, message, 0)
        self._heads[copies] += 1
        copy = Message(sender, text, mailbox[1:], str(self.time), f"m{self.position}", self._heads[copies], True)
        self.posts.append((self.position, Found(self.time, copies, copy)))
        return Posted(self.position, mailbox, message, self._heads[copies])

    def of(self, mailbox: str, until: int) -> list[Found]:
        """A mailbox up to a position."""
        return [found for position, found in self.posts if found.mailbox == mailbox and position <= until]


commits = st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=4)


class TailMachine(RuleBasedStateMachine):
    """Commits, time passing, evictions and resets, in any order; after each step every question is asked."""

    @initialize(max_bytes=st.sampled_from([0, ENTRY, 5 * ENTRY, 100 * ENTRY]), before=st.sampled_from([0, 3]))
    def begin(self, max_bytes: int, before: int) -> None:
        self.clock = Clock()
        self.log = Log(3 * before, before)
        self.max_bytes = max_bytes
        self.tail = Tail(WINDOW_S, max_bytes, self.clock)
        self.tail.reset(self.log.position)
        self.applied: list[tuple[float, int]] = []  # when each position was told

    @rule(posts=commits, altered=st.booleans(), later_ms=st.integers(1, 3))
    def apply(self, posts: list[tuple[int, bool]], altered: bool, later_ms: int) -> None:
        """News of one commit."""
        batch = self.log.commit(posts, altered, later_ms)
        self.applied += [(self.clock.now, change.position) for change in batch.changes if isinstance(change, Posted)]
        self.tail.apply(batch)
        assert self.tail.position == batch.last

    @rule(posts=st.lists(commits, min_size=2, max_size=3))
    def apply_several(self, posts: list[list[tuple[int, bool]]]) -> None:
        """News of several commits in one batch, as a follower gets them."""
        batches = [self.log.commit(one) for one in posts]
        batch = Batch(batches[0].after, batches[-1].last, tuple(c for one in batches for c in one.changes))
        self.applied += [(self.clock.now, change.position) for change in batch.changes]
        self.tail.apply(batch)

    @rule(seconds=st.floats(0, WINDOW_S * 1.5))
    def pass_time(self, seconds: float) -> None:
        """The clock goes on, and the tail is reminded to let go."""
        self.clock.now += seconds
        self.tail.evict()
        assert not [when for when, position in self.applied if self._is_held(position) and self._is_old(when)]

    @precondition(lambda self: self.log.position > 0)
    @rule(commits_missed=st.lists(commits, max_size=2))
    def reset(self, commits_missed: list[list[tuple[int, bool]]]) -> None:
        """The feed broke off, and begins anew at a later position."""
        for posts in commits_missed:
            self.log.commit(posts)
        self.tail.reset(self.log.position)
        assert (self.tail.messages, self.tail.bytes) == (0, 0)
        assert self.tail.complete_since == self.tail.position == self.log.position

    @invariant()
    def it_is_bounded(self) -> None:
        assert self.tail.bytes <= self.max_bytes
        assert (self.tail.bytes == 0) == (self.tail.messages == 0)

    @invariant()
    def it_is_complete_since(self) -> None:
        """Where the tail says it knows of news, it knows exactly what the list does; elsewhere it says so."""
        for position in range(max(0, self.log.position - 12), self.log.position + 2):
            for mailboxes in (MAILBOXES, MAILBOXES[:1], MAILBOXES[3:5], MAILBOXES[5:]):
                said = self.tail.has_news(mailboxes, position)
                if not self.tail.complete_since <= position <= self.tail.position:
                    assert said is None
                else:
                    later = {f.mailbox for p, f in self.log.posts if p > position}
                    assert said == (not later.isdisjoint(mailboxes))

    @invariant()
    def it_gives_what_the_list_gives_or_nothing(self) -> None:
        """From any seq or time, at any limit and up to any position: the list's answer, or None."""
        for mailbox in MAILBOXES:
            for until in (self.log.position, max(self.log.position - 3, 0)):
                whole = self.log.of(mailbox, until)
                for start in range(12):
                    for limit in (1, 3, 100):
                        found = self.tail.after_seq(mailbox, start, until, limit)
                        expected = [f for f in whole if f.message.seq > start][:limit]
                        assert found is None or (found == expected and start >= self.log.before)
                for time in {f.timestamp + d for _, f in self.log.posts[-8:] for d in (-1, 0)}:
                    by_time = self.tail.after_time(mailbox, time, until, 100)
                    assert by_time is None or by_time == [f for f in whole if f.timestamp > time]

    @invariant()
    def what_it_holds_is_given(self) -> None:
        """A mailbox's messages since `complete_since` are given from its place then: hot, not None."""
        for mailbox in MAILBOXES:
            held = [f for p, f in self.log.posts if f.mailbox == mailbox and p > self.tail.complete_since]
            if held:
                assert self.tail.after_seq(mailbox, held[0].message.seq - 1, self.log.position, 100) == held
                if len(held) > 1:
                    assert self.tail.after_time(mailbox, held[0].timestamp, self.log.position, 100) == held[1:]

    def _is_held(self, position: int) -> bool:
        return position > self.tail.complete_since

    def _is_old(self, when: float) -> bool:
        return when <= self.clock.now - WINDOW_S


TestTail = TailMachine.TestCase
TestTail.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


def test_a_tail_of_no_bytes_and_one_of_no_time_hold_nothing() -> None:
    """Both say at once that they reach back to nothing but the present."""
    for tail in (Tail(WINDOW_S, 0, Clock()), Tail(0, 100 * ENTRY, Clock())):
        log = Log()
        tail.reset(0)
        tail.apply(log.commit([(0, True), (1, True)]))
        assert tail.messages == tail.bytes == 0
        assert tail.has_news(MAILBOXES, 0) is None
        assert tail.has_news(MAILBOXES, log.position) is False
        assert tail.after_seq(own(ANN), 3, log.position, 10) is None


@pytest.mark.anyio
async def test_who_waits_is_woken_by_news_of_their_mailboxes_only() -> None:
    """Ann waits for her mailbox, Bob for his copies: each is woken by theirs, and by a change of their own entry."""
    tail, log = Tail(WINDOW_S, 100 * ENTRY, Clock()), Log()
    tail.reset(0)
    ann, bob = tail.wait_for([own(ANN)]), tail.wait_for([own(BOB), sent(BOB)])
    tail.apply(log.commit([(2, True)]))
    assert (ann.woken.is_set(), bob.woken.is_set()) == (False, False)
    tail.apply(log.commit([(0, False)]))
    assert (ann.woken.is_set(), bob.woken.is_set()) == (True, True)
    tail.leave(ann)
    tail.leave(bob)
    again = tail.wait_for([own(ANN)])
    tail.apply(log.commit([], altered=True))
    assert again.woken.is_set()
    tail.leave(again)


@pytest.mark.anyio
async def test_who_waits_is_woken_though_the_news_is_not_kept() -> None:
    """A tail that holds nothing wakes all the same: who waits then asks the store."""
    tail, log = Tail(0, 0, Clock()), Log()
    tail.reset(0)
    waiter = tail.wait_for([own(ANN)])
    tail.apply(log.commit([(0, False)]))
    assert waiter.woken.is_set()
    tail.leave(waiter)


@pytest.mark.anyio
async def test_a_reset_and_a_drain_wake_everybody() -> None:
    """After a reset anything may be new; after `drain` nobody waits any more, latecomers neither."""
    tail = Tail(WINDOW_S, 100 * ENTRY, Clock())
    tail.reset(0)
    first, second = tail.wait_for([own(ANN)]), tail.wait_for([room(FRIENDS)])
    tail.reset(5)
    assert first.woken.is_set()
    assert second.woken.is_set()
    waiting = tail.wait_for([own(BOB)])
    assert tail.is_open
    tail.drain()
    assert waiting.woken.is_set()
    assert not tail.is_open
    assert tail.wait_for([own(BOB)]).woken.is_set()


@given(st.integers(1, 30))
def test_what_a_tail_holds_is_counted(sends: int) -> None:
    """Messages and bytes grow with what is held, and both are none after everything is too old."""
    clock = Clock()
    tail, log = Tail(WINDOW_S, 100 * ENTRY, clock), Log()
    tail.reset(0)
    for n in range(sends):
        tail.apply(log.commit([(n % 3, True)]))
    assert tail.messages == sends
    assert tail.bytes >= 500 * sends
    clock.now += WINDOW_S
    tail.evict()
    assert (tail.messages, tail.bytes) == (0, 0)
