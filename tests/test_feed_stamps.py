"""Timestamps on a cluster: stamps opened, closed, dropped and expired, what is settled, and the clock's floor."""

import asyncio
import random
import time
from collections.abc import Iterator
from itertools import count

import msgspec
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from tests.backends import HeldFloor, RedisWires
from tests.pairs import DEADLINE_S
from tests.redis_nodes import BRISK, Cluster, Teller, eventually, posted, timestamps
from tidings.errors import StoreUnavailable, Unavailable
from tidings.model import Batch, Message, Posted, own, sent

pytest_plugins = "tests.opened"
pytestmark = pytest.mark.anyio

HOUR_MS = 3_600_000


async def send(teller: Teller, name: str, mailbox: str = own("bob")) -> int:
    """A message as a store sends it: its stamp is opened, it is stored, it is told. Gives the stamp."""
    stamp = await teller.feed.open(name)
    await teller.feed.publish(posted(name, stamp, name, mailbox))
    return stamp


def age(cluster: Cluster, by_ms: int = BRISK.expire_ms) -> None:
    """Let time go by in which the feed was there."""
    (feed,) = cluster.wires.server.keys("feed")
    cluster.wires.server.call("HINCRBY", feed, "age", by_ms)


def opened(cluster: Cluster) -> set[str]:
    """The messages whose stamps are open."""
    return {
        name.decode()
        for key in cluster.wires.server.keys("open")
        for name in cluster.wires.server.call("ZRANGE", key, 0, -1)
    }


async def test_nothing_is_settled_from_an_open_stamp_on(cluster: Cluster) -> None:
    """While one node's stamp is open, later messages of the other are told, and not settled; then all are, at once."""
    first, second = await cluster.join(), await cluster.join()
    stamp = await first.feed.open("slow")
    later = await send(second, "quick")
    assert later >= stamp
    for teller in (first, second):
        await teller.feed.catch_up()
        assert teller.texts == ["quick"]
        assert teller.feed.settled < stamp
    await first.feed.publish(posted("slow", stamp, "slow"))
    assert first.feed.settled >= later
    await second.feed.catch_up()
    assert second.feed.settled >= later
    assert timestamps(second.told)["slow"] == stamp


async def test_a_message_settles_by_its_own_news(cluster: Cluster) -> None:
    """With no other stamp open, a message is settled as soon as it is told, on every node, without a beat."""
    first, second = await cluster.join(), await cluster.join()
    for n in range(20):
        stamp = await send(first, str(n))
        assert first.feed.settled >= stamp
        await eventually(lambda: len(second.texts) == n + 1)  # noqa: B023 - awaited within the turn
        assert second.feed.settled >= stamp


async def test_a_message_later_than_the_clock_settles_too(cluster: Cluster) -> None:
    """A mailbox whose timestamps run ahead takes the clock along, and stamps that follow are later."""
    teller = await cluster.join()
    stamp = await teller.feed.open("ahead")
    await teller.feed.publish(posted("ahead", stamp + 2_000, "ahead"))
    assert await teller.feed.settle(stamp + 2_000, DEADLINE_S) >= stamp + 2_000
    assert await teller.feed.open("next") > stamp + 2_000


async def test_who_waits_for_settling_is_woken(cluster: Cluster) -> None:
    """A reader waits for a time that an open stamp holds back, and goes on when it is closed, or when it has waited."""
    teller = await cluster.join()
    stamp = await teller.feed.open("slow")
    assert await teller.feed.settle(stamp, 0.02) < stamp
    waiting = [asyncio.create_task(teller.feed.settle(stamp + n, DEADLINE_S)) for n in range(3)]
    await asyncio.sleep(0)
    for _ in range(100):
        assert await teller.feed.settle(stamp, 0.0) < stamp
    await teller.feed.publish(posted("slow", stamp, "slow"))
    for n, settled in enumerate(await asyncio.gather(*waiting)):
        assert settled >= stamp + n


