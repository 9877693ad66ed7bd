"""Streams as a client takes them: fallen back from, come back to, resumed, watched, read no faster than handled."""

import asyncio
import gc
from typing import Any

import pytest
from aiohttp import web

from tests.followed import cast, collect, every_way, texts
from tests.scene import Foreign, Line, scene
from tests.server import ServerProcess
from tests.streamed import CUT, HANG, Streamer, beat, closed, message, told
from tidings import AnotherHistory, Client, Expired, Hole, Retries, TidingsError
from tidings.client import NotUnderstood, Unreachable
from tidings.client.calls import Way
from tidings.client.transports import stream
from tidings.errors import Unknown

STREAMS: tuple[Way, ...] = ("sse", "websocket")
every_stream = pytest.mark.parametrize("way", STREAMS)

SOON = Retries(total_s=5.0, answer_s=0.3)  # so that silence is noticed while a test waits for it


def page(*seqs: int, cursor: str = "") -> dict[str, Any]:
    """The answer to a poll."""
    return {"messages": [message(seq) for seq in seqs], "cursor": cursor or f"c{seqs[-1]}"}


@every_stream
@scene
async def test_a_stream_that_breaks_is_resumed(way: Way) -> None:
    """The connection is lost, and lost again: each time it goes on behind the last message, and none comes twice."""
    streamer = Streamer(
        [beat("c0"), told(1), told(2), CUT],
        [told(2), told(3), CUT],  # which gives one of them again
        [told(4), HANG],
    )
    async with Foreign(streamer) as foreign, Client(foreign.url) as tidings:
        following = tidings.follow("bob", "c0", transport=way)
        assert await texts(following, 4) == ["bob 1", "bob 2", "bob 3", "bob 4"]
    assert streamer.asked == [(way, "c0"), (way, "c2"), (way, "c3")]


@every_way
@scene
async def test_a_line_that_breaks_within_events(way: Way, server: ServerProcess) -> None:
    """The line breaks every few hundred bytes, within heads, events and frames: each message comes once, in order."""
    wanted = [str(number) for number in range(20)]
    async with cast(server.url) as (tidings, ann, bob, _), Line(server.url, seed=5) as line, Client(line.url) as far:
        for text in wanted:
            await tidings.send(ann, bob, text)
        saved = (await tidings.read(bob, limit=1)).cursor
        assert await texts(far.follow(bob, saved, limit=1, transport=way), len(wanted) - 1) == wanted[1:]
        assert line.cuts


@every_stream
@scene
async def test_a_server_that_says_when_is_obeyed(way: Way) -> None:
    """A server that stops says when to come back: not before that is the stream opened again."""
    streamer = Streamer([beat("c0"), told(1), closed("shutting_down", after=0.7)], [told(2), HANG])
    async with Foreign(streamer) as foreign, Client(foreign.url) as tidings:
        following = tidings.follow("bob", "c0", transport=way)
        assert await texts(following, 1) == ["bob 1"]
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await texts(following, 1) == ["bob 2"]
        assert loop.time() - began >= 0.7


@every_stream
@scene
async def test_heartbeats_keep_the_place_warm(way: Way) -> None:
    """Nothing comes for Bob, only heartbeats: the cursor of each is saved, so that he resumes where the server is."""
    saved: list[str] = []
    seen = asyncio.Event()

    def save(cursor: str) -> None:
        saved.append(cursor)
        if cursor == "c0-later":
            seen.set()

    streamer = Streamer([beat("c0"), beat("c0-later"), HANG])
    async with Foreign(streamer) as foreign, Client(foreign.url) as tidings:
        waiting = asyncio.ensure_future(anext(tidings.follow("bob", "old", save=save, transport=way)))
        await seen.wait()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert saved == ["c0", "c0-later"]


@every_stream
@scene
async def test_a_hole_on_a_stream_is_looked_into(way: Way) -> None:
    """A stream skips a message that a poll has: it is given, and nobody is alarmed; the stream goes on behind it."""
    streamer = Streamer(
        [beat("c1"), told(2), told(4), HANG],
        [told(5), HANG],
        poll=lambda cursor: {None: page(1), "c1": page(2, 3, 4), "c2": page(3, 4)}[cursor],
    )
    async with Foreign(streamer) as foreign, Client(foreign.url) as tidings:
        following = tidings.follow("bob", transport=way)
        assert await texts(following, 5) == ["bob 1", "bob 2", "bob 3", "bob 4", "bob 5"]
    assert streamer.ways() == ["poll", way, "poll", way]
    assert streamer.asked[-1] == (way, "c4")


