"""The tail on many nodes: messages told late, twice, before the one before them, under timestamps that cross."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tidings.model import Batch, Message, Posted, own
from tidings.tail import Tail

ENTRY = 910  # about what one of these messages takes
BOXES = ("bob", "carol")


class World:
    """Two mailboxes as they are stored, and a tail that is told of them in another order."""

    def __init__(self, stamps: Sequence[tuple[int, int]], max_bytes: int) -> None:
        self.stored: dict[str, list[Posted]] = {box: [] for box in BOXES}
        for which, later in stamps:
            mailbox = self.stored[BOXES[which]]
            before = int(mailbox[-1].message.timestamp) if mailbox else 0
            message = Message("ann", "hi", BOXES[which], str(before + later), "m", len(mailbox) + 1)
            mailbox.append(Posted(0, own(BOXES[which]), message, 0))
        self.told: dict[str, set[int]] = {box: set() for box in BOXES}
        self.tail = Tail(600, max_bytes)
        self.tail.reset(0, 0)
        self.latest = 0

    def tell(self, which: int, seq: int) -> None:
        """The feed's next change, perhaps once more; who tells it has told what is before it, unless that was told."""
        box = BOXES[which]
        if self.stored[box]:
            self._tell(box, (seq - 1) % len(self.stored[box]))

    def _tell(self, box: str, index: int) -> None:
        if index:
            before = self.stored[box][index - 1]
            if not self.tail.has_told(before.mailbox, index, int(before.message.timestamp)):
                self._tell(box, index - 1)
        posted = self.stored[box][index]
        position = self.tail.position + 1
        self.told[box].add(index + 1)
        self.latest = max(self.latest, int(posted.message.timestamp))
        self.tail.apply(Batch(position - 1, position, (Posted(position, posted.mailbox, posted.message, 0),)))

    def late(self, which: int, seq: int) -> None:
        """A change whose turn was long ago: another node stored it, and comes to tell it only now."""
        box = BOXES[which]
        if seq <= max(self.told[box], default=0):
            posted, position = self.stored[box][seq - 1], self.tail.position + 1
            self.told[box].add(seq)
            self.tail.apply(Batch(position - 1, position, (Posted(position, posted.mailbox, posted.message, 0),)))

    def reset(self) -> None:
        """The feed broke off; what was told is told no more."""
        self.tail.reset(self.tail.position + 1, self.latest)


@given(
    stamps=st.lists(st.tuples(st.integers(0, 1), st.integers(1, 5)), min_size=1, max_size=12),
    tells=st.lists(st.tuples(st.sampled_from("ttttlr"), st.integers(0, 1), st.integers(1, 12)), max_size=20),
    max_bytes=st.sampled_from([2 * ENTRY, 5 * ENTRY, 100 * ENTRY]),
)
def test_what_the_tail_gives_is_whole_whatever_the_order(
    stamps: list[tuple[int, int]], tells: list[tuple[str, int, int]], max_bytes: int
) -> None:
    """After each change: what it gives after any seq or time is what comes next without a hole, or None.

    It may end early, after a message that is told once more: how far it should go is known by the head.
    """
    world = World(stamps, max_bytes)
    for what, which, seq in tells:
        {"t": world.tell, "l": world.late, "r": lambda *_: world.reset()}[what](which, seq)
        for box in BOXES:
            check_box(world, box)


def check_box(world: World, box: str) -> None:
    mailbox, told = world.stored[box], max(world.told[box], default=0)
    for seq in range(len(mailbox) + 1):
        given_ = world.tail.after_seq(own(box), seq, world.tail.position, 100)
        if given_ is not None:
            assert [f.message.seq for f in given_] == list(range(seq + 1, told + 1))[: len(given_)]
    for time in {0, *(int(p.message.timestamp) - n for p in mailbox for n in (0, 1))}:
        given_ = world.tail.after_time(own(box), time, world.tail.position, 100)
        if given_ is not None:
            later = [p.message.seq for p in mailbox[:told] if int(p.message.timestamp) > time]
            assert [f.message.seq for f in given_] == later[: len(given_)]


@given(
    stamps=st.lists(st.tuples(st.integers(0, 1), st.integers(1, 5)), min_size=1, max_size=12),
    tells=st.lists(st.tuples(st.integers(0, 1), st.integers(1, 12)), max_size=20),
    max_bytes=st.sampled_from([2 * ENTRY, 5 * ENTRY, 100 * ENTRY]),
)
def test_what_comes_is_news(stamps: list[tuple[int, int]], tells: list[tuple[int, int]], max_bytes: int) -> None:
    """A message behind all that were told is news to whoever stood before it, whatever was told twice in between."""
    world = World(stamps, max_bytes)
    for which, seq in tells:
        before, position = {box: set(told) for box, told in world.told.items()}, world.tail.position
        world.tell(which, seq)
        for box in BOXES:
            if max(world.told[box], default=0) > max(before[box], default=0):
                assert world.tail.has_news([own(box)], position) is not False
