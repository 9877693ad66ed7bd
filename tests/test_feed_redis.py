"""The feed on Redis, beyond the contract: a server that restarts, hangs, forgets, or is not there."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.pairs import DEADLINE_S
from tests.redis_nodes import BRISK, Cluster, altered, eventually, posted
from tests.wires import RedisWires
from tidings.errors import FeedUnavailable
from tidings.feed.redis.link import Broken, Link
from tidings.feed.redis.wire import Entry, Place
from tidings.model import Altered

pytest_plugins = "tests.opened"
pytestmark = pytest.mark.anyio


async def test_two_nodes_tell_thousands_at_once(cluster: Cluster) -> None:
    """Each of two nodes publishes 5,000 messages at the same time: both are told each one once, in one order."""
    first, second = await cluster.join(), await cluster.join()
    said = [(teller, f"{name} {n}") for n in range(5_000) for name, teller in (("ann", first), ("bob", second))]
    for begin in range(0, len(said), 500):
        await asyncio.gather(*(teller.say(text) for teller, text in said[begin : begin + 500]))
    await first.feed.catch_up()
    await second.feed.catch_up()
    assert first.told.changes == second.told.changes
    assert sorted(first.texts) == sorted(text for _, text in said)
    assert [change.position for change in first.told.changes] == list(range(1, 10_001))
    assert first.told.resets == second.told.resets == [0]


async def test_a_batch_is_told_whole_and_numbered_change_by_change(cluster: Cluster) -> None:
    """A commit of several changes takes as many numbers, and is given to the listener in one piece."""
    first, second = await cluster.join(), await cluster.join()
    await first.feed.publish(altered("ann"))
    await first.feed.publish(altered("bob", "carol", "eve"))
    await second.feed.catch_up()
    assert second.told.changes == [Altered(1, "ann"), Altered(2, "bob"), Altered(3, "carol"), Altered(4, "eve")]
    assert any([c.position for c in batch.changes][-3:] == [2, 3, 4] for batch in second.told.batches)


async def test_those_who_share_a_commit_share_its_telling(cluster: Cluster) -> None:
    """Thirty calls publish one and the same batch: it is told once, and each returns when it was."""
    teller = await cluster.join()
    batch = altered("ann", "bob")
    await asyncio.gather(*(teller.feed.publish(batch) for _ in range(30)))
    assert teller.told.changes == [Altered(1, "ann"), Altered(2, "bob")]


async def test_a_server_that_comes_back_empty(cluster: Cluster) -> None:
    """The server is killed and started anew: both nodes begin anew under one new identity, and go on."""
    first, second = await cluster.join(), await cluster.join()
    await first.say("before")
    await second.feed.catch_up()
    identity = first.feed.identity
    cluster.wires.server.kill()
    cluster.wires.server.start()
    await eventually(lambda: len(first.told.resets) == len(second.told.resets) == 2)
    assert first.feed.identity == second.feed.identity != identity
    await second.say("after")
    await first.feed.catch_up()
    assert first.texts == second.texts == ["after"]
    assert first.feed.is_fresh()
    assert first.counts.resets == second.counts.resets == ["start", "identity"]
    assert first.counts.lost == 1


async def test_a_server_that_comes_back_with_its_news(tmp_path: Path) -> None:
    """It kept its news through a restart, and may have lost the end: that is another feed all the same."""
    wires = RedisWires(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    cluster = Cluster(wires)
    teller = await cluster.join()
    await teller.say("before")
    identity = teller.feed.identity
    wires.server.kill()
    wires.server.start()
    assert wires.server.keys("news")
    await eventually(lambda: len(teller.told.resets) == 2)
    assert teller.feed.identity != identity
    await teller.say("after")
    assert teller.texts == ["after"]
    await wires.close()


async def test_a_server_that_forgets(cluster: Cluster) -> None:
    """FLUSHALL, with all connections left open: both nodes begin anew, and what is published then is told."""
    first, second = await cluster.join(), await cluster.join()
    await first.say("before")
    identity = first.feed.identity
    cluster.wires.server.call("FLUSHALL")
    await eventually(lambda: len(first.told.resets) == len(second.told.resets) == 2)
    assert first.feed.identity == second.feed.identity != identity
    await first.say("after")
    await second.feed.catch_up()
    assert first.texts == second.texts == ["after"]


async def test_what_a_server_took_and_forgot_is_told_all_the_same(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """News is taken, and the server forgets it before anybody read it: it is published again, and then answered."""
    first, second = await cluster.join(), await cluster.join()
    real, may_read = Link.read, asyncio.Event()

    async def held_up(link: Link, after: Place, wait_s: float) -> list[Entry]:
        entries = await real(link, after, wait_s)
        if any(entry.packed for entry in entries):
            await may_read.wait()
        return entries

    monkeypatch.setattr(Link, "read", held_up)
    await first.feed.catch_up()  # what was being read before is through
    await second.feed.catch_up()
    saying = [asyncio.create_task(first.say(str(n))) for n in range(10)]
    (taken,) = cluster.wires.server.keys("news")
    await eventually(lambda: any(b"e" in fields for _, fields in cluster.wires.server.call("XRANGE", taken, "-", "+")))
    identity = first.feed.identity
    cluster.wires.server.call("FLUSHALL")
    await eventually(lambda: first.feed.identity == second.feed.identity != identity)
    assert not any(task.done() for task in saying)
    may_read.set()
    await asyncio.gather(*saying)
    await second.feed.catch_up()
    for teller in (first, second):  # who comes later begins behind what was told by then
        begun = teller.told.resets[-1]
        assert [c.position for c in teller.told.changes] == list(range(begun + 1, 11))
    assert first.texts == [str(n) for n in range(10)]


async def test_a_message_that_is_put_again_and_again_is_told_once(cluster: Cluster) -> None:
    """While the server is away, somebody repeats a send: its news is held once, and told once when it is back."""
    teller = await cluster.join()
    cluster.wires.server.kill()
    await eventually(lambda: not teller.feed.is_fresh())
    for _ in range(5):
        with pytest.raises(FeedUnavailable):
            await teller.feed.publish(posted("once", name="message-1"))
    assert teller.feed.held == 1
    cluster.wires.server.start()
    await eventually(lambda: teller.texts)
    await teller.say("after")
    assert teller.texts == ["once", "after"]
    await teller.feed.publish(posted("once", name="message-1"))
    assert teller.texts == ["once", "after", "once"], "what was read back is told anew"


async def test_a_server_that_forgets_its_script(cluster: Cluster) -> None:
    """SCRIPT FLUSH: the nodes bring it again, nothing is missed, and nothing begins anew."""
    first, second = await cluster.join(), await cluster.join()
    cluster.wires.server.call("SCRIPT", "FLUSH")
    await eventually(lambda: first.counts.lost and second.counts.lost)
    await first.say("after")
    await eventually(lambda: second.texts == ["after"])
    assert first.told.resets == second.told.resets == [0]


async def test_a_hung_server(cluster: Cluster) -> None:
    """A stopped server: no node is fresh any more, publishing is refused in time, and told once when it goes on."""
    first, second = await cluster.join(), await cluster.join()
    cluster.wires.server.stop()
    with pytest.raises(FeedUnavailable):
        async with asyncio.timeout(DEADLINE_S):
            await first.say("refused")
    await eventually(lambda: not first.feed.is_fresh() and not second.feed.is_fresh())
    assert first.feed.proof_age_s >= BRISK.fresh_s
    with pytest.raises(FeedUnavailable):
        async with asyncio.timeout(DEADLINE_S):
            await second.feed.catch_up()
    with pytest.raises(FeedUnavailable):
        async with asyncio.timeout(DEADLINE_S):
            await second.feed.open("message-1")
    assert first.feed.held == 1
    cluster.wires.server.go_on()
    await eventually(lambda: first.feed.is_fresh() and second.feed.is_fresh() and not first.feed.held)
    await first.say("taken")
    await second.feed.catch_up()
    assert first.texts == second.texts == ["refused", "taken"]
    assert first.told.resets == second.told.resets == [0]


async def test_a_turn_whose_answer_is_lost_is_not_taken_twice(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server takes batches, and the link breaks before it says so: they are offered again, and told once."""
    first, second = await cluster.join(), await cluster.join()
    real, lost = Link.ask, 0

    async def lose(link: Link, ask: Any, payloads: Sequence[bytes]) -> Any:
        nonlocal lost
        told = await real(link, ask, payloads)
        if payloads and lost < 5:
            lost += 1
            raise Broken("planted")
        return told

    monkeypatch.setattr(Link, "ask", lose)
    for n in range(10):
        await asyncio.gather(*(first.say(f"{n} {m}") for m in range(10)))
    await eventually(second.feed.is_fresh)
    await second.feed.catch_up()
    assert lost == 5
    assert sorted(second.texts) == sorted(f"{n} {m}" for n in range(10) for m in range(10))
    assert first.told.changes == second.told.changes