async def test_a_dropped_stamp_is_closed_without_news(cluster: Cluster) -> None:
    """A message that was refused: its stamp is dropped, and holds nothing back."""
    first, second = await cluster.join(), await cluster.join()
    stamp = await first.feed.open("refused")
    first.feed.drop("refused")
    assert await second.feed.settle(stamp, DEADLINE_S) >= stamp
    assert opened(cluster) == set()


async def test_a_stamp_whose_caller_went_away_is_closed(cluster: Cluster) -> None:
    """The caller is cancelled while its stamp is asked for: it holds nothing back, now or in the turn under way."""
    teller = await cluster.join()
    for _ in range(20):
        opening = asyncio.create_task(teller.feed.open("gone"))
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
    now = await send(teller, "next")
    assert await teller.feed.settle(now, DEADLINE_S) >= now
    await eventually(lambda: opened(cluster) == set())


async def test_a_stamp_expires(cluster: Cluster) -> None:
    """Nobody closes it: after ten seconds it holds nothing back any more."""
    first, second = await cluster.join(), await cluster.join()
    stamp = await first.feed.open("lost")
    age(cluster, BRISK.expire_ms - 5_000)
    await first.feed.catch_up()
    assert first.feed.settled < stamp
    age(cluster, 5_000)
    assert await second.feed.settle(stamp, DEADLINE_S) >= stamp


async def test_a_stamp_expires_by_itself(cluster: Cluster) -> None:
    """The same by the time that really goes by, with a shorter life."""
    bounds = msgspec.structs.replace(BRISK, expire_ms=100)
    teller = await cluster.join(bounds)
    stamp = await teller.feed.open("lost")
    assert teller.feed.settled < stamp
    assert await teller.feed.settle(stamp, DEADLINE_S) >= stamp


async def test_a_hung_server_expires_nothing(cluster: Cluster) -> None:
    """Time in which the server gave no news, or by which its clock jumped, is at most a second of a stamp's life."""
    teller = await cluster.join()
    stamp = await teller.feed.open("slow")
    (feed,) = cluster.wires.server.keys("feed")
    cluster.wires.server.call("HINCRBY", feed, "time", -HOUR_MS)  # as if the last turn had been an hour ago
    await teller.feed.catch_up()
    await teller.feed.catch_up()
    assert teller.feed.settled < stamp
    await teller.feed.publish(posted("slow", stamp, "slow"))
    assert timestamps(teller.told) == {"slow": stamp}
    assert teller.counts.anew == 0


async def test_a_message_told_too_late_is_told_under_a_later_timestamp(cluster: Cluster) -> None:
    """Its stamp expired, and readers were shown a later time as settled: it is told behind that, and counted."""
    first, second = await cluster.join(), await cluster.join()
    stamp = await first.feed.open("late")
    age(cluster)
    settled = await second.feed.settle(stamp, DEADLINE_S)
    await first.feed.publish(posted("late", stamp, "late"))
    await second.feed.catch_up()
    given = timestamps(second.told)["late"]
    assert given > settled
    assert timestamps(first.told)["late"] == given
    assert first.feed.settled >= given
    assert (first.counts.anew, second.counts.anew) == (1, 0)


async def test_one_told_late_and_not_passed_keeps_its_timestamp(cluster: Cluster) -> None:
    """Its stamp expired, but an older open one held the settled time back: nothing of it need change."""
    first, second = await cluster.join(), await cluster.join()
    await second.feed.open("older")
    stamp = await first.feed.open("late")
    (key,) = cluster.wires.server.keys("opened")
    cluster.wires.server.call("ZADD", key, -BRISK.expire_ms, "late")
    await eventually(lambda: opened(cluster) == {"older"})
    await first.feed.publish(posted("late", stamp, "late"))
    assert timestamps(first.told)["late"] == stamp
    assert first.counts.anew == 0


