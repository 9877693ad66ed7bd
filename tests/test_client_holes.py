"""Holes: a reader notices what is missing, and what only looks like it."""

import itertools
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.followed import cast, collect, every_way, texts
from tests.scene import Foreign, scene
from tests.server import ServerProcess
from tests.streamed import message
from tidings import Client, Expired, Hole
from tidings.client.calls import Way

Json = dict[str, Any]


@every_way
@scene
async def test_coming_back_to_a_group_is_no_hole(way: Way, server: ServerProcess) -> None:
    """Bob joins a second group late, leaves it, misses messages, comes back: he gets what he may, and no alarm."""
    async with cast(server.url) as (tidings, ann, bob, hikers):
        await tidings.send_to_group(ann, hikers, "one")
        following = tidings.follow(bob, transport=way)
        assert await texts(following, 1) == ["one"]
        cooks = (await tidings.create_group("cooks")).group_id
        await tidings.add_member(cooks, ann)
        for text in ("before", "before"):
            await tidings.send_to_group(ann, cooks, text)
        for stay in ("first", "second", "third"):
            await tidings.add_member(cooks, bob)
            await tidings.send_to_group(ann, cooks, f"{stay} stay")
            await tidings.send_to_group(ann, cooks, f"{stay} stay, later")
            assert await texts(following, 2) == [f"{stay} stay", f"{stay} stay, later"]
            await tidings.remove_member(cooks, bob)
            await tidings.send_to_group(ann, cooks, "without Bob")
            await tidings.send(ann, bob, stay)
            assert await texts(following, 1) == [stay]


@every_way
@pytest.mark.parametrize("seed", range(4))
@scene
async def test_a_restless_life_is_no_hole(seed: int, way: Way, server: ServerProcess) -> None:
    """Bob joins and leaves three groups at random while all write: what he gets is what he may, and never an alarm."""
    dice = random.Random(seed)
    async with cast(server.url) as (tidings, ann, bob, _):
        rooms = [(await tidings.create_group(str(number))).group_id for number in range(3)]
        for room in rooms:
            await tidings.add_member(room, ann)
        inside: set[str] = set()
        may_come: dict[str, list[str]] = {room: [] for room in (bob, *rooms)}  # since he last read, or last joined
        has_come: list[str] = []  # what a stream gave before he left a room may be read after it
        was_for_him: set[str] = set()
        following = tidings.follow(bob, limit=dice.randint(1, 5), with_sent=False, transport=way)
        for number in range(150):
            room, act = dice.choice(rooms), dice.random()
            if act < 0.2 and room in inside:
                await tidings.remove_member(room, bob)
                inside.remove(room)
                may_come[room] = []
            elif act < 0.4 and room not in inside:
                await tidings.add_member(room, bob)
                inside.add(room)
            elif act < 0.6:
                await tidings.send(ann, bob, str(number))
                may_come[bob].append(str(number))
                was_for_him.add(str(number))
            elif act < 0.85:
                await tidings.send_to_group(ann, room, str(number))
                if room in inside:
                    may_come[room].append(str(number))
                    was_for_him.add(str(number))
            else:
                wanted = {*itertools.chain(*may_come.values())}
                got: list[str] = []
                while not wanted <= {*got}:
                    got += await texts(following, 1)
                has_come += got
                assert len({*has_come}) == len(has_come)
                assert {*got} <= was_for_him
                assert way != "poll" or {*got} == wanted
                may_come = {room: [] for room in may_come}


@every_way
@pytest.mark.parametrize("mailbox", ["private", "group", "sent"])
@scene
async def test_a_message_taken_out_of_the_store_is_missed(mailbox: str, way: Way, tmp_path: Path) -> None:
    """Somebody deletes a row of the store's file: Bob's reader notices at its place, and goes on when told to."""
    with ServerProcess.start(tmp_path) as server:
        async with cast(server.url) as (tidings, ann, bob, hikers):
            for number in range(1, 6):
                await tidings.send(ann, bob, f"private {number}")
                await tidings.send(bob, ann, f"sent {number}")
                await tidings.send_to_group(ann, hikers, f"group {number}")
        server.terminate()
    store = sqlite3.connect(tmp_path / "tidings.db")
    assert store.execute("DELETE FROM messages WHERE text = ?", (f"{mailbox} 3",)).rowcount == 1
    store.commit()
    store.close()
    with ServerProcess.start(tmp_path) as server:
        async with Client(server.url) as tidings:
            following = tidings.follow(bob, with_sent=True, limit=4, transport=way)
            got: list[str] = []
            with pytest.raises(Hole) as hole:
                await collect(following, got)
            where = {"private": bob, "group": hikers, "sent": "sent"}[mailbox]
            assert (hole.value.mailbox, hole.value.expected, hole.value.got) == (where, 3, 4)
            assert f"{mailbox} 2" in got
            assert f"{mailbox} 4" not in got
            got += await texts(following, 14 - len(got))
            assert len(set(got)) == 14


class Liar:
    """A broken server: its pages one after another, the last one of them again and again."""

    def __init__(self, *pages: Json, joined: Callable[[], int | None] = lambda: 0) -> None:
        self._pages = list(pages)
        self._joined = joined
        self.reads = 0

    async def __call__(self, request: web.Request) -> web.Response:
        if request.path.startswith("/v1/users/"):
            joined = self._joined()
            hikers = {"groupId": "hikers", "groupName": "hikers", "joinedSeq": joined}
            groups = [hikers] if joined is not None else []
            return web.json_response({"userId": "bob", "username": "bob", "groups": groups, "blocks": []})
        page = self._pages.pop(0) if len(self._pages) > 1 else self._pages[0]
        self.reads += 1
        return web.json_response({"messages": page["messages"], "cursor": f"after {self.reads}", **page})


