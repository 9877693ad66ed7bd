"""What is settled, under everything that two nodes may do in any order, by examples that hypothesis finds."""

import asyncio
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from tests.redis_nodes import BRISK, Cluster, Teller, age, eventually, posted
from tests.wires import HeldFloor, RedisWires
from tidings.model import Batch, Posted


class Watched:
    """Holds a cluster to what settling promises, whatever is told; it stands for the store as well."""

    def __init__(self, tellers: list[Teller]) -> None:
        self.tellers = tellers
        self.open: dict[str, int] = {}  # stamps that may not be passed
        self.unstored: list[tuple[str, int]] = []
        self.untold: dict[str, list[tuple[str, int]]] = {"ubob": [], "ucarol": [], "ueve": []}
        self.heads = dict.fromkeys(self.untold, 0)  # the last timestamp stored
        self.shown = 0  # the latest time that any node ever gave as settled
        self.told: set[str] = set()
        self.names = count()
        for teller in tellers:
            self._watch(teller)

    def _watch(self, teller: Teller) -> None:
        real, last = teller.told.apply, dict.fromkeys(self.untold, 0)

        def apply(batch: Batch) -> None:
            self.look()
            for change in batch.changes:
                assert isinstance(change, Posted)
                timestamp = int(change.message.timestamp)
                assert timestamp > teller.feed.settled, "told at or below what was settled"
                assert timestamp > self.shown or change.message.message_id in self.told, "told at what was shown"
                assert timestamp > last[change.mailbox], "a mailbox out of order"
                last[change.mailbox] = timestamp
                self.told.add(change.message.message_id)
            real(batch)

        teller.told.apply = apply  # type: ignore[method-assign]

    def look(self) -> None:
        """No open stamp was passed, by any node."""
        self.shown = max(self.shown, *(teller.feed.settled for teller in self.tellers))
        assert all(self.shown < stamp for stamp in self.open.values()), "an open stamp was passed"

    def forget_before(self, time_ms: int) -> None:
        """May be passed: each of several restarts within ten seconds takes the clock ten further."""
        self.open = {name: stamp for name, stamp in self.open.items() if stamp > time_ms}

    async def begin(self, teller: Teller, mailbox: str) -> None:
        name = f"message-{next(self.names)}"
        stamp = await teller.feed.open(name)
        assert stamp > self.shown
        self.open[name] = stamp
        self.unstored.append((name, stamp))

    async def store(self, teller: Teller, mailbox: str) -> None:
        if self.unstored:
            name, stamp = self.unstored.pop()
            self.heads[mailbox] = max(stamp, self.heads[mailbox] + 1)
            self.untold[mailbox].append((name, self.heads[mailbox]))

    async def tell(self, teller: Teller, mailbox: str) -> None:
        if self.untold[mailbox]:
            name, timestamp = self.untold[mailbox].pop(0)
            self.open.pop(name, None)
            await teller.feed.publish(posted(name, timestamp, name, mailbox))
            assert name in self.told

    async def drop(self, teller: Teller, mailbox: str) -> None:
        if self.unstored:
            name, _ = self.unstored.pop(0)
            self.open.pop(name, None)
            teller.feed.drop(name)

    async def catch_up(self, teller: Teller, mailbox: str) -> None:
        await teller.feed.catch_up()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("begin", "begin", "store", "store", "tell", "tell", "drop", "expire", "restart", "catch_up")),
        st.sampled_from((0, 1)),
        st.sampled_from(("ubob", "ucarol", "ueve")),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def shared_wires(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisWires]:
    """A server that many examples share, each as another store."""
    wires = RedisWires(tmp_path_factory.mktemp("redis"))
    yield wires
    wires.server.kill()


@given(steps=STEPS)
@settings(max_examples=100)
def test_what_is_settled_is_never_told_later(shared_wires: RedisWires, steps: list[tuple[str, int, str]]) -> None:
    """Whatever two nodes open, tell, drop and lose, through restarts: no open stamp is passed, and none that was passed
    is told.

    What any node ever showed as settled counts, in whichever feed; along a mailbox timestamps increase on every node.
    """
    note(f"{steps}")
    asyncio.run(_live(shared_wires, steps))


async def _live(wires: RedisWires, steps: list[tuple[str, int, str]]) -> None:
    wires.floor = HeldFloor()
    cluster = Cluster(wires)
    tellers = [await cluster.join(), await cluster.join()]
    watched = Watched(tellers)
    try:
        for step, node, mailbox in steps:
            if step == "expire":
                age(cluster)
                watched.open.clear()
            elif step == "restart":
                resets = [len(teller.told.resets) for teller in tellers]
                wires.server.call("FLUSHALL")
                await eventually(lambda: all(len(t.told.resets) > n for t, n in zip(tellers, resets, strict=True)))  # noqa: B023
                (feed,) = wires.server.keys("feed")
                began = int(wires.server.call("HGET", feed, "began"))
                watched.forget_before(began - BRISK.expire_ms - BRISK.ahead_ms)
            else:
                await getattr(watched, step)(tellers[node], mailbox)
            watched.look()
        for mailbox, untold in watched.untold.items():
            while untold:
                await watched.tell(tellers[0], mailbox)
        for teller in tellers:
            await teller.feed.catch_up()
            assert "fault" not in teller.counts.resets
        watched.look()
    finally:
        for teller in tellers:
            await wires.leave(teller.feed)
        wires.server.call("FLUSHALL")