async def test_a_message_told_again_keeps_its_timestamp(cluster: Cluster) -> None:
    """A retry announces a message once more, long after: that is no stall, and it keeps its timestamp."""
    teller = await cluster.join()
    stamp = await send(teller, "once")
    later = await send(teller, "later", own("carol"))
    assert teller.feed.settled >= later
    age(cluster)
    await teller.feed.publish(posted("once", stamp, "once"))
    assert [c.message.timestamp for c in teller.told.changes if isinstance(c, Posted)] == [
        str(stamp),
        str(later),
        str(stamp),
    ]
    assert teller.counts.anew == 0


async def test_a_mailbox_stays_in_order_behind_a_message_told_late(cluster: Cluster) -> None:
    """What was stamped before, in the same mailbox or sender's copies, and is told behind it, has a later timestamp."""
    teller = await cluster.join()
    stamp = await teller.feed.open("late")
    age(cluster)
    await teller.feed.settle(stamp, DEADLINE_S)
    other = await teller.feed.open("behind")
    copy = await teller.feed.open("copy")
    elsewhere = await teller.feed.open("elsewhere")
    await teller.feed.publish(Batch(0, 0, (Posted(0, own("bob"), _message("late", stamp), 7),)))
    await teller.feed.publish(posted("behind", other, "behind"))
    await teller.feed.publish(Batch(0, 0, (Posted(0, own("eve"), _message("copy", copy), 8),)))
    await teller.feed.publish(posted("elsewhere", elsewhere, "elsewhere", own("carol")))
    told = timestamps(teller.told)
    assert stamp <= other <= told["late"] < told["behind"]
    assert told["late"] < told["copy"]
    assert told["elsewhere"] == elsewhere
    assert teller.counts.anew == 3
    assert sent("ann") != own("eve")


async def test_stamps_are_never_below_the_floor(cluster: Cluster) -> None:
    """The server's clock is an hour behind what was given before: stamps begin at the floor, and only go on from it."""
    floor = time.time_ns() // 1_000_000 + HOUR_MS
    await cluster.wires.floor.raise_floor(floor)
    first, second = await cluster.join(), await cluster.join()
    stamps = [await send(teller, f"{n}", own(f"{n}")) for n in range(10) for teller in (first, second)]
    assert stamps == sorted(stamps)
    assert stamps[0] >= floor
    assert cluster.wires.floor.at > stamps[-1]


async def test_the_clock_goes_on_where_another_server_began(cluster: Cluster) -> None:
    """The server is restarted empty, again and again: stamps never go back, not even behind what was not told."""
    first, second = await cluster.join(), await cluster.join()
    last = 0
    for n in range(5):
        stamp = await first.feed.open(f"{n}")
        assert stamp > last
        last = max(stamp, first.feed.settled, second.feed.settled)
        cluster.wires.server.kill()
        cluster.wires.server.start()
        await eventually(lambda: len(first.told.resets) == len(second.told.resets) == n + 2)  # noqa: B023
        await eventually(lambda: first.feed.is_fresh() and second.feed.is_fresh())
    assert await second.feed.open("last") > last


async def test_what_is_under_way_when_the_server_restarts_is_not_passed(cluster: Cluster) -> None:
    """A stamp is open while the server comes back empty: nothing from it on is settled until it had time."""
    first, second = await cluster.join(), await cluster.join()
    stamp = await first.feed.open("slow")
    cluster.wires.server.kill()
    cluster.wires.server.start()
    await eventually(lambda: len(first.told.resets) == len(second.told.resets) == 2)
    later = await send(second, "quick")
    assert later > stamp > second.feed.settled
    await first.feed.publish(posted("slow", stamp, "slow"))
    assert timestamps(first.told) == {"quick": later, "slow": stamp}
    assert first.counts.anew == 0
    age(cluster)
    assert await second.feed.settle(later, DEADLINE_S) >= later


