"""The store on DynamoDB beyond the contract, continued: reads in pages, holes, costs, stamps and their floor."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from tests.backends import DynamoPlace, gather_group, key, mailbox, private, sign_up, to_group
from tests.server import DEADLINE_S
from tests.standin.between import Between, Talk
from tidings.errors import Refused, StartError, StoreUnavailable, Unknown
from tidings.model import Start, own, room, sent
from tidings.store.dynamodb import DynamoStore

pytest_plugins = ("tests.opened", "tests.standin.opened")
pytestmark = pytest.mark.anyio


def in_small_pages(talk: Talk) -> None:
    """The server gives two items at most, and says that there is more."""
    if talk.operation == "Query":
        talk.request["Limit"] = min(talk.request.get("Limit", 2), 2)


async def test_every_page_is_followed_to_the_end(there: DynamoStore, here: DynamoStore, door: Between) -> None:
    """A server whose answers hold two items: profiles, blocks, members, messages, heads and keys are whole."""
    ann, bob = await sign_up(there, "ann"), await sign_up(there, "bob")
    groups = [await gather_group(there, ann) for _ in range(7)]
    others = [await sign_up(there, str(n)) for n in range(7)]
    for other in others:
        await there.block(ann, other)
        await there.add_member(groups[0], other)
    first = await there.send(private(ann, bob), key("first"))
    for _ in range(9):
        await there.send(private(ann, bob))
    door.fault = in_small_pages
    profile = await here.find_profile(ann)
    assert profile is not None
    assert [m.group_id for m in profile.memberships] == sorted(groups)
    assert await here.blocks(ann) == sorted(others)
    assert [user.user_id for user in await here.members(groups[0], "", 100)] == sorted([ann, *others])
    found = await here.read([Start(own(bob), 1), Start(sent(ann))], 100)
    assert [f.message.seq for f in found if not f.message.sent] == list(range(2, 11))
    assert [f.message.seq for f in found if f.message.sent] == list(range(1, 11))
    assert [f.message.seq for f in await here.read_before(own(bob), 10, 5)] == [5, 6, 7, 8, 9]
    assert (await here.heads([own(bob)]))[0].seq == 10
    assert (await here.send(private(ann, bob), key("first"))).value == first.value
    assert (await here.send(private(ann, bob), key("next"))).value.seq == 11


async def test_long_mailboxes_are_read_over_what_one_answer_holds(tables: DynamoPlace) -> None:
    """Two hundred messages of 16 KiB are three answers of the server: a read and a page backwards have all of them."""
    store = await tables.serve()
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    text = "x" * 16_384
    await asyncio.gather(*(store.send(private(ann, bob, text)) for _ in range(200)))
    found = await store.read([Start(own(bob))], 1_000)
    assert [f.message.seq for f in found] == list(range(1, 201))
    assert [f.message.seq for f in await store.read_before(own(bob), 201, 1_000)] == list(range(1, 201))


async def test_keys_that_the_server_left_out_are_asked_for_again(
    there: DynamoStore, here: DynamoStore, door: Between
) -> None:
    """Of three items that a send asks for, the server gives one at a time: the block among them is not overlooked."""
    ann, bob = await sign_up(there, "ann"), await sign_up(there, "bob")
    await there.block(bob, ann)

    def leave_out(talk: Talk) -> None:
        if talk.operation == "BatchGetItem":
            ((table, wanted),) = talk.request["RequestItems"].items()
            left = wanted["Keys"][1:]
            wanted["Keys"] = wanted["Keys"][:1]
            if left:
                talk.change = lambda answer: answer.update(UnprocessedKeys={table: {**wanted, "Keys": left}})

    door.fault = leave_out
    for _ in range(2):
        with pytest.raises(Refused):
            await here.send(private(ann, bob))
    with pytest.raises(Unknown):
        await here.send(private("user-nobody", ann))
    assert door.seen.count("BatchGetItem") >= 3


def without(seq: int) -> Callable[[Talk], None]:
    """An answer beside a put that is just being made visible: it lacks a message, and has those behind it."""

    def change(answer: dict[str, list[dict[str, dict[str, str]]]]) -> None:
        answer["Items"] = [item for item in answer["Items"] if item.get("seq", {}).get("N") != str(seq)]

    def fault(talk: Talk) -> None:
        if talk.operation == "Query":
            talk.change = change

    return fault


@pytest.mark.parametrize("seq", [1, 3, 6])
async def test_no_read_goes_past_a_hole(there: DynamoStore, here: DynamoStore, door: Between, seq: int) -> None:
    """One message is not visible yet, those behind it are: reads give it nonetheless, and no key is overlooked."""
    ann, bob = await sign_up(there, "ann"), await sign_up(there, "bob")
    told = [(await there.send(private(ann, bob, str(n)), key(str(n)))).value for n in range(6)]
    blind = without(seq)
    reads: list[Callable[[], Awaitable[object]]] = [
        lambda: here.read([Start(own(bob))], 100),
        lambda: here.read([Start(own(bob), seq - 1)], 100),
        lambda: here.read_before(own(bob), 7, 100),
        lambda: here.send(private(ann, bob, str(seq - 1)), key(str(seq - 1))),
    ]
    for read in reads:
        left = 3

        def fault(talk: Talk) -> None:
            nonlocal left
            if left > 0 and talk.operation == "Query":
                left -= 1
                blind(talk)

        door.fault = fault
        given = await read()
        if isinstance(given, list):
            seqs = [f.message.seq for f in given]
            assert seqs in (list(range(1, 7)), list(range(seq, 7)), *([list(range(1, 6)), []] if seq == 6 else []))
    door.fault = lambda _: None
    assert await mailbox(here, own(bob)) == told


async def test_a_hole_that_stays_is_said(tables: DynamoPlace, door: Between) -> None:
    """A message in the middle is gone for good: what is before it is read, what is behind is refused, not given."""
    good = await tables.serve()
    ann = await sign_up(good, "ann")
    for _ in range(5):
        await good.send(private(ann, ann))
    here = await tables.serve(through=door.url)
    door.fault = without(3)
    assert [f.message.seq for f in await here.read([Start(own(ann))], 2)] == [1, 2]
    with pytest.raises(StoreUnavailable) as caught:
        await here.read([Start(own(ann))], 5)
    assert caught.value.code == "store_corrupt"


async def test_the_wait_for_a_turn_is_part_of_the_wait_for_an_answer(tables: DynamoPlace, door: Between) -> None:
    """The store hangs, and one read at a time may ask it: sixty readers are all told so after the time of one."""
    here = await tables.serve(through=door.url, read_wait_s=0.5, cold_reads_max=1, cold_reads_waiting_max=60)
    never = asyncio.Event()

    def hang(talk: Talk) -> None:
        talk.first = never.wait()

    door.fault = hang
    async with asyncio.timeout(DEADLINE_S):  # sixty times half a second would be longer
        told = await asyncio.gather(*(here.find_profile("ann") for _ in range(60)), return_exceptions=True)
    assert [type(error) for error in told] == [StoreUnavailable] * 60
    never.set()


async def test_no_more_reads_wait_than_the_store_answers_in_a_second(tables: DynamoPlace, door: Between) -> None:
    """The store hangs: unless set otherwise, 25 wait for the one that is read, and whoever comes then is refused."""
    here = await tables.serve(through=door.url, read_wait_s=0.5, cold_reads_max=1)
    never = asyncio.Event()

    def hang(talk: Talk) -> None:
        talk.first = never.wait()

    door.fault = hang
    told = await asyncio.gather(*(here.find_profile("ann") for _ in range(27)), return_exceptions=True)
    assert [getattr(error, "code", "") for error in told] == ["store_unavailable"] * 26 + ["overloaded"]
    never.set()


async def test_what_goes_together_costs_as_one(tables: DynamoPlace, door: Between) -> None:
    """Fifty sends to one mailbox are one check and one put; a read of several mailboxes is one call for each.

    (What each call of the API costs is in tests/test_call_table.py.)
    """
    first = await tables.serve()
    ann, bob = await sign_up(first, "ann"), await sign_up(first, "bob")
    group = await gather_group(first, ann, bob)
    here = await tables.serve(through=door.url)
    await here.send(private(ann, bob))

    async def calls(call: Awaitable[object]) -> dict[str, int]:
        door.seen.clear()
        await call
        return Counter(door.seen)

    fifty = asyncio.gather(*(here.send(private(ann, bob)) for _ in range(50)))
    assert await calls(fifty) == {"GetItem": 1, "TransactWriteItems": 1}
    assert await calls(here.heads([own(ann), sent(ann), room(group)])) == {"Query": 3}
    assert await calls(here.read([Start(own(bob)), Start(room(group))], 1_000)) == {"Query": 2}


async def test_units_are_counted(tables: DynamoPlace) -> None:
    """A message of up to 1 KB takes a unit alone, a message and its copy, in one transaction, four; reads count too."""
    store = await tables.serve()
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    group = await gather_group(store, ann)
    for draft, units in ((private(ann, bob), 4), (to_group(ann, group), 1), (private(ann, ann), 1)):
        tables.meter.units.clear()
        await store.send(draft)
        assert tables.meter.units["write"] == units
        assert tables.meter.units["read"] > 0


async def test_a_timestamp_is_the_stamp_but_later_than_what_is_before(tables: DynamoPlace) -> None:
    """A stamp ahead is taken as it is; one behind gives way to the message before it, in either of the mailboxes."""
    store, stamps = await tables.serve(), tables.stamps
    ann, bob, carol = [await sign_up(store, name) for name in ("ann", "bob", "carol")]
    ahead = 4_000_000_000_000
    stamps.give(ahead)
    assert (await store.send(private(ann, bob))).value.timestamp == str(ahead)
    stamps.give(5)
    assert (await store.send(private(carol, bob))).value.timestamp == str(ahead + 1)
    stamps.give(6)
    assert (await store.send(private(ann, carol))).value.timestamp == str(ahead + 1)
    stamps.give(7)
    assert (await store.send(private(carol, carol))).value.timestamp == str(ahead + 2)


async def test_a_stamp_is_let_go_when_nothing_can_come_of_it(tables: DynamoPlace, door: Between) -> None:
    """Refused: none is opened, or it is let go. Stored: the news closes it. Unknown: it stays, to end by itself."""
    good = await tables.serve()
    ann, bob = await sign_up(good, "ann"), await sign_up(good, "bob")
    stored = private(ann, bob)
    await good.send(stored, key("k"))
    await good.block(ann, bob)
    repeat, refused, unknown = private(ann, bob), private(bob, ann), private(ann, bob)
    await good.send(repeat, key("k"))
    with pytest.raises(Refused):
        await good.send(refused)
    here = await tables.serve(through=door.url, write_wait_s=0.2)

    def silence(talk: Talk) -> None:
        talk.is_lost = talk.operation == "TransactWriteItems"

    door.fault = silence
    with pytest.raises(StoreUnavailable):
        await here.send(unknown)
    assert set(tables.stamps.open_) == {stored.message_id, unknown.message_id}


async def test_the_floor_is_only_ever_raised(tables: DynamoPlace) -> None:
    """It is 0 at first; the highest that any node set is what all of them see."""
    nodes = [await tables.serve() for _ in range(2)]
    assert await nodes[0].floor() == 0
    for to, floor in ((10, 10), (5, 10), (10, 10), (11, 11)):
        await nodes[to % 2].raise_floor(to)
        assert [await node.floor() for node in nodes] == [floor, floor]


async def test_the_count_of_waiting_is_of_what_waits(tables: DynamoPlace) -> None:
    """While sends and changes are under way they are counted; afterwards nothing waits."""
    store = await tables.serve()
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    calls = [asyncio.ensure_future(store.send(private(ann, bob))) for _ in range(5)]
    calls.append(asyncio.ensure_future(store.block(ann, bob)))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert store.waiting == 6
    await asyncio.gather(*calls)
    assert store.waiting == 0


async def test_who_goes_away_before_the_put_sends_nothing(tables: DynamoPlace) -> None:
    """Ann's call is given up while it waits behind another: it is not stored, and the next one takes its place."""
    store = await tables.serve()
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    first = asyncio.ensure_future(store.send(private(ann, bob, "first")))
    given_up = asyncio.ensure_future(store.send(private(ann, bob, "given up")))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait((first, given_up))
    assert (await store.send(private(ann, bob, "last"))).value.seq == 2
    assert [m.message for m in await mailbox(store, own(bob))] == ["first", "last"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"through": "http://127.0.0.1:9"}, "can't be used"),
        ({"message_max_bytes": 400_000, "body_max_bytes": 1_000_000}, "message-max-bytes"),
    ],
)
async def test_a_store_that_can_not_be_served_is_refused_in_one_line(
    tables: DynamoPlace, changed: dict[str, object], words: str
) -> None:
    """No server there, or messages that no item holds: one line says so."""
    with pytest.raises(StartError) as caught:
        await tables.serve(**changed)  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