@every_stream
@scene
async def test_a_hole_on_a_stream_that_stays_is_raised(way: Way) -> None:
    """Stream and poll skip the same message: that is a hole, raised once; behind it, following goes on."""
    streamer = Streamer(
        [beat("c1"), told(2), told(4), HANG],
        [told(5), HANG],
        poll=lambda cursor: {None: page(1), "c1": page(2, 4), "c2": page(4)}[cursor],
    )
    async with Foreign(streamer) as foreign, Client(foreign.url) as tidings:
        following = tidings.follow("bob", transport=way)
        got: list[str] = []
        with pytest.raises(Hole) as hole:
            await collect(following, got)
        assert (got, hole.value.expected, hole.value.got) == (["bob 1", "bob 2"], 3, 4)
        assert await texts(following, 2) == ["bob 4", "bob 5"]


@every_stream
@scene
async def test_a_stream_that_begins_later_says_so(way: Way) -> None:
    """Messages are not kept any more: Expired is raised, with what a poll has, and the stream goes on behind that."""
    streamer = Streamer(
        [{"type": "expired"}, told(5), HANG],
        [beat("c6"), told(7), HANG],
        poll=lambda _: {**page(5, 6), "expired": True},
    )
    async with Foreign(streamer) as foreign, Client(foreign.url) as tidings:
        following = tidings.follow("bob", "c1", transport=way)
        with pytest.raises(Expired):
            await anext(following)
        assert await texts(following, 3) == ["bob 5", "bob 6", "bob 7"]


NONE = {
    "no such path": web.json_response({"code": "unknown_path", "detail": "", "retry": False}, status=404),
    "an upgrade is wanted": web.Response(status=426),
    "not built": web.Response(status=501),
    "a proxy's page": web.Response(text="<h1>Log in</h1>", content_type="text/html"),
    "a proxy's trouble": web.Response(text="<h1>Bad gateway</h1>", status=502, content_type="text/html"),
}


@pytest.mark.parametrize("refusal", NONE.values(), ids=NONE)
@scene
async def test_what_can_not_be_had_is_fallen_back_from(refusal: web.Response) -> None:
    """No WebSocket, then no events either: messages come by the next best way, and nobody is troubled."""
    failures: list[TidingsError] = []
    streamer = Streamer(
        [beat("c0"), told(1), CUT],
        poll=lambda cursor: page(2) if cursor == "c1" else page(3),
        refuse={"websocket": refusal},
    )
    async with Foreign(streamer) as foreign, Client(foreign.url) as tidings:
        following = tidings.follow("bob", "c0", tell=failures.append)
        assert await texts(following, 1) == ["bob 1"]
        assert streamer.ways() == ["websocket", "sse"]
        streamer.refuse["sse"] = refusal
        assert await texts(following, 1) == ["bob 2"]
        assert streamer.ways()[-1] == "poll"
    assert failures == []


SILENT = {"breaks before anything came": [CUT], "says nothing": [HANG]}


@pytest.mark.parametrize("script", SILENT.values(), ids=SILENT)
@scene
async def test_a_stream_that_gives_nothing_is_fallen_back_from(script: list[dict[str, Any]]) -> None:
    """A proxy on the way breaks streams at once, or holds back all that they say: polls do it."""
    streamer = Streamer(script, poll=lambda _: page(1))
    async with Foreign(streamer) as foreign, Client(foreign.url, retries=SOON) as tidings:
        assert await texts(tidings.follow("bob", "c0"), 1) == ["bob 1"]
    assert streamer.ways() == ["websocket", "sse", "poll"]


@scene
async def test_a_better_way_is_come_back_to() -> None:
    """A WebSocket could not be had, and then can: after a while it is tried again, and used."""
    refuse = {"websocket": web.Response(status=426), "sse": web.Response(status=404)}
    seqs = iter(range(1, 1_000_000))
    streamer = Streamer([told(1, to="hikers"), HANG], poll=lambda _: page(next(seqs)), refuse=refuse)
    async with Foreign(streamer) as foreign, Client(foreign.url) as tidings:
        following = tidings.follow("bob", "c0")

        while await texts(following, 1) != ["hikers 1"]:
            streamer.refuse.pop("websocket", None)
    assert streamer.ways()[:3] == ["websocket", "sse", "poll"]
    assert streamer.ways()[-1] == "websocket"


@every_stream
@scene
async def test_a_stream_alone_says_why_it_can_not_be_had(way: Way) -> None:
    """Where only streams are wanted, what stands against them is raised: no stream here, or no such user."""
    streamer = Streamer([], refuse={way: NONE["a proxy's page"]})
    async with Foreign(streamer) as foreign, Client(foreign.url) as tidings:
        with pytest.raises(NotUnderstood):
            await anext(tidings.follow("bob", "c0", transport=way))
        with pytest.raises(ValueError, match="there is no transport 'pigeon'"):
            tidings.follow("bob", transport="pigeon")  # type: ignore[arg-type]


