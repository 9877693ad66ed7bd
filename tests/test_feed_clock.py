"""The clock that gives a cluster its timestamps: never back, whatever becomes of server and store."""

import asyncio
import time

import msgspec
import pytest

from tests.pairs import DEADLINE_S
from tests.redis_nodes import BRISK, HOUR_MS, Cluster, age, eventually, opened, posted, send, timestamps
from tidings.errors import StoreUnavailable, Unavailable
from tidings.model import own

pytest_plugins = "tests.opened"
pytestmark = pytest.mark.anyio


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


async def test_a_node_that_starts_does_not_move_the_clock(cluster: Cluster) -> None:
    """Another node has raised the floor in the store, and not told the feed: who starts brings it, the clock stays."""
    first = await cluster.join()
    before = await first.feed.open("before")
    await cluster.wires.floor.raise_floor(time.time_ns() // 1_000_000 + BRISK.ahead_ms)
    second = await cluster.join()
    assert before <= await second.feed.open("after") < before + BRISK.ahead_ms // 2


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
