"""Following: each message once for ever, whatever fails, and what can't be continued said."""

import asyncio
import itertools
import shutil
from pathlib import Path

import pytest

from tests.followed import cast, every_way, texts
from tests.scene import Line, scene
from tests.server import ServerProcess
from tidings import AnotherHistory, Client, Retries, TidingsError, Unreachable
from tidings.client import Following
from tidings.client.calls import Way
from tidings.errors import Malformed, Unknown
from tidings.model import Message


@every_way
@scene
async def test_each_message_once_whatever_is_killed(way: Way, tmp_path: Path) -> None:
    """Bob follows over a bad line, Ann sends; the server is killed twice: he gets each message once, in order."""
    server = ServerProcess.start(tmp_path)
    port = server.url.rpartition(":")[2]
    wanted = [f"message {number}" for number in range(200)]
    try:
        async with cast(server.url) as (tidings, ann, bob, hikers), Line(server.url, seed=3, bytes_max=20_000) as line:
            async with Client(line.url) as over_the_line:
                got: list[Message] = []

                async def follow() -> None:
                    async for message in over_the_line.follow(bob, limit=7, transport=way):
                        got.append(message)
                        if len(got) == 2 * len(wanted):
                            return

                following = asyncio.ensure_future(follow())
                for number, text in enumerate(wanted):
                    await tidings.send(ann, bob, text)
                    await tidings.send_to_group(ann, hikers, text)
                    if number in (60, 120):
                        server.kill()
                        server = await asyncio.to_thread(ServerProcess.start, tmp_path, "--port", port)
                await following
            assert line.cuts
            for mailbox in (bob, hikers):
                assert [message.message for message in got if message.recipient_id == mailbox] == wanted
    finally:
        server.kill()


@scene
async def test_a_cursor_is_saved_when_all_before_it_was_handled(server: ServerProcess) -> None:
    """Bob's program dies while it handles a message: it gets that one again, none is left out, and ids tell doubles."""
    saved: list[str] = []

    async def keep(cursor: str) -> None:
        saved.append(cursor)

    async with cast(server.url) as (tidings, ann, bob, _):
        for number in range(6):
            await tidings.send(ann, bob, str(number))
        following = tidings.follow(bob, save=saved.append, limit=3, transport="poll")
        first = [await anext(following) for _ in range(3)]
        assert saved == []  # the third one may not have been handled yet
        assert following.cursor is None
        third_to_fifth = [await anext(following), await anext(following)]
        assert saved == [following.cursor]

        again = tidings.follow(
            bob, saved[-1], save=keep, limit=3, transport="poll"
        )  # the fourth and fifth were handed over, not saved
        rest = [await anext(again) for _ in range(3)]
        assert [message.message_id for message in rest[:2]] == [message.message_id for message in third_to_fifth]
        assert [message.message for message in [*first, *rest]] == ["0", "1", "2", "3", "4", "5"]
        await tidings.send(ann, bob, "6")
        assert await texts(again, 1) == ["6"]
        assert len(saved) == 2


@every_way
@scene
async def test_a_place_that_is_kept_is_behind_what_was_handled(way: Way, server: ServerProcess) -> None:
    """Bob's program dies again and again, wherever it is: it goes on from the place kept, and misses nothing."""
    async with cast(server.url) as (tidings, ann, bob, hikers):
        wanted = [str(number) for number in range(30)]
        for text in wanted:
            await tidings.send_to_group(ann, hikers, text)
        saved: list[str] = []
        handled: list[str] = []
        for lived in itertools.cycle((4, 1, 7)):
            following = tidings.follow(bob, saved[-1] if saved else None, save=saved.append, limit=3, transport=way)
            for _ in range(lived):
                (text,) = await texts(following, 1)
                if text not in handled:
                    handled.append(text)
                if len(handled) == len(wanted):
                    break
            await following.aclose()
            if len(handled) == len(wanted):
                break
        assert handled == wanted


@every_way
@scene
async def test_what_could_not_be_saved_is_saved_before_the_next(way: Way, server: ServerProcess) -> None:
    """The disk is full when the cursor is to be kept: the reader is told, and when asking again, it is kept first."""
    saved: list[str] = []
    failing = [OSError("disk full")]

    def save(cursor: str) -> None:
        if failing:
            raise failing.pop()
        saved.append(cursor)

    async with cast(server.url) as (tidings, ann, bob, _):
        await tidings.send(ann, bob, "one")
        following = tidings.follow(bob, save=save, transport=way)
        assert await texts(following, 1) == ["one"]
        with pytest.raises(OSError, match="disk full"):
            await anext(following)
        await tidings.send(ann, bob, "two")
        assert await texts(following, 1) == ["two"]
        assert len(saved) == 1


