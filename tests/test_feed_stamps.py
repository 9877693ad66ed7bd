"""Timestamps on a cluster: stamps opened, closed, dropped, expired and told too late; what is settled, and when."""

import asyncio
import random

import msgspec
import pytest

from tests.pairs import DEADLINE_S
from tests.redis_nodes import BRISK, HOUR_MS, Cluster, age, eventually, opened, posted, send, timestamps
from tidings.model import Batch, Message, Posted, own

pytest_plugins = "tests.opened"
pytestmark = pytest.mark.anyio


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


def _message(name: str, timestamp: int) -> Message:
    return Message("ann", name, "bob", str(timestamp), name, 1)