@scene
async def test_a_socket_is_closed_with_what_a_poll_is_refused_with() -> None:
    """The codes of a WebSocket are the statuses of polls: nobody by that name, another history, too many at once."""
    refusals = [
        (4404, "unknown_user", Unknown),
        (4410, "cursor_of_another_history", AnotherHistory),
    ]
    for code, name, kind in refusals:
        streamer = Streamer([closed(name, retry=False, close=code)])
        async with Foreign(streamer) as foreign, Client(foreign.url) as tidings:
            with pytest.raises(kind) as refused:
                await anext(tidings.follow("bob", "c0", transport="websocket"))
            assert refused.value.code == name
    told_of: list[TidingsError] = []
    streamer = Streamer([closed("too_many_waits", after=0.1, close=4429)], [told(1), HANG])
    async with Foreign(streamer) as foreign, Client(foreign.url) as tidings:
        following = tidings.follow("bob", "c0", tell=told_of.append, transport="websocket")
        assert await texts(following, 1) == ["bob 1"]
    assert [error.code for error in told_of] == ["too_many_waits"]


@every_stream
@scene
async def test_a_stream_that_falls_silent_is_opened_again(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line goes dead without a word: after two heartbeats that did not come, the stream is opened anew."""
    monkeypatch.setattr(stream, "SILENT_S", 0.2)
    streamer = Streamer([beat("c0"), told(1), HANG], [told(2), HANG])
    async with Foreign(streamer) as foreign, Client(foreign.url) as tidings:
        assert await texts(tidings.follow("bob", "c0", transport=way), 2) == ["bob 1", "bob 2"]


@every_stream
@scene
async def test_who_reads_slowly_is_not_given_more(way: Way) -> None:
    """Bob handles a message while thousands come: they stay with the server, which can't even write them all."""
    many = 20_000
    streamer = Streamer([beat("c0"), *(told(seq, name="x" * 1000 + str(seq)) for seq in range(1, many + 1))])
    async with Foreign(streamer) as foreign, Client(foreign.url) as tidings:
        following = tidings.follow("bob", "c0", transport=way, limit=10)
        assert await texts(following, 1) == ["bob 1"]
        before = -1
        while before != streamer.written:  # until the connection is full
            before = streamer.written
            for _ in range(200):
                await asyncio.sleep(0)
        assert streamer.written < many / 2
        assert await texts(following, many - 1) == [f"bob {seq}" for seq in range(2, many + 1)]


@every_way
@scene
async def test_a_follower_that_is_dropped_holds_nothing(way: Way, server: ServerProcess) -> None:
    """Bob's devices come and go, more than he may hold at once: whoever drops a follower has given its place back."""
    async with Client(server.url) as tidings:
        bob = (await tidings.create_user("bob")).user_id
        await tidings.send(bob, bob, "before")
        place = (await tidings.read(bob)).cursor
        for number in range(15):  # he may hold 10
            await tidings.send(bob, bob, str(number))
            following = tidings.follow(bob, place, transport=way)
            assert await texts(following, number + 1) == [str(each) for each in range(number + 1)]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(following), 0.02)
            del following
            gc.collect()


@every_way
@scene
async def test_a_client_that_is_closed_leaves_nobody_waiting(way: Way, server: ServerProcess) -> None:
    """The client is closed while Bob waits for a message: he is told, and no task is left behind."""
    async with Client(server.url) as tidings:
        bob = (await tidings.create_user("bob")).user_id
        begun = asyncio.Event()
        following = tidings.follow(bob, "now", save=lambda _: begun.set(), transport=way, give_up_s=0.0)
        waiting = asyncio.ensure_future(anext(following))
        await begun.wait()
    with pytest.raises((RuntimeError, Unreachable)):
        await waiting
    assert asyncio.all_tasks() == {asyncio.current_task()}


@every_stream
@scene
async def test_a_proxy_whose_server_is_away_is_outlasted(way: Way) -> None:
    """What stands in front of the server says 502 while that is started again: Bob's stream comes as soon as it can."""
    streamer = Streamer([told(1), HANG], refuse={way: web.Response(status=502)})
    heard: list[str] = []

    def tell(error: TidingsError) -> None:
        heard.append(error.code)
        streamer.refuse.clear()

    async with Foreign(streamer) as foreign, Client(foreign.url) as tidings:
        assert await texts(tidings.follow("bob", "c0", transport=way, tell=tell), 1) == ["bob 1"]
    assert heard == ["http_502"]
