"""Every backend that the contract suites run against, and what a test needs of one beyond its contract.

A new store is one more `Place`, named in `PLACES`. `tests/opened.py` has the fixtures over them; `tests/wires.py` is
the same of feeds.
"""

import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import apsw

from tests.standin import endpoint, moto
from tidings.board import Board
from tidings.config import Settings
from tidings.model import Draft, Found, Group, Key, Message, Start, User, mint
from tidings.store import LoggedStore, Store, open_store
from tidings.store.dynamodb import DynamoStore
from tidings.store.dynamodb.address import Address, address_of
from tidings.store.dynamodb.driver import connected
from tidings.store.dynamodb.setup import prepare
from tidings.store.dynamodb.tables import tables
from tidings.store.sqlite import SqliteStore
from tidings.store.sqlite.file import connect


class Counting:
    """A meter that a test can look at: store calls by name, and the size of each commit."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.batches: list[int] = []
        self.units: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self.conflicts = 0
        self.on_call: Callable[[str], None] | None = None  # told of each store call as it begins

    def store_call(self, name: str) -> None:
        self.calls[name] += 1
        if self.on_call is not None:
            self.on_call(name)

    def batch(self, size: int) -> None:
        self.batches.append(size)

    def operation(self, name: str, is_own: bool) -> None:
        self.operations[name] += 1

    def retry(self, why: str) -> None:
        self.retries[why] += 1

    def conflict(self) -> None:
        self.conflicts += 1

    def capacity(self, kind: str, units: float) -> None:
        self.units[kind] += units  # type: ignore[assignment]  # halves, too


class Place(Protocol):
    """Somewhere a store lives. What is opened here is closed at the end of the test."""

    meter: Counting

    async def serve(self, **changed: Any) -> Store:
        """Open the store, as its server or a node of it; `changed` are settings."""

    async def join(self, server: Any, **changed: Any) -> Store:
        """Open it once more as another process of that server, or another node, would."""

    async def leave(self, store: Any) -> None:
        """Close what was opened here."""

    async def close(self) -> None:
        """Close all of it."""


class LoggedPlace(Place, Protocol):
    """The same of a store that keeps its own news: one server has it, and it is a file."""

    async def serve(self, **changed: Any) -> LoggedStore:
        """Open the store as the one server of it, which begins a run; `changed` are settings."""

    async def join(self, server: Any, **changed: Any) -> LoggedStore:
        """Open it once more as another process of that server would."""

    async def join_run(self, server: LoggedStore, run: int, **changed: Any) -> LoggedStore:
        """Try to join `server` as a worker that was made for another run."""

    def drop_messages(self, mailbox: str, seq: int) -> None:
        """Do what retention does: the messages up to `seq` are kept no more, the head lives on."""

    def drop_news(self, position: int) -> None:
        """Do what trimming does: the news up to `position` is kept no more."""

    def copy(self) -> None:
        """Put a copy of the closed store aside."""

    def put_back(self) -> None:
        """Replace the closed store by that copy, as somebody with a shell would."""


LAG_MAX = 2  # so that of few messages some are in the index and some are not; over HTTP, small stores have none there


class SqlitePlace:
    """A directory with one file."""

    def __init__(self, directory: Path) -> None:
        self.meter = Counting()
        self._file = directory / "tidings.db"
        self._board = Board(0)
        self._aside = directory / "aside"
        self._opened: list[LoggedStore] = []

    async def serve(self, **changed: Any) -> LoggedStore:
        return await self._open(None, changed)

    async def join(self, server: LoggedStore, **changed: Any) -> LoggedStore:
        return await self.join_run(server, server.run, **changed)

    async def join_run(self, server: LoggedStore, run: int, **changed: Any) -> LoggedStore:
        assert isinstance(server, SqliteStore)
        server.share(self._board)
        return await self._open(run, changed)

    async def leave(self, store: LoggedStore) -> None:
        self._opened.remove(store)
        await store.close()

    def drop_messages(self, mailbox: str, seq: int) -> None:
        db = connect(self._file)
        last = db.execute("SELECT timestamp FROM messages WHERE mailbox = ? AND seq = ?", (mailbox, seq)).get
        with db:
            db.execute("DELETE FROM messages WHERE mailbox = ? AND seq <= ?", (mailbox, seq))
            db.execute("DELETE FROM places WHERE mailbox = ? AND seq <= ?", (mailbox, seq))
            db.execute("INSERT OR REPLACE INTO trimmed VALUES (?, ?, ?)", (mailbox, seq, last))
        db.close()

    def open_file(self) -> apsw.Connection:
        """A connection of somebody with a shell."""
        return connect(self._file)

    def drop_news(self, position: int) -> None:
        db = connect(self._file)
        with db:
            db.execute("DELETE FROM alterations WHERE position <= ?", (position,))
            db.execute("UPDATE clock SET forgotten = ?", (position,))
        db.close()

    def copy(self) -> None:
        shutil.copy(self._file, self._aside)

    def put_back(self) -> None:
        for path in self._file.parent.glob("tidings.db-*"):
            path.unlink()
        shutil.copy(self._aside, self._file)

    async def _open(self, run: int | None, changed: dict[str, Any]) -> LoggedStore:
        settings = Settings(store=f"sqlite:///{self._file}", **{"index_lag_max": LAG_MAX, **changed})
        store = await open_store(settings, self.meter, run, None if run is None else self._board)
        self._opened.append(store)
        return store

    async def close(self) -> None:
        for store in reversed(self._opened[:]):
            await self.leave(store)


class LocalStamps:
    """Timestamps for the nodes of one test: the clock's, never less than the last; which are open, and which let go."""

    def __init__(self) -> None:
        self.open_: dict[str, int] = {}
        self.dropped: list[str] = []
        self._last = 0
        self._given: list[int] = []

    def give(self, timestamp: int) -> None:
        """Let the next one be this."""
        self._given.append(timestamp)

    async def open(self, name: str) -> int:
        self._last = max(self._last, time.time_ns() // 1_000_000)
        self.open_[name] = self._given.pop(0) if self._given else self._last
        return self.open_[name]

    def drop(self, name: str) -> None:
        del self.open_[name]
        self.dropped.append(name)


class DynamoPlace:
    """Two tables of their own on a server that may have others."""

    def __init__(self, directory: Path, server: Callable[[], str] = endpoint) -> None:
        self.meter = Counting()
        self.stamps = LocalStamps()
        self.prefix = f"t-{secrets.token_hex(6)}"
        self.url = f"dynamodb://eu-central-1/{self.prefix}?endpoint={server()}"
        self._is_made = False
        self._opened: list[DynamoStore] = []

    async def serve(self, *, through: str | None = None, **changed: Any) -> DynamoStore:
        """`through` is another way to the server than its own URL."""
        if not self._is_made:
            await prepare(address_of(self.url), self.url, changed.get("retention_days"))
            self._is_made = True
        url = self.url if through is None else f"dynamodb://eu-central-1/{self.prefix}?endpoint={through}"
        settings = Settings(store=url, feed="redis://127.0.0.1:1/0", **changed)
        store = await DynamoStore.open(settings, self.meter)
        store.stamp_with(self.stamps)
        self._opened.append(store)
        return store

    async def join(self, server: object, **changed: Any) -> DynamoStore:
        return await self.serve(**changed)

    async def leave(self, store: Any) -> None:
        self._opened.remove(store)
        await store.close()

    async def close(self) -> None:
        for store in reversed(self._opened[:]):
            await self.leave(store)
        if self._is_made:
            await forget(address_of(self.url))


async def forget(address: Address) -> None:
    """Delete the tables at an address."""
    async with connected(address, Counting()) as driver:
        for table in tables(address.prefix):
            await driver.ask("delete_table", TableName=table.name)


LOGGED: dict[str, Callable[[Path], Place]] = {"sqlite": SqlitePlace}
PLACES: dict[str, Callable[[Path], Place]] = {**LOGGED, "dynamodb": DynamoPlace}
WRITTEN: dict[str, Callable[[Path], Place]] = {**PLACES, "moto": lambda directory: DynamoPlace(directory, moto)}


async def sign_up(store: Store, name: str) -> str:
    """A new user's id."""
    return (await store.create_user(User(mint("user"), name))).value.user_id


async def gather_group(store: Store, *members: str) -> str:
    """A new group's id; the members are in it."""
    group_id = (await store.create_group(Group(mint("group"), "friends"))).value.group_id
    for user_id in members:
        await store.add_member(group_id, user_id)
    return group_id


def private(sender_id: str, receiver_id: str, text: str = "hello") -> Draft:
    """A private message on its way."""
    return Draft(sender_id, receiver_id, text, mint("message"), is_group=False)


def to_group(sender_id: str, group_id: str, text: str = "hello all") -> Draft:
    """A group message on its way."""
    return Draft(sender_id, group_id, text, mint("message"), is_group=True)


def key(name: str, content: str = "") -> Key:
    """An idempotency key with the content it stands for."""
    return Key(_digest(name), _digest(content))


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()


async def mailbox(store: Store, name: str) -> list[Message]:
    """All of a mailbox, which has no hole, its timestamps in order."""
    found: list[Found] = []
    while page := await store.read([Start(name, len(found))], 1_000):
        found += page
    assert [one.message.seq for one in found] == list(range(1, len(found) + 1))
    assert all(a.timestamp < b.timestamp for a, b in pairwise(found))
    return [one.message for one in found]
