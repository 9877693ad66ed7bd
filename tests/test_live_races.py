"""Streams in rare interleavings, held open on purpose: none is forgotten, none is given more than it takes."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest

from tests.backends import LoggedPlace, private, sign_up
from tests.nodes import Served, begin, interpose, join
from tests.wires import Wires
from tidings.errors import Unknown
from tidings.live import Event, Session, Streams
from tidings.live.session import PAGE
from tidings.service import Question
from tidings.store import LoggedStore

pytest_plugins = "tests.opened"
pytestmark = [pytest.mark.anyio, pytest.mark.logged]

DEADLINE_S = 5.0


class Page:
    """An outlet that takes everything, and keeps how many messages were written at a time."""

    is_full = False

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.sizes: list[int] = []
        self.on_write: Callable[[], None] = lambda: None

    def write(self, events: Sequence[Event]) -> None:
        self.on_write()
        self.events += events
        self.sizes.append(len(events))

    def heartbeat(self, cursor: str) -> None:
        pass

    def expired(self) -> None:
        pass


def session_of(node: Served, user: str, cursor: str) -> Session:
    return Streams(node.messages, node.messages._node).holding(Question(user, cursor))


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not happened():  # noqa: ASYNC110  # no event tells of it
            await asyncio.sleep(0)


async def test_a_server_that_stops_sends_away_who_is_just_opening(
    alone: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bob's stream is being opened, his groups are read from the store, when the server begins to stop: he is told."""
    bob = await sign_up(alone.store, "bob")
    cursor = (await alone.poll(bob)).cursor
    alone.memory.reset(alone.feed.position)

    async def stop() -> None:
        alone.memory._tail.drain()

    interpose(monkeypatch, alone.store, "find_profile", stop)
    with session_of(alone, bob, cursor) as session:
        await session.open()
        ending = await asyncio.wait_for(session.run(Page()), DEADLINE_S)
    assert ending.code == "shutting_down"


async def test_what_a_node_missed_is_not_written_at_once(place: LoggedPlace, store: LoggedStore, wires: Wires) -> None:
    """A node stood still while others sent a thousand messages: its streams are given them a page at a time."""
    node = await join(place, store, wires)
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    page = Page()
    with session_of(node, bob, "now") as session:
        await session.open()
        running = asyncio.create_task(session.run(page))
        await until(lambda: session._is_live)
        await asyncio.gather(*(store.send(private(ann, bob, str(n))) for n in range(3 * PAGE)))
        await node.feed.catch_up()
        await until(lambda: len(page.events) == 3 * PAGE)
        session.end()
        await running
    assert max(page.sizes) <= PAGE


class Turns:
    """Counts the turns of the event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self.count += 1
        self._next = self._loop.call_soon(self._turn)

    def stop(self) -> None:
        self._next.cancel()


async def test_a_long_backlog_leaves_others_their_turn(alone: Served) -> None:
    """Bob's streams and polls have far to read, all of it in memory: between two pages of theirs the loop goes on."""
    ann, bob = await sign_up(alone.store, "ann"), await sign_up(alone.store, "bob")
    cursor = (await alone.poll(bob)).cursor
    for n in range(4 * PAGE):
        await alone.messages.send(ann, bob, str(n), False, None)
    turns, outlets = Turns(), [Page() for _ in range(3)]
    written: list[int] = []
    with ExitStack() as stack:
        streams = Streams(alone.messages, alone.messages._node)
        sessions = [stack.enter_context(streams.holding(Question(bob, cursor=cursor))) for _ in outlets]
        for session in sessions:
            await session.open()
        for outlet in outlets:
            outlet.on_write = lambda: written.append(turns.count)
        running = [asyncio.create_task(session.run(outlet)) for session, outlet in zip(sessions, outlets, strict=True)]
        await until(lambda: all(session._is_live for session in sessions))
        for session in sessions:
            session.end()
        await asyncio.gather(*running)
    assert len(written) == 4 * len(outlets)
    later = written[len(outlets) :]  # the first page of each was asked for before
    assert sorted(set(later)) == later
    asked: list[int] = []

    async def ask() -> None:
        async for _ in alone.messages.pages(Question(bob, cursor=cursor, limit=PAGE)):
            asked.append(turns.count)

    await asyncio.gather(ask(), ask(), ask())
    assert len(asked) == 3 * 4
    assert sorted(set(asked[3:])) == asked[3:]
    turns.stop()


async def test_what_is_sent_while_a_stream_is_opened_comes_at_once(
    place: LoggedPlace, store: LoggedStore, wires: Wires, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ann's message is committed by another node after Bob's has looked for news and before he is subscribed: his node
    does not wait for its next look, which may be ten seconds away."""
    here, there = await join(place, store, wires), await join(place, store, wires)
    ann, bob = await sign_up(there.store, "ann"), await sign_up(there.store, "bob")
    cursor = (await here.poll(bob)).cursor
    here.memory.reset(here.feed.position)

    async def send() -> None:
        await there.messages.send(ann, bob, "hello", False, None)

    interpose(monkeypatch, here.store, "find_profile", send)
    page = Page()
    with session_of(here, bob, cursor) as session:
        await session.open()
        running = asyncio.create_task(session.run(page))
        await until(lambda: len(page.events) == 1)
        session.end()
        await running


async def test_a_refused_send_does_not_keep_a_stream_waiting(
    place: LoggedPlace, store: LoggedStore, wires: Wires, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bob's node is woken for Ann's message while its own first write waits, which turns out to be refused: the news
    that the write was to bring comes all the same, not only at the next look."""
    here, there = await join(place, store, wires), await join(place, store, wires)
    ann, bob = await sign_up(there.store, "ann"), await sign_up(there.store, "bob")
    page, gate = Page(), threading.Event()
    with session_of(here, bob, "now") as session:
        await session.open()
        running = asyncio.create_task(session.run(page))
        await until(lambda: session._is_live)
        with monkeypatch.context() as patched:
            patched.setattr(here.store._writer, "_let_pass", gate.wait)  # type: ignore[attr-defined]
            sending = begin(here, "plain", ann, "nobody", "hello?")
            await there.messages.send(ann, bob, "hello", False, None)
            await until(lambda: here.feed._is_put_off)
            gate.set()
            with pytest.raises(Unknown):
                await sending
        await until(lambda: len(page.events) == 1)
        session.end()
        await running
