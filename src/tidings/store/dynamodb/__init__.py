"""The store on DynamoDB: many nodes write to two tables, and conditional puts decide between them.

It has no positions: the feed numbers its news. A read of several mailboxes sees each of them as it is at some moment
of the call, and no hole in any; a list of members lags by a moment.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from tidings.config import Settings
from tidings.errors import StartError, StoreUnavailable, Unavailable
from tidings.model import Batch, Draft, Found, Group, Head, Key, Message, Profile, Start, User, Written, own, room
from tidings.stamps import Stamps
from tidings.store import RemoteMeter, Settle
from tidings.store.dynamodb import items
from tidings.store.dynamodb.address import Address, address_of
from tidings.store.dynamodb.announcing import HasTold, Publish
from tidings.store.dynamodb.changes import Changes, Limits
from tidings.store.dynamodb.driver import Driver, Item, Unmet, connected, is_unknown, reason
from tidings.store.dynamodb.gate import IMPORTING, TOLD, Gate, now
from tidings.store.dynamodb.keys import Keys
from tidings.store.dynamodb.lanes import Job, Lanes, mailboxes_of
from tidings.store.dynamodb.mailboxes import Mailboxes
from tidings.store.dynamodb.people import People
from tidings.store.dynamodb.retention import Ends, Retention, check_retention, find_retention
from tidings.store.dynamodb.sends import Sender
from tidings.store.dynamodb.tables import directory_of, messages_of

T = TypeVar("T")

MESSAGE_MAX_BYTES = 350_000  # an item has 400 KB
_PUTS_MAX = 32  # at a time; the driver's connections are twice as many
_START_S = 10.0


class DynamoStore:
    """See `tidings.store` for what every method promises; it is the `Floor` of the clock that gives stamps, too."""

    def __init__(
        self,
        driver: Driver,
        address: Address,
        generation: int,
        retention: Retention | None,
        settings: Settings,
        meter: RemoteMeter,
    ) -> None:
        self.generation = generation
        self._gate = Gate(driver, directory_of(address.prefix).name, generation)
        self._driver = driver
        self._meter = meter
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._table = directory_of(address.prefix).name
        messages = messages_of(address.prefix).name
        limits = Limits(settings.groups_per_user_max, settings.blocks_per_user_max, settings.members_per_group_max)
        self._people = People(driver, self._table)
        ends = Ends(driver, messages, retention)
        self.forgets = retention is not None
        self._boxes = Mailboxes(driver, messages, retention, ends)
        keys = Keys(driver, self._table, settings.news_kept_s)
        self._changes = Changes(driver, self._table, self._people, self._boxes, keys, limits)
        self._sender = Sender(driver, messages, self._people, self._boxes, keys, meter, self._gate)
        self._lanes = Lanes(settings.writes_waiting_max, settings.mailbox_waiting_max, _PUTS_MAX, self._sender.begin)
        self._sender.lanes = self._lanes
        self._turns = asyncio.Semaphore(settings.cold_reads_max)
        self._reading = 0
        self._reading_max = settings.cold_reads_max + settings.reads_waiting_max
        self._stack = AsyncExitStack()

    @classmethod
    async def open(cls, settings: Settings, meter: RemoteMeter) -> "DynamoStore":
        """Open the tables that `tidings store init` made; any number of nodes may. Raises StartError.

        Nothing can be sent before it is told, by `stamp_with`, who gives timestamps.
        """
        address = address_of(settings.store)
        if settings.message_max_bytes > MESSAGE_MAX_BYTES:
            raise StartError(f"--message-max-bytes can't be more than {MESSAGE_MAX_BYTES:,} on DynamoDB")
        async with AsyncExitStack() as stack:
            driver = await stack.enter_async_context(connected(address, meter))
            since = now()
            state = await find_state(driver, address)
            retention = await find_retention(driver, directory_of(address.prefix).name)
            check_retention(retention, settings.retention_days)
            store = cls(driver, address, items.plain(state, "value"), retention, settings, meter)
            store._gate.begin(state, since)
            store._sender.told_up_to = items.plain(state, TOLD)
            store._stack = stack.pop_all()
        return store

    def stamp_with(self, stamps: Stamps) -> None:
        """Take messages' timestamps from there."""
        self._sender.stamps = stamps

    def announce_with(self, publish: Publish, has_told: HasTold) -> None:
        """Tell what others left untold; `has_told` says what was told, by mailbox, seq and timestamp, or may be."""
        self._sender.announcer.join(publish, has_told)

    @property
    def waiting(self) -> int:
        """How many writes wait."""
        return self._lanes.waiting

    async def create_user(self, user: User, key: Key | None = None) -> Written[User]:
        written = await self._write(lambda due: self._changes.create_user(user, key, due))
        self._people.note(f"u#{written.value.user_id}", written.value.username)
        return written

    async def create_group(self, group: Group, key: Key | None = None) -> Written[Group]:
        written = await self._write(lambda due: self._changes.create_group(group, key, due))
        self._people.note(f"g#{written.value.group_id}", written.value.group_name)
        return written

    async def block(self, user_id: str, other_id: str, key: Key | None = None) -> Written[None]:
        written = await self._write(lambda due: self._changes.block(user_id, other_id, key, due))
        await self._sender.passed(own(user_id), other_id)
        return written

    async def unblock(self, user_id: str, other_id: str, key: Key | None = None) -> Written[None]:
        return await self._write(lambda due: self._changes.unblock(user_id, other_id, key, due))

    async def add_member(self, group_id: str, user_id: str, key: Key | None = None) -> Written[None]:
        return await self._write(lambda due: self._changes.add_member(group_id, user_id, key, due))

    async def remove_member(self, group_id: str, user_id: str, key: Key | None = None) -> Written[None]:
        written = await self._write(lambda due: self._changes.remove_member(group_id, user_id, key, due))
        await self._sender.passed(room(group_id), user_id)
        return written

    async def send(self, draft: Draft, key: Key | None = None) -> Written[Message]:
        outcome: asyncio.Future[Written[Message]] = self._loop.create_future()

        def settle(written: Written[Message] | None, error: Exception | None) -> None:
            if outcome.done():
                return
            if written is None:
                outcome.set_exception(error or AssertionError("neither a message nor a reason"))
            else:
                outcome.set_result(written)

        job = self._submit(draft, key, settle)
        try:
            return await outcome
        except asyncio.CancelledError:
            self._lanes.forget(job)
            raise

    def submit(self, draft: Draft, key: Key | None, settle: Settle) -> None:
        self._submit(draft, key, settle)

    def _submit(self, draft: Draft, key: Key | None, settle: Settle) -> Job:
        self._meter.store_call("send")
        self._gate.check()
        mailbox, copies = mailboxes_of(draft, keep_copy=self._settings.sent_copies)
        job = Job(draft, key, mailbox, copies, self._loop.time() + self._settings.write_wait_s, settle)
        self._lanes.put(job)
        return job

    async def find_profile(self, user_id: str) -> Profile | None:
        return await self._read("profile", lambda due: self._people.profile(user_id, due))

    async def find_group(self, group_id: str) -> Group | None:
        return await self._read("group", lambda due: self._people.group(group_id, due))

    async def blocks(self, user_id: str) -> list[str]:
        return await self._read("blocks", lambda due: self._people.blocks(user_id, due))

    async def members(self, group_id: str, after: str, limit: int) -> list[User]:
        return await self._read("members", lambda due: self._people.members(group_id, after, limit, due))

    async def heads(self, mailboxes: Sequence[str]) -> list[Head]:
        return await self._read("heads", lambda due: self._boxes.states(mailboxes, due))

    async def read(self, starts: Sequence[Start], limit: int, until: int | None = None) -> list[Found]:
        return await self._read("read", lambda due: self._boxes.read(starts, limit, due))

    async def read_before(self, mailbox: str, before: int, limit: int, until: int | None = None) -> list[Found]:
        return await self._read("read_before", lambda due: self._boxes.read_before(mailbox, before, limit, due))

    async def position(self) -> int:
        return 0

    def surely_knows(self, run: int, position: int) -> bool:
        return True  # a cursor of another history has another generation

    async def knows(self, run: int, position: int) -> bool:
        return True

    def learn(self, batch: Batch) -> None:
        """Take what the feed tells for guesses of heads, so that who sends behind other nodes meets no conflict."""
        self._sender.learn(batch.changes)

    async def floor(self) -> int:
        due = self._loop.time() + self._settings.read_wait_s
        request = {"TableName": self._table, "Key": items.own_key("floor"), "ConsistentRead": True}
        answer = await self._driver.of_itself("get_item", "read", due, **request)
        return items.plain(answer.get("Item"), "value")

    async def raise_floor(self, to: int) -> None:
        request: dict[str, Any] = {
            "TableName": self._table,
            "Key": items.own_key("floor"),
            "UpdateExpression": "SET #value = :to",
            "ConditionExpression": "attribute_not_exists(#value) OR #value < :to",
            "ExpressionAttributeNames": {"#value": "value"},
            "ExpressionAttributeValues": {":to": items.number(to)},
        }
        try:
            due = self._loop.time() + self._settings.write_wait_s
            await self._driver.of_itself("update_item", "write", due, **request)
        except Unmet:
            return  # it is higher

    async def close(self) -> None:
        await self._lanes.close()
        await self._sender.close()
        await self._gate.close()
        await self._stack.aclose()

    async def _write(self, write: Callable[[float], Coroutine[Any, Any, T]]) -> T:
        self._meter.store_call("write")
        self._gate.check()
        self._lanes.enter()
        try:
            written = await write(self._loop.time() + self._settings.write_wait_s)
            if doubt := self._gate.doubt():
                raise doubt
            return written
        finally:
            self._lanes.leave()

    async def _read(self, name: str, read: Callable[[float], Coroutine[Any, Any, T]]) -> T:
        self._meter.store_call(name)
        due = self._loop.time() + self._settings.read_wait_s  # the wait for a turn is a part of it
        async with self._turn(due):
            return await read(due)

    @asynccontextmanager
    async def _turn(self, due: float) -> AsyncIterator[None]:
        """Wait for one of the reads at a time. Raises Unavailable."""
        if self._reading >= self._reading_max:
            raise Unavailable("overloaded", "Too many reads of the store are waiting.", retry_s=1)
        self._reading += 1
        try:
            try:
                async with asyncio.timeout_at(due):
                    await self._turns.acquire()
            except TimeoutError:
                raise StoreUnavailable("store_unavailable", "The store did not answer in time.", retry_s=2) from None
            try:
                yield
            finally:
                self._turns.release()
        finally:
            self._reading -= 1


async def find_state(driver: Driver, address: Address) -> Item:
    """Which history the tables have, and how it stands. Raises StartError if it can't be had, or is not whole yet."""
    table = directory_of(address.prefix).name
    where = address.endpoint or f"DynamoDB in {address.region}"
    try:
        async with asyncio.timeout(_START_S):
            answer = await driver.ask("get_item", TableName=table, Key=items.own_key("generation"), ConsistentRead=True)
    except TimeoutError:
        raise StartError(f"{where} does not answer") from None
    except Exception as error:
        if not is_unknown(error):
            raise StartError(f"{where} can't be used: {reason(error)}") from None
        answer = {}
    if "Item" not in answer:
        raise StartError(f"{where} has no tables {address.prefix}-... yet; make them: tidings store init")
    if IMPORTING in answer["Item"]:
        raise StartError(f"{address.prefix} is being filled by an import: run that to its end")
    state: Item = answer["Item"]
    return state