async def test_what_comes_too_late_from_before_a_restart_is_told_anew(cluster: Cluster) -> None:
    """The same, but it is told when it had been passed: under a later timestamp, and counted."""
    first, second = await cluster.join(), await cluster.join()
    stamp = await first.feed.open("late")
    cluster.wires.server.kill()
    cluster.wires.server.start()
    await eventually(lambda: len(first.told.resets) == len(second.told.resets) == 2)
    age(cluster)
    settled = await second.feed.settle(stamp, DEADLINE_S)
    assert settled >= stamp
    await first.feed.publish(posted("late", stamp, "late"))
    assert timestamps(first.told)["late"] > settled
    assert first.counts.anew == 1


async def test_what_was_passed_before_a_restart_is_told_anew(cluster: Cluster) -> None:
    """A stamp expired and was passed, and then the server came back empty: what was shown is not forgotten."""
    teller = await cluster.join()
    stamp = await teller.feed.open("late")
    age(cluster)
    settled = await teller.feed.settle(stamp, DEADLINE_S)
    cluster.wires.server.call("FLUSHALL")
    await eventually(lambda: len(teller.told.resets) == 2)
    assert teller.feed.settled >= settled
    await teller.feed.publish(posted("late", stamp, "late"))
    assert timestamps(teller.told)["late"] > settled
    assert teller.counts.anew == 1


async def test_a_first_start_holds_nothing_back(cluster: Cluster) -> None:
    """Where no stamp was ever given there is nothing to wait for: the first message is settled at once."""
    teller = await cluster.join()
    stamp = await send(teller, "first")
    assert teller.feed.settled >= stamp


async def test_an_import_raises_the_clock(cluster: Cluster) -> None:
    """The floor was raised above the clock while nodes ran: the next node that starts brings it along."""
    first = await cluster.join()
    floor = await first.feed.open("before") + HOUR_MS
    await cluster.wires.floor.raise_floor(floor)
    second = await cluster.join()
    assert await second.feed.open("second") >= floor
    assert await first.feed.open("first") >= floor


async def test_without_the_store_no_stamps_are_given(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The floor can't be raised: stamps are refused before the clock passes it, and everything else goes on."""
    teller = await cluster.join()

    async def away(to: int) -> None:
        raise StoreUnavailable("store_unavailable", "planted")

    monkeypatch.setattr(cluster.wires.floor, "raise_floor", away)
    floor = cluster.wires.floor.at
    stamp = await teller.feed.open("last")
    await teller.feed.publish(posted("last", floor + 5, "last"))  # takes the clock along, but not past the floor
    assert stamp < floor
    with pytest.raises(Unavailable):
        async with asyncio.timeout(DEADLINE_S):
            await teller.feed.open("refused")
    await teller.feed.catch_up()
    assert teller.feed.is_fresh()
    assert teller.feed.settled < floor
    monkeypatch.undo()
    assert await teller.feed.open("given") >= floor
    await eventually(lambda: opened(cluster) == {"given"})


async def test_a_clock_that_can_not_be_followed_stands_still(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's clock is an hour past a floor that can't be raised: nothing above that is settled or stamped."""

    async def away(to: int) -> None:
        raise StoreUnavailable("store_unavailable", "planted")

    floor = time.time_ns() // 1_000_000 - HOUR_MS
    await cluster.wires.floor.raise_floor(floor)
    monkeypatch.setattr(cluster.wires.floor, "raise_floor", away)
    teller = await cluster.join(msgspec.structs.replace(BRISK, publish_s=0.1))
    with pytest.raises(Unavailable):
        await teller.feed.open("refused")
    await teller.feed.publish(posted("told", floor - 1, "told"))
    age(cluster)
    assert await teller.feed.settle(floor - 1, DEADLINE_S) == floor - 1
    for _ in range(3):
        await teller.feed.catch_up()
        assert teller.feed.settled == floor - 1


def _message(name: str, timestamp: int) -> Message:
    return Message("ann", name, "bob", str(timestamp), name, 1)


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
