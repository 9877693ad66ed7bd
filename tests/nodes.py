"""Whole nodes within a test, and their rare moments held open; `tests/opened.py` has fixtures of them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from tests.backends import LoggedPlace
from tests.wires import Wires
from tidings.app import Memory
from tidings.config import Settings
from tidings.directory import Directory
from tidings.feed.local import LocalFeed
from tidings.model import Batch, Message
from tidings.service import Messages, Node, Question
from tidings.store import LoggedStore
from tidings.tail import Tail

NEVER_S = 1_000.0  # between two looks of a feed: it learns of foreign commits by freshening alone


class Served(NamedTuple):
    """One node with its services; `feed` and `store` are its own."""

    store: LoggedStore
    feed: LocalFeed
    memory: Memory
    messages: Messages

    async def poll(self, user: str, **question: Any) -> Any:
        return await self.messages.poll(Question(user, **question))

    async def texts(self, user: str, **question: Any) -> list[str]:
        return [message.message for message in (await self.poll(user, **question)).messages]


def served(store: LoggedStore, feed: LocalFeed, memory: Memory) -> Served:
    node = Node(Settings(), store, feed, memory._tail, memory._directory)
    return Served(store, feed, memory, Messages(node, lambda _: None, lambda _: None))


def memory_of(store: LoggedStore) -> Memory:
    return Memory(Directory(store, 100, 100), Tail(100.0, 1 << 20))


async def join(place: LoggedPlace, store: LoggedStore, wires: Wires, look_s: float = NEVER_S, **changed: Any) -> Served:
    """A process beside `store`, which stands for another one that tells nobody what it writes."""
    joined = await place.join(store, **changed)
    memory = memory_of(joined)
    feed = await wires.start(joined, memory, look_s)
    assert isinstance(feed, LocalFeed)
    return served(joined, feed, memory)


def interpose(monkeypatch: pytest.MonkeyPatch, thing: Any, name: str, after: Callable[[], Awaitable[None]]) -> None:
    """The next call of a method: when it has read what it gives, `after` happens before it gives it."""
    real = getattr(thing, name)

    async def once(*args: Any) -> Any:
        monkeypatch.setattr(thing, name, real)
        given = await real(*args)
        await after()
        return given

    monkeypatch.setattr(thing, name, once)


async def tell(node: Served) -> None:
    """Queue all foreign news for the node; it is applied before whoever waits now goes on."""
    batch: Batch = await node.store.changes(node.feed.position, 100)
    asyncio.get_running_loop().create_task(node.feed.publish(batch))


ROADS = ("route", "plain")


def begin(node: Served, road: str, sender: str, receiver: str, text: str) -> "asyncio.Future[Message]":
    """A private send under way, as the route or as the protocol hands it in."""
    if road == "route":
        return asyncio.create_task(node.messages.send(sender, receiver, text, False, None))
    outcome: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def settle(message: Message | None, error: Exception | None) -> None:
        if message is None:
            outcome.set_exception(error or AssertionError("neither a message nor a reason"))
        else:
            outcome.set_result(message)

    node.messages.submit(sender, receiver, text, False, None, settle)
    return outcome


async def commit_untold(
    alone: Served, monkeypatch: pytest.MonkeyPatch, begun: Callable[[], "asyncio.Future[Message]"]
) -> tuple["asyncio.Future[Message]", Callable[[], None]]:
    """A private send that is in the file, while nobody here was told: its outcome to come, and what tells."""
    writer: Any = alone.store._writer  # type: ignore[attr-defined]  # where a commit waits to be told
    outcomes, held = [], asyncio.Event()

    def hold(*given: Any) -> None:
        outcomes.append(given)
        held.set()

    with monkeypatch.context() as patched:
        patched.setattr(writer, "_deliver", hold)
        sending = begun()
        await held.wait()
    return sending, lambda: writer._deliver(*outcomes[0])
