"""What a node stored and did not tell is told by who appends behind it, before its own; on DynamoDB."""

import asyncio

import pytest

from tests.backends import DynamoPlace, private, sign_up
from tests.standin.between import Between, Talk
from tidings.model import Batch, Posted
from tidings.store.dynamodb import DynamoStore
from tidings.tail import Tail

pytest_plugins = ("tests.opened", "tests.standin.opened")
pytestmark = pytest.mark.anyio


class Told:
    """What a node hears, and says: its tail, and what was published here, in order."""

    def __init__(self, store: DynamoStore) -> None:
        self.tail = Tail(600, 1 << 20)
        self.tail.reset(0, 0)
        self.said: list[int] = []
        self.heard = asyncio.Event()
        store.announce_with(self.publish, self.tail.has_told)

    async def publish(self, batch: Batch) -> None:
        self.said += [change.message.seq for change in batch.changes if isinstance(change, Posted)]
        changes = [
            Posted(self.tail.position + n, c.mailbox, c.message, c.sent_seq)
            for n, c in enumerate(batch.changes, 1)
            if isinstance(c, Posted)
        ]
        self.tail.apply(Batch(self.tail.position, changes[-1].position, tuple(changes)))
        self.heard.set()

    async def until(self, count: int) -> None:
        """Until so many messages were published."""
        async with asyncio.timeout(20):
            while len(self.said) < count:
                self.heard.clear()
                await self.heard.wait()


async def test_who_appends_behind_an_untold_message_tells_it_first(here: DynamoStore, there: DynamoStore) -> None:
    """Two messages are stored by a node that tells nobody: the next writer tells both, then its own, none twice."""
    told = Told(there)
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    for _ in range(2):
        await here.send(private(ann, bob))
    for n in range(3):
        await told.publish((await there.send(private(bob, bob))).batch)
        await told.until(3 + n)
    assert told.said == [1, 2, 3, 4, 5]


async def test_what_was_told_is_not_told_again(here: DynamoStore, there: DynamoStore) -> None:
    """A message that its node told, or that is older than what is remembered, is left alone."""
    told = Told(there)
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    first = await here.send(private(ann, bob))
    told.tail.reset(0, int(first.value.timestamp))  # older than all that is known
    await there.send(private(bob, bob))
    third = await here.send(private(ann, bob))
    await told.publish(third.batch)
    await there.send(private(bob, bob))
    assert told.said == [3]


async def test_a_message_that_nobody_awaits_any_more_is_told(
    tables: DynamoPlace, door: Between, here: DynamoStore
) -> None:
    """Ann's client goes away while her message is put: it is stored, so it is told."""
    told = Told(here)
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    sending: asyncio.Task[object] = asyncio.create_task(here.send(private(ann, bob)))

    def go_away(talk: Talk) -> None:
        if talk.operation == "TransactWriteItems":
            sending.cancel()

    door.fault = go_away
    with pytest.raises(asyncio.CancelledError):
        await sending
    await told.until(1)
    assert told.said == [1]
