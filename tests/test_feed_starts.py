"""Starts of the feed on Redis: from a position, without a server, where it is not let in; and what proves it fresh."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from tests.pairs import Recorder
from tests.redis_nodes import BRISK, Cluster, eventually
from tests.redis_server import RedisServer
from tests.wires import CountedFeed, HeldFloor
from tidings.errors import FeedUnavailable, StartError
from tidings.feed.redis import RedisFeed
from tidings.feed.redis.freshness import Freshness
from tidings.feed.redis.wire import Place

pytest_plugins = "tests.opened"
pytestmark = pytest.mark.anyio


async def test_a_start_before_what_is_kept_begins_anew(cluster: Cluster) -> None:
    """A node that wants news from a position on that is no longer there begins where nothing is missing."""
    bounds = msgspec.structs.replace(BRISK, keep=100)
    first = await cluster.join(bounds)
    await asyncio.gather(*(first.say(str(n)) for n in range(3_000)))
    second = await cluster.join(bounds, after=10)
    assert second.told.resets[0] == 10
    assert second.told.resets[-1] > 2_000
    assert second.told.changes == [c for c in first.told.changes if c.position > second.told.resets[-1]]


async def test_a_start_beyond_what_there_is(cluster: Cluster) -> None:
    """A node that asks for more than the feed has given begins at its end."""
    first = await cluster.join()
    await first.say("1")
    second = await cluster.join(after=1_000)
    assert second.told.resets == [1]
    await first.say("2")
    await second.feed.catch_up()
    assert second.texts == ["2"]


async def test_where_a_tail_may_begin(cluster: Cluster) -> None:
    """A starting node asks for the end of the feed: the last changes, and no more than it can take."""
    first = await cluster.join()
    for n in range(10):
        await first.say(str(n))
    later = RedisFeed(cluster.wires.server.url, cluster.generation, cluster.wires.floor, CountedFeed())
    assert await later.recent(3) == 7
    assert await later.recent(100) == 0
    cluster.wires.server.kill()
    assert await later.recent(3) == 0


async def test_a_start_without_a_server(cluster: Cluster) -> None:
    """The server is not there: the node starts, stale; once the server comes, it is told of everything."""
    cluster.wires.server.kill()
    bounds = msgspec.structs.replace(BRISK, start_s=0.1)
    first = await cluster.join(bounds)
    assert first.told.resets == [0]
    assert not first.feed.is_fresh()
    with pytest.raises(FeedUnavailable):
        await first.feed.catch_up()
    with pytest.raises(FeedUnavailable):
        await first.say("early")
    cluster.wires.server.start()
    second = await cluster.join()
    await eventually(lambda: first.feed.is_fresh() and second.texts == ["early"])
    assert first.texts == ["early"]
    assert first.feed.identity == second.feed.identity


async def test_a_server_that_does_not_let_us_in(tmp_path: Path) -> None:
    """A wrong password is said at the start, in one line, without the password."""
    with RedisServer(tmp_path, "--requirepass", "right") as server:
        feed = RedisFeed(f"redis://:wrong@127.0.0.1:{server.port}/0", 1, HeldFloor(), CountedFeed())
        with pytest.raises(StartError) as refused:
            await feed.start(0, Recorder())
        await feed.close()
    assert "wrong" not in str(refused.value).replace("wrong number", "")


async def test_an_address_that_is_none() -> None:
    """An address that can't be read is refused in one line that does not repeat it."""
    with pytest.raises(StartError, match="redis://HOST:PORT/DB") as refused:
        RedisFeed("redis://:se/cret@127.0.0.1:6379/0", 1, HeldFloor(), CountedFeed())
    assert "se" not in str(refused.value).removeprefix("--feed must be ")


def test_a_proof_lasts_a_second_on_the_given_clock() -> None:
    """Fresh until a second after the moment that was proved, not after the proof; then never by waiting alone."""
    now = 100.0
    fresh = Freshness(1.0, lambda _: None, lambda: now)
    assert not fresh.is_fresh()
    fresh.put(Place(7, 2), now)
    now = 100.75
    fresh.reached(Place(7, 1))
    assert not fresh.is_fresh()
    fresh.reached(Place(7, 2))
    assert fresh.is_fresh()
    assert fresh.age_s == 0.75
    now = 101.0
    assert not fresh.is_fresh()


def test_what_was_put_into_another_feed_proves_nothing() -> None:
    """A place of an earlier feed is no place of this one, whatever its number."""
    now = 100.0
    fresh = Freshness(1.0, lambda _: None, lambda: now)
    fresh.put(Place(7, 0), now)
    fresh.begin_at(Place(0, 0))
    fresh.reached(Place(9, 0))
    assert not fresh.is_fresh()


async def test_a_proof_is_of_a_moment_after_it_was_asked_for(cluster: Cluster) -> None:
    """Catching up is not done by what was asked for before: only by what is put into the feed after the call."""
    now = 100.0
    fresh = Freshness(1.0, lambda _: None, lambda: now)
    fresh.put(Place(1, 0), now)
    now = 100.1
    asked = asyncio.create_task(fresh.prove(lambda: None))
    await asyncio.sleep(0)
    assert fresh.is_asked
    fresh.reached(Place(1, 0))
    await asyncio.sleep(0)
    assert fresh.is_fresh()
    assert not asked.done()
    fresh.put(Place(1, 1), now)
    assert not fresh.is_asked
    fresh.reached(Place(1, 1))
    await asked