@every_way
@scene
async def test_a_cancelled_wait_loses_nothing(way: Way, server: ServerProcess) -> None:
    """Bob waits for a moment only, again and again: what comes later is given to the next who waits."""
    async with cast(server.url) as (tidings, ann, bob, _):
        following = tidings.follow(bob, transport=way)
        for number in range(3):
            waiting = asyncio.ensure_future(anext(following))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(waiting), 0.05)
            with pytest.raises(RuntimeError, match="one task at a time"):
                await anext(following)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await tidings.send(ann, bob, str(number))
            assert await texts(following, 1) == [str(number)]


@every_way
@scene
async def test_from_now_on(way: Way, server: ServerProcess) -> None:
    """Who follows from now gets what is sent later, and the place of now is kept before anything comes."""
    saved: list[str] = []
    async with cast(server.url) as (tidings, ann, bob, hikers):
        await tidings.send_to_group(ann, hikers, "before")
        is_saved = asyncio.Event()

        def save(cursor: str) -> None:
            saved.append(cursor)
            is_saved.set()

        waiting = asyncio.ensure_future(anext(tidings.follow(bob, "now", save=save, transport=way)))
        await is_saved.wait()
        await tidings.send_to_group(ann, hikers, "after")
        assert (await waiting).message == "after"


@every_way
@scene
async def test_history_that_broke_off_is_said(way: Way, tmp_path: Path) -> None:
    """An older copy of the store is put back: the reader says so, once, and then begins from the beginning."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    data.mkdir()
    with ServerProcess.start(data) as server:
        async with cast(server.url) as (tidings, ann, bob, _):
            await tidings.send(ann, bob, "one")
        server.terminate()
    shutil.copytree(data, copy)
    saved: list[str] = []
    with ServerProcess.start(data) as server:
        port = server.url.rpartition(":")[2]
        async with Client(server.url) as tidings:
            following = tidings.follow(bob, save=saved.append, transport=way)
            assert await texts(following, 1) == ["one"]
            await tidings.send(ann, bob, "lost")
            assert await texts(following, 1) == ["lost"]
            server.kill()
            shutil.rmtree(data)
            shutil.copytree(copy, data)
            with ServerProcess.start(data, "--port", port):
                with pytest.raises(AnotherHistory):
                    await anext(following)
                await tidings.send(ann, bob, "another")
                assert await texts(following, 2) == ["one", "another"]
                with pytest.raises(AnotherHistory):
                    await anext(tidings.follow(bob, saved[0], transport=way))


@every_way
@scene
async def test_what_will_not_pass_is_raised(way: Way, server: ServerProcess) -> None:
    """Nobody by that name, and a cursor that is none: said at once, and again when asked again."""
    async with Client(server.url) as tidings:
        ann = (await tidings.create_user("ann")).user_id
        wrong: list[tuple[Following, type[TidingsError]]] = [
            (tidings.follow("nobody", transport=way), Unknown),
            (tidings.follow(ann, "none", transport=way), Malformed),
        ]
        for following, kind in wrong:
            for _ in range(2):
                with pytest.raises(kind):
                    await anext(following)


@every_way
@scene
async def test_a_silent_server_is_given_up_if_wished(way: Way, tmp_path: Path) -> None:
    """With a bound on silence, following a server that is gone ends with Unreachable; the reader may go on later."""
    server = ServerProcess.start(tmp_path)
    port = server.url.rpartition(":")[2]
    async with Client(server.url, retries=Retries(total_s=0.2)) as tidings:
        ann = (await tidings.create_user("ann")).user_id
        await tidings.send(ann, ann, "one")
        following = tidings.follow(ann, give_up_s=0.5, transport=way)
        assert await texts(following, 1) == ["one"]
        server.kill()
        with pytest.raises(Unreachable):
            await anext(following)
        with ServerProcess.start(tmp_path, "--port", port):
            await tidings.send(ann, ann, "two")
            assert await texts(following, 1) == ["two"]


@scene
async def test_a_server_with_short_pages_and_waits_is_followed(tmp_path: Path) -> None:
    """A server is set to pages of 3 and waits of 0.1 s: whoever follows asks for less, and lists members, too."""
    with ServerProcess.start(tmp_path, "--page-max", "3", "--wait-max-s", "0.1") as server:
        async with cast(server.url) as (tidings, ann, bob, hikers):
            for number in range(3):
                await tidings.add_member(hikers, (await tidings.create_user(f"member {number}")).user_id)
            assert len([member async for member in tidings.members(hikers, bob)]) == 5
            following = tidings.follow(bob)
            for round_ in range(2):
                for number in range(5):
                    await tidings.send(ann, bob, f"{round_} {number}")
                assert await texts(following, 5) == [f"{round_} {number}" for number in range(5)]