@scene
async def test_a_hole_that_is_gone_when_asked_again_is_none() -> None:
    """One answer lacks a message, the next to the same question has it: all are given, and nobody is alarmed."""
    liar = Liar(
        {"messages": [message(1)]},
        {"messages": [message(3)]},
        {"messages": [message(2), message(3), message(4)]},
    )
    async with Foreign(liar) as foreign, Client(foreign.url) as tidings:
        following = tidings.follow("bob", transport="poll")
        assert await texts(following, 4) == ["bob 1", "bob 2", "bob 3", "bob 4"]
        asked = [request.query.get("cursor") for request in foreign.asked if "messages" in request.path]
        assert asked == [None, "after 1", "after 1"]


@scene
async def test_doubles_are_dropped_and_disorder_is_said() -> None:
    """A server gives a message twice: it is handed over once. Another message at the same place is told as a hole."""
    liar = Liar(
        {"messages": [message(1), message(2)]},
        {"messages": [message(1), message(2), message(3)]},
        {"messages": [message(3, name="another")]},
    )
    async with Foreign(liar) as foreign, Client(foreign.url) as tidings:
        following = tidings.follow("bob", transport="poll")
        given = [(await anext(following)).message_id for _ in range(3)]
        assert given == ["message-bob-1", "message-bob-2", "message-bob-3"]
        with pytest.raises(Hole) as hole:
            await anext(following)
        assert (hole.value.expected, hole.value.got) == (4, 3)


@scene
async def test_memberships_that_change_meanwhile_are_looked_at_again() -> None:
    """While Bob's page is asked for again, he joins anew: the page is judged by a membership that held throughout."""
    heads = iter([4, 7, 7, 7, 7])
    liar = Liar(
        {"messages": [message(1, to="hikers")]},
        {"messages": [message(5, to="hikers")]},  # of the stay that began after 4
        {"messages": [message(5, to="hikers")]},
        {"messages": [message(8, to="hikers")]},  # of the one that began after 7
        joined=lambda: next(heads),
    )
    async with Foreign(liar) as foreign, Client(foreign.url) as tidings:
        following = tidings.follow("bob", transport="poll")
        assert await texts(following, 2) == ["hikers 1", "hikers 8"]


@scene
async def test_a_stay_that_nobody_saw_is_no_hole() -> None:
    """Bob came and went while the page was asked for: no member before nor after, so nothing is known of that stay."""
    heads = iter([None] * 7 + [8, 8])
    liar = Liar(
        {"messages": [message(1, to="hikers")]},
        *({"messages": [message(5, to="hikers")]} for _ in range(7)),  # of stays that were over too soon
        {"messages": [message(9, to="hikers")]},
        joined=lambda: next(heads),
    )
    async with Foreign(liar) as foreign, Client(foreign.url) as tidings:
        following = tidings.follow("bob", transport="poll")
        assert await texts(following, 2) == ["hikers 1", "hikers 9"]
        cursors = [request.query.get("cursor") for request in foreign.asked if "messages" in request.path]
        assert set(cursors[1:]) == {"after 1"}


@scene
async def test_a_hole_after_coming_back_is_one() -> None:
    """Bob joined after seq 4; a page that begins with 6 lacks 5, whatever was before he joined."""
    liar = Liar(
        {"messages": [message(1, to="hikers")]},
        {"messages": [message(6, to="hikers")]},
        joined=lambda: 4,
    )
    async with Foreign(liar) as foreign, Client(foreign.url) as tidings:
        following = tidings.follow("bob", transport="poll")
        assert await texts(following, 1) == ["hikers 1"]
        with pytest.raises(Hole) as hole:
            await anext(following)
        assert (hole.value.expected, hole.value.got) == (5, 6)
        assert await texts(following, 1) == ["hikers 6"]


@scene
async def test_after_a_cursor_the_first_seq_is_taken_as_it_is() -> None:
    """Who begins with a cursor does not know which seq comes first; from then on, each next one is known."""
    liar = Liar({"messages": [message(17)]}, {"messages": [message(19)]})
    async with Foreign(liar) as foreign, Client(foreign.url) as tidings:
        following = tidings.follow("bob", "some cursor", transport="poll")
        assert await texts(following, 1) == ["bob 17"]
        with pytest.raises(Hole):
            await anext(following)


@scene
async def test_messages_that_are_not_kept_any_more_are_said() -> None:
    """The answer says that it begins later: Expired is raised before its messages, and the jump is no hole."""
    liar = Liar({"messages": [message(1)]}, {"messages": [message(5), message(6)], "expired": True})
    async with Foreign(liar) as foreign, Client(foreign.url) as tidings:
        following = tidings.follow("bob", transport="poll")
        assert await texts(following, 1) == ["bob 1"]
        with pytest.raises(Expired):
            await anext(following)
        assert await texts(following, 2) == ["bob 5", "bob 6"]


@scene
async def test_from_the_beginning_the_first_seq_is_known() -> None:
    """Who reads everything must be given each mailbox from its first message; a server that begins with 2 lacks one."""
    for page in ([message(2)], [message(1), message(2, to="hikers")]):
        async with Foreign(Liar({"messages": page})) as foreign, Client(foreign.url) as tidings:
            with pytest.raises(Hole) as hole:
                await collect(tidings.follow("bob", transport="poll"), [])
            assert (hole.value.expected, hole.value.got) == (1, 2)