async def test_a_half_cut_link(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server is told arrives, and nothing is read back: the link is given up, and another one tried."""
    first, second = await cluster.join(), await cluster.join()
    real = Link.read

    async def deaf(link: Link, after: Place, wait_s: float) -> list[Entry]:
        entries = await real(link, after, wait_s)
        return [] if link._door is second.feed._door else entries

    with monkeypatch.context() as patched:
        patched.setattr(Link, "read", deaf)
        await eventually(lambda: second.counts.lost)
        assert not second.feed.is_fresh()
        await first.say("1")
    await eventually(lambda: second.texts == ["1"] and second.feed.is_fresh())
    assert second.told.resets == [0]


async def test_cut_links(cluster: Cluster) -> None:
    """Every connection is cut again and again while both nodes publish: each message is told once, without a reset."""
    first, second = await cluster.join(), await cluster.join()

    async def cut() -> None:
        for _ in range(10):
            await asyncio.to_thread(cluster.wires.server.call, "CLIENT", "KILL", "TYPE", "normal")
            await eventually(lambda: first.feed.is_fresh() and second.feed.is_fresh())

    async def tell(teller: Any, n: int) -> None:
        text = f"{teller is first} {n}"
        try:
            await teller.say(text)
        except FeedUnavailable:  # it is told all the same
            await eventually(lambda: text in teller.texts)

    await asyncio.gather(cut(), *(tell(teller, n) for n in range(1_000) for teller in (first, second)))
    await cut()
    await asyncio.gather(*(tell(teller, n) for n in range(1_000, 1_010) for teller in (first, second)))
    await first.feed.catch_up()
    await second.feed.catch_up()
    assert first.told.changes == second.told.changes
    assert len(first.texts) == len(set(first.texts)) == 2_020
    assert first.told.resets == second.told.resets == [0]
    assert first.counts.lost > 0


async def test_a_stream_trimmed_past_a_reader(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """News is trimmed before a slow node read it: its listener begins anew where there is no gap behind."""
    bounds = msgspec.structs.replace(BRISK, keep=100)
    first, second = await cluster.join(bounds), await cluster.join(bounds)
    real, may_read = Link.read, asyncio.Event()

    async def slowly(link: Link, after: Place, wait_s: float) -> list[Entry]:
        if link._door is second.feed._door:
            await may_read.wait()
        return await real(link, after, wait_s)

    monkeypatch.setattr(Link, "read", slowly)
    await asyncio.gather(*(first.say(str(n)) for n in range(5)))
    await asyncio.gather(*(first.say(str(n)) for n in range(5, 3_000)))
    may_read.set()
    await second.feed.catch_up()
    assert second.told.resets[0] == 0
    assert second.told.resets[-1] > 2_000
    assert second.told.changes == [c for c in first.told.changes if c.position > second.told.resets[-1]]
    assert second.counts.resets[-1] == "gap"


async def test_news_that_can_not_be_held_is_not_missed(cluster: Cluster) -> None:
    """More is published than a node may hold while the server hangs: all nodes forget, rather than miss it."""
    first = await cluster.join(msgspec.structs.replace(BRISK, held_max=3))
    second = await cluster.join()
    cluster.wires.server.stop()
    outcomes = await asyncio.gather(*(first.say(str(n)) for n in range(10)), return_exceptions=True)
    assert all(isinstance(outcome, FeedUnavailable) for outcome in outcomes)
    cluster.wires.server.go_on()
    await eventually(lambda: "lost" in first.counts.resets and "lost" in second.counts.resets)
    await first.say("after")
    await second.feed.catch_up()
    assert first.texts == second.texts == ["after"]


async def test_a_store_whose_floor_can_not_be_read(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server came back empty while the store is away: no feed is begun, and no node is fresh, until it is back."""
    teller = await cluster.join()
    may_read = asyncio.Event()
    real = cluster.wires.floor.floor

    async def away() -> int:
        await may_read.wait()
        return await real()

    monkeypatch.setattr(cluster.wires.floor, "floor", away)
    cluster.wires.server.call("FLUSHALL")
    await eventually(lambda: not teller.feed.is_fresh())
    assert not cluster.wires.server.keys("feed")
    may_read.set()
    await eventually(teller.feed.is_fresh)
