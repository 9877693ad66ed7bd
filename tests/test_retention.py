"""Messages that are kept for some days only, on DynamoDB: whatever the server deletes, in any order, however late."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api_client import Api
from tests.backends import Counting, LocalStamps, to_group
from tests.cluster import tables as new_tables
from tests.expiring import DAY_S, DAYS, World, world
from tests.redis_server import RedisServer
from tests.server import DEADLINE_S, ServerProcess, StartFailed
from tests.shell import Shell
from tests.standin.between import Talk
from tests.standin.raw import Raw
from tidings.config import Settings
from tidings.errors import StartError
from tidings.model import Start, own, room, sent
from tidings.store.dynamodb import DynamoStore
from tidings.store.dynamodb.address import address_of
from tidings.store.dynamodb.doctor import examine

pytest_plugins = ("tests.opened",)

SENDS = st.tuples(st.just("send"), st.booleans(), st.integers(0, 1), st.integers(1, 3))
# No sum of these is three days: so what is kept does not hang on the seconds that the test takes.
DAYS_PASS = st.tuples(st.just("pass"), st.sampled_from([0.7, 1.3, 2.1, 3.6]))
DELETES = st.tuples(st.just("delete"), st.sampled_from([0.3, 0.7, 1.0]))
POLLS = st.tuples(st.just("poll"), st.integers(0, 1), st.integers(0, 1))
LOOKS = st.tuples(st.just("look"), st.integers(0, 1))
RESTARTS = st.tuples(st.just("restart"), st.integers(0, 1))
DEAF = st.tuples(st.just("deaf"), st.booleans())  # ends are lost, as those of a node that dies
DEEDS = st.lists(st.one_of(SENDS, SENDS, DAYS_PASS, DELETES, DELETES, POLLS, LOOKS, RESTARTS, DEAF), max_size=30)


def deaf(talk: Talk) -> None:
    if talk.operation == "UpdateItem" and "box" in talk.request["Key"]:
        talk.refuse("AccessDeniedException")


@settings(max_examples=40, deadline=None)
@given(deeds=DEEDS, seed=st.integers(0, 1 << 32))
def test_whatever_expires_no_seq_is_given_twice_and_no_reader_misses_what_is_kept(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[tuple[Any, ...]], seed: int
) -> None:
    """Two nodes send, days pass, the server deletes some of what expired, nodes start anew, or do not give ends.


    All the while every message gets the next number, and each reader all that is kept, once, and is told what is gone.
    """

    async def live() -> None:
        chance = random.Random(seed)
        async with world(tmp_path_factory.mktemp("world")) as here:
            for deed, *how in deeds:
                await do(here, deed, how, chance)
            here.door.fault = lambda _: None
            for mailbox in here.sent:
                await here.poll(0, mailbox)
                await here.poll(1, mailbox, 1)
                await here.nodes[0].raise_floor(here.now_ms + 1_000_000)
            through = address_of(here.place.url)._replace(endpoint=here.door.url)
            assert (await examine(through, "", lambda _: None)).findings == ()

    asyncio.run(live())


async def do(here: World, deed: str, how: list[Any], chance: random.Random) -> None:
    """One of the things that happen."""
    if deed == "send":
        await here.send(*how)
    elif deed == "pass":
        await here.pass_days(*how)
    elif deed == "delete":
        await here.delete(chance, *how)
    elif deed == "poll":
        for mailbox in here.sent:
            await here.poll(how[0], mailbox, how[1])
    elif deed == "look":
        for mailbox in here.sent:
            await here.look(mailbox, chance, how[0])
    elif deed == "restart":
        await here.place.leave(here.nodes[how[0]])
        here.nodes[how[0]] = await here.serve()
    else:
        here.door.fault = deaf if how[0] else lambda _: None


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def ended(here: World, mailbox: str, seq: int) -> None:
    """Wait until a message has its end, which it gets in the background."""
    async with asyncio.timeout(DEADLINE_S):
        while not any(
            item["box"]["S"] == f"{mailbox[0]}#{mailbox[1:]}" and item["seq"]["N"] == str(seq) and "expires" in item
            for item in await here.raw.all(here.raw.messages)
        ):
            pass


@pytest.mark.anyio
async def test_an_emptied_mailbox_goes_on_behind_its_last_number(here: World) -> None:
    """All of a mailbox expires and is deleted: a new node gives the next number, and says what is gone."""
    mailbox = room(here.group)
    await here.send(False, count=2)
    await here.send(False)
    await here.poll(0, mailbox)
    await here.pass_days(DAYS + 1)
    await here.poll(1, mailbox)
    await ended(here, mailbox, 3)
    await here.delete(random.Random(0))
    (slot,) = await here.raw.all(here.raw.messages)
    assert (slot["seq"]["N"], slot["head"]["N"]) == ("0", "3")
    here.nodes.append(await here.serve())
    await here.send(False, node=2)
    for reader in (0, 1):
        await here.poll(reader, mailbox, 2)
    assert {seq for reader, _, seq in here.given if reader == 1} == {4}


@pytest.mark.anyio
async def test_a_head_that_was_remembered_for_days_is_worth_nothing(here: World) -> None:
    """One node knows a head, the other sends behind it, all of that is deleted: the first sends at the end."""
    mailbox = own(here.bob)
    await here.send(True, node=1)
    await here.send(True, node=0, count=2)
    await here.send(True, node=0)
    await here.pass_days(DAYS + 1)
    await here.delete(random.Random(0))
    await here.send(True, node=1)
    await here.poll(0, mailbox)
    await here.poll(0, sent(here.ann))


@pytest.mark.anyio
async def test_what_is_on_its_way_has_not_expired(here: World) -> None:
    """The first messages of a young mailbox are not visible yet, the third is: nobody is told they are gone."""
    await here.send(False, count=3)
    left = 2

    def blind(talk: Talk) -> None:
        nonlocal left
        if talk.operation == "Query" and left:
            left -= 1
            talk.change = lambda answer: answer.update(Items=[i for i in answer["Items"] if i["seq"]["N"] == "3"])

    here.door.fault = blind
    (head,) = await here.nodes[0].heads([room(here.group)])
    assert (head.seq, head.gone) == (3, 0)
    left = 1
    assert len(await here.nodes[0].read([Start(room(here.group))], 10)) == 3
    left = 1
    assert len(await here.nodes[0].read_before(room(here.group), 4, 10)) == 3


@pytest.mark.anyio
async def test_what_retention_costs(here: World) -> None:
    """A message to a group takes a unit and another one for the end of the one before it; a private one 4 and 2."""
    for is_private, units in ((False, 1 + 1), (True, 4 + 2)):
        await here.send(is_private)
        mailboxes = [own(here.bob), sent(here.ann)] if is_private else [room(here.group)]
        here.place.meter.units.clear()
        await here.send(is_private)
        for mailbox in mailboxes:
            await ended(here, mailbox, 1)
        assert here.place.meter.units["write"] == units


@pytest.mark.anyio
async def test_the_doctor_knows_what_has_expired_and_what_is_missing(here: World) -> None:
    """A mailbox whose old messages are gone is sound; one that lacks a young one, or whose head would go, is not."""
    await here.send(False, count=3)
    await here.pass_days(DAYS + 1)
    await here.send(False, count=3)
    await here.nodes[0].raise_floor(here.now_ms + 1_000_000)
    await ended(here, room(here.group), 3)
    await here.delete(random.Random(0))
    through = address_of(here.place.url)._replace(endpoint=here.door.url)

    async def found() -> dict[str, int]:
        return {one.kind: one.count for one in (await examine(through, "", lambda _: None)).findings}

    assert await found() == {}
    messages = {item["seq"]["N"]: item for item in await here.raw.all(here.raw.messages)}
    await here.raw.change(messages["6"], expires=messages["5"]["expires"])
    assert await found() == {"end": 1}
    await here.raw.put(messages["6"])
    await here.raw.delete(messages["5"])
    assert await found() == {"hole": 1}
    await here.raw.put(messages["5"])
    await here.raw.put({"box": messages["5"]["box"], "seq": {"N": "0"}})
    assert await found() == {"malformed": 1}


@pytest.fixture
def store() -> Iterator[str]:
    with new_tables() as made:
        yield made


def test_messages_of_a_store_begin_to_expire(store: str, tmp_path: Path) -> None:
    """A store that kept all is set to keep three days: who comes with a cursor from before is told once what is gone.

    Nodes that are set otherwise do not start. What is sent then has the next number, and is given once.
    """
    with RedisServer(tmp_path) as redis, ExitStack() as stack:

        def start(*flags: str) -> ServerProcess:
            return ServerProcess.start(tmp_path, "--store", store, "--feed", redis.url, *flags)

        with start() as node, Api(node.url) as api:
            ann, bob = api.user("ann"), api.user("bob")
            group = api.group("friends", ann, bob)
            before = api.poll(bob, cursor="now")["cursor"]
        asyncio.run(_send_long_ago(store, ann, group))
        with start() as node, Api(node.url) as api:
            page = api.poll(bob, cursor=before, limit=1)
            assert [m["seq"] for m in page["messages"]] == [1]
        said = Shell().done("store", "init", "--store", store, "--retention-days", str(DAYS))
        assert f"Messages are kept for {DAYS} days." in said
        with pytest.raises(StartFailed) as refused:
            start()
        assert f"--retention-days {DAYS}" in str(refused.value.stderr)
        node = stack.enter_context(start("--retention-days", str(DAYS)))
        api = stack.enter_context(Api(node.url))
        told = api.poll(bob, cursor=page["cursor"])
        assert (told["messages"], told["expired"]) == (None, True)
        again = api.poll(bob, cursor=told["cursor"])
        assert "expired" not in again
        assert api.groupwide(ann, group, "today")["seq"] == 4
        news = api.poll(bob, cursor=again["cursor"])
        assert [(m["message"], m["seq"]) for m in news["messages"]] == [("today", 4)]
        assert "expired" not in news
        told = api.poll(bob, cursor=before)
        assert ([m["seq"] for m in told["messages"]], told["expired"]) == ([4], True)


def test_what_leaves_while_a_node_serves_is_told(store: str, tmp_path: Path) -> None:
    """A node knows where a mailbox ends when its first messages are deleted: who has not read them is told, once."""
    Shell().done("store", "init", "--store", store, "--retention-days", str(DAYS))
    flags = ("--store", store, "--retention-days", str(DAYS), "--tail-window-s", "0")
    with (
        RedisServer(tmp_path) as redis,
        ServerProcess.start(tmp_path, *flags, "--feed", redis.url) as node,
        Api(node.url) as api,
    ):
        ann, bob = api.user("ann"), api.user("bob")
        group = api.group("friends", ann, bob)
        before = api.poll(bob, cursor="now")["cursor"]
        sent_ones = [api.groupwide(ann, group, str(n)) for n in range(3)]
        assert len(api.poll(bob, cursor=before)["messages"]) == 3
        asyncio.run(_forget_two(store))
        told = api.poll(bob, cursor=before)
        assert (told["messages"], told["expired"]) == (sent_ones[2:], True)
        again = api.poll(bob, cursor=told["cursor"])
        assert (again["messages"], "expired" in again) == (None, False)


async def _forget_two(store: str) -> None:
    """The first two of three are deleted, as if they had been sent days before the third."""
    raw = Raw(address_of(store))
    first, second, third = sorted(await raw.all(raw.messages), key=lambda item: int(item["seq"]["N"]))
    await raw.change(third, prev={"N": str(int(third["ts"]["N"]) - 5 * DAY_S * 1000)})
    for item in (first, second):
        await raw.delete(item)


async def _send_long_ago(store: str, ann: str, group: str) -> None:
    """Three messages of five days ago."""
    stamps = LocalStamps()
    node = await DynamoStore.open(Settings(store=store, feed="redis://127.0.0.1:1/0"), Counting())
    node.stamp_with(stamps)
    for n in range(3):
        stamps.give(time.time_ns() // 1_000_000 - 5 * DAY_S * 1000 + n)
        await node.send(to_group(ann, group, f"long ago {n}"))
    await node.close()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"retention_days": 3}, "a SQLite store keeps all"),
        ({"retention_days": 1, "store": "dynamodb://x/y", "feed": "redis://z"}, "can't be less than"),
        ({"retention_days": -1, "store": "dynamodb://x/y", "feed": "redis://z"}, "must be between"),
    ],
)
def test_a_retention_that_can_not_be_meant_is_refused_in_one_line(changed: dict[str, Any], words: str) -> None:
    """On SQLite, for less time than idempotency keys, for less than none."""
    with pytest.raises(StartError, match=words):
        Settings(**changed)


def test_init_sets_the_retention_and_leaves_it(store: str) -> None:
    """It is set, left alone by an init that says nothing of it, ended by 0, refused for less than keys are kept."""
    steps = (
        ((), 0, "DISABLED"),
        (("3",), 3, "ENABLED"),
        ((), 3, "ENABLED"),
        (("0",), 0, "ENABLED"),
        ((), 0, "ENABLED"),
    )
    for days, kept, expiry in steps:
        flags = ("--retention-days", *days) if days else ()
        assert Shell().json("store", "init", "--store", store, *flags)["retentionDays"] == kept
        assert asyncio.run(_expires(store)) == expiry
    refused = Shell().refused("store", "init", "--store", store, "--retention-days", "1", code=2)
    assert "can't be less than" in refused


async def _expires(store: str) -> str:
    raw = Raw(address_of(store))
    answer = await raw.ask("describe_time_to_live", TableName=raw.messages)
    return str(answer["TimeToLiveDescription"]["TimeToLiveStatus"])
