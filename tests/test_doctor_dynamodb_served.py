"""`tidings doctor` of a store on DynamoDB while nodes serve it, and over lines that fail."""

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.backends import DynamoPlace, key, private, sign_up, to_group
from tests.lived import live
from tests.standin import endpoint
from tests.standin.between import Between, Talk, hush, times
from tidings.errors import UpkeepError
from tidings.store.dynamodb import DynamoStore
from tidings.store.dynamodb.address import address_of
from tidings.store.dynamodb.doctor import examine
from tidings.store.upkeep import Examination

ROUNDS = 60

pytest_plugins = ("tests.opened", "tests.standin.opened")


async def look(through: str, place: DynamoPlace) -> Examination:
    """The doctor's examination, over a door of its own."""
    address = address_of(place.url)._replace(endpoint=through)
    return await examine(address, place.url, lambda _: None)


@pytest.mark.anyio
async def test_a_store_with_traffic_is_sound(tables: DynamoPlace, door: Between) -> None:
    """While two nodes send, block, join and leave all the time, and pages are small, nothing is called a fault."""
    nodes = [await tables.serve() for _ in range(2)]
    ann, bob, carol, group = await live(nodes[0])
    await nodes[0].unblock(ann, carol)

    async def keep_busy(number: int) -> None:
        node, user = nodes[number % 2], (ann, bob)[number % 2]
        ways: list[tuple[Callable[[str, str], Awaitable[object]], str, str]] = [
            (node.add_member, group, carol),
            (node.remove_member, group, carol),
        ]
        if number % 2:
            ways = [
                (node.block, user, carol),
                (node.unblock, user, carol),
            ]
        for n in range(ROUNDS):
            await node.send(private(user, (bob, ann)[number % 2]), key(f"{number} {n}"))
            await asyncio.gather(*(node.send(to_group(user, group)) for _ in range(3)))
            if number < 2:
                change, of, other = ways[n % 2]
                await change(of, other)

    def in_small_pages(talk: Talk) -> None:
        if talk.operation == "Scan":
            talk.request["Limit"] = 40

    door.fault = in_small_pages
    busy = asyncio.gather(*(keep_busy(number) for number in range(4)))
    looks = 0
    while not busy.done():
        assert (await look(door.url, tables)).findings == ()
        looks += 1
    await busy
    assert looks > 1
    assert (await look(door.url, tables)).rows["messages"] == 10 + 4 * 4 * ROUNDS


@pytest.mark.anyio
async def test_what_becomes_visible_a_moment_later_is_no_fault(
    tables: DynamoPlace, there: DynamoStore, door: Between
) -> None:
    """The first answers lack half of what a transaction put, as they may: a second look sees the rest."""
    await live(there)
    left = 1

    def blind(talk: Talk) -> None:
        nonlocal left
        if talk.operation == "Scan" and talk.request["TableName"].endswith("-messages") and left:
            talk.change = lambda answer: answer.update(Items=[i for i in answer["Items"] if i["box"]["S"][0] != "s"])
        if talk.operation == "BatchGetItem" and "seq" in str(talk.request) and left:
            left -= 1
            talk.change = lambda answer: answer.update(Responses={})

    door.fault = blind
    assert (await look(door.url, tables)).findings == ()
    assert left == 0


@pytest.mark.anyio
async def test_a_long_table_is_looked_at_in_little_memory(tables: DynamoPlace, tmp_path: Path) -> None:
    """Three thousand messages: the most that is held at any time is a fraction of them all."""
    store = await tables.serve(mailbox_waiting_max=5_000, writes_waiting_max=5_000, write_wait_s=300)
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    await store.raise_floor(4_000_000_000_000)
    await asyncio.gather(*(store.send(private(ann, bob, "x" * 5_000)) for _ in range(3_000)))
    tracemalloc.start()
    try:
        looked = await look(endpoint(), tables)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert looked.findings == ()
    assert looked.rows["messages"] == 3_000
    assert most < 3_000 * 2 * 5_000 / 2


@pytest.mark.anyio
async def test_a_line_that_breaks_is_no_diagnosis(tables: DynamoPlace, there: DynamoStore, door: Between) -> None:
    """A scan whose first answers are lost goes on; a refusal for good is one line, and nothing is called sound."""
    await live(there)
    door.fault = times(3, hush, "Scan", "BatchGetItem")
    assert (await look(door.url, tables)).findings == ()

    def deny(talk: Talk) -> None:
        if talk.operation == "Scan":
            talk.refuse("AccessDeniedException")

    door.fault = deny
    with pytest.raises(UpkeepError):
        await look(door.url, tables)
