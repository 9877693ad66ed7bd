"""`tidings doctor` of a store on DynamoDB finds each fault that is planted in real tables, and none in sound ones."""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import pytest

from tests.backends import DynamoPlace, forget
from tests.lived import live
from tests.shell import Shell
from tests.standin import endpoint
from tests.standin.raw import Raw
from tidings.store.dynamodb.address import Address, address_of
from tidings.store.dynamodb.driver import Item
from tidings.store.dynamodb.setup import prepare

ROUNDS = 60

pytest_plugins = ("tests.opened", "tests.standin.opened")


class Cast(NamedTuple):
    """Who is in the sound store, and all that is in its tables."""

    ann: str
    bob: str
    carol: str
    group: str
    directory: list[Item]
    messages: list[Item]

    def at(self, box: str, seq: int) -> Item:
        """The item of a message or copy."""
        return next(item for item in self.messages if (item["box"]["S"], item["seq"]["N"]) == (box, str(seq)))

    def of(self, pk: str, sk: str = "profile") -> Item:
        """An item of the directory."""
        return next(item for item in self.directory if (item["pk"]["S"], item["sk"]["S"]) == (pk, sk))

    def keys(self, attribute: str) -> list[Item]:
        """The keys of sends (`base`), or of other calls (`answer`)."""
        return [item for item in self.directory if item["pk"]["S"].startswith("k#") and attribute in item]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Cast:
    """What a node has written."""

    async def write() -> Cast:
        place = DynamoPlace(tmp_path_factory.mktemp("sound"))
        names = await live(await place.serve())
        raw = Raw(address_of(place.url))
        cast = Cast(*names, await raw.all(raw.directory), await raw.all(raw.messages))
        await place.close()
        return cast

    return asyncio.run(write())


@pytest.fixture
def copy(sound: Cast) -> Iterator[Raw]:
    """Tables with the same in them."""
    address = Address("eu-central-1", f"t-{secrets.token_hex(6)}", endpoint())
    raw = Raw(address)

    async def fill() -> None:
        await prepare(address, "")
        await raw.fill(raw.directory, sound.directory)
        await raw.fill(raw.messages, sound.messages)

    asyncio.run(fill())
    yield raw
    with suppress(Exception):  # a test may have deleted one
        asyncio.run(forget(address))


def url(raw: Raw) -> str:
    return f"dynamodb://{raw.address.region}/{raw.address.prefix}?endpoint={raw.address.endpoint}"


def found(raw: Raw, code: int = 1) -> dict[str, int]:
    """The kinds of findings, each with its count."""
    run = Shell().run("doctor", "--store", url(raw), "--json")
    assert (run.returncode, run.stderr) == (code, ""), run
    return {finding["kind"]: finding["count"] for finding in json.loads(run.stdout)["findings"]}


def test_a_sound_store_has_no_findings(copy: Raw) -> None:
    """Every kind of item, written by a node: nothing to find, nothing is changed, and what was looked for is said."""
    before = [asyncio.run(copy.all(table)) for table in (copy.directory, copy.messages)]
    told = Shell().json("doctor", "--store", url(copy))
    assert told["findings"] == []
    counts = {"messages": 10, "copies": 4, "users": 4, "groups": 2, "memberships": 2, "blocks": 1, "keys": 7}
    assert told["rows"] == counts
    assert [asyncio.run(copy.all(table)) for table in (copy.directory, copy.messages)] == before
    said = Shell().done("doctor", "--store", url(copy))
    for kind in {kind for _, kinds in PLANTS.values() for kind in kinds} | {"tables", "generation"}:
        assert kind in said.splitlines()[1], kind


Plant = Callable[[Raw, Cast], Awaitable[object]]
FRACTION, TEXT = {"N": "1.5"}, {"S": "noon"}


def later(item: Item, ms: int) -> Item:
    return {"N": str(int(item["ts"]["N"]) + ms)}


async def shift(raw: Raw, cast: Cast) -> None:
    """A message and its copy of an hour earlier."""
    for item in (cast.at(f"u#{cast.bob}", 3), cast.at(f"s#{cast.ann}", 3)):
        await raw.change(item, ts=later(item, -3_600_000))


async def store_again(raw: Raw, cast: Cast) -> None:
    """The last message of the group once more behind it, under the same key."""
    item = cast.at(f"g#{cast.group}", 4)
    await raw.change(item, seq={"N": "5"}, ts=later(item, 1))


PLANTS: dict[str, tuple[Plant, dict[str, int]]] = {
    "a message of a group is gone": (lambda raw, cast: raw.delete(cast.at(f"g#{cast.group}", 3)), {"hole": 1}),
    "the first is gone": (lambda raw, cast: raw.delete(cast.at(f"u#{cast.ann}", 1)), {"hole": 1}),
    "a message is gone whose copy is there": (
        lambda raw, cast: raw.delete(cast.at(f"u#{cast.bob}", 2)),
        {"hole": 1, "copies": 1},
    ),
    "the last is gone": (lambda raw, cast: raw.delete(cast.at(f"u#{cast.bob}", 4)), {"copies": 1}),
    "a copy is gone": (lambda raw, cast: raw.delete(cast.at(f"s#{cast.ann}", 4)), {"copies": 1}),
    "a copy of another message": (
        lambda raw, cast: raw.change(cast.at(f"s#{cast.ann}", 2), id={"S": "message-x"}),
        {"copies": 2},
    ),
    "a copy that is said to be elsewhere": (
        lambda raw, cast: raw.change(cast.at(f"u#{cast.bob}", 2), copied={"N": "3"}),
        {"copies": 2},
    ),
    "a copy of a group's message": (
        lambda raw, cast: raw.change(cast.at(f"g#{cast.group}", 2), copied={"N": "2"}),
        {"copies": 1},
    ),
    "a timestamp goes back": (shift, {"timestamps": 2}),
    "the same timestamp twice": (
        lambda raw, cast: raw.change(cast.at(f"g#{cast.group}", 3), ts=cast.at(f"g#{cast.group}", 2)["ts"]),
        {"timestamps": 1},
    ),
    "a message from nobody": (
        lambda raw, cast: raw.change(cast.at(f"g#{cast.group}", 2), by={"S": "user-x"}),
        {"message of nobody": 1},
    ),
    "a user is gone": (
        lambda raw, cast: raw.delete(cast.of(f"u#{cast.bob}")),
        {"message of nobody": 4 + 4 + 4, "membership of nobody": 1},
    ),
    "a group is gone": (
        lambda raw, cast: raw.delete(cast.of(f"g#{cast.group}")),
        {"message of nobody": 4, "membership of nobody": 3},
    ),
    "who is blocked is gone": (
        lambda raw, cast: raw.delete(cast.of(f"u#{cast.carol}")),
        {"block of nobody": 1, "membership of nobody": 1},
    ),
    "joined behind the head": (
        lambda raw, cast: raw.change(cast.of(f"u#{cast.ann}", f"group#{cast.group}"), joined={"N": "5"}),
        {"joined": 1},
    ),
    "blocks miscounted": (lambda raw, cast: raw.change(cast.of(f"u#{cast.ann}"), blocks={"N": "0"}), {"counts": 1}),
    "groups miscounted": (lambda raw, cast: raw.change(cast.of(f"u#{cast.ann}"), groups={"N": "2"}), {"counts": 1}),
    "members miscounted": (
        lambda raw, cast: raw.change(cast.of(f"g#{cast.group}"), members={"N": "7"}),
        {"counts": 1},
    ),
    "a membership is gone": (
        lambda raw, cast: raw.delete(cast.of(f"u#{cast.ann}", f"group#{cast.group}")),
        {"counts": 2},
    ),
    "a key is gone before its time": (
        lambda raw, cast: raw.delete(min(cast.keys("base"), key=lambda item: item["pk"]["S"])),
        {"key to nowhere": 1},
    ),
    "a key that looks behind its message": (
        lambda raw, cast: raw.change(cast.keys("base")[0], base={"N": "9"}),
        {"key to nowhere": 1},
    ),
    "a key that made nobody": (
        lambda raw, cast: raw.change(cast.keys("answer")[0], answer={"S": '{"userId":"user-x","username":"eve"}'}),
        {"key to nowhere": 1},
    ),
    "a key without answer": (lambda raw, cast: raw.change(cast.keys("answer")[0], answer=None), {"malformed": 1}),
    "a key that says nothing": (
        lambda raw, cast: raw.change(cast.keys("answer")[0], answer={"S": "{"}),
        {"malformed": 1},
    ),
    "a key for ever": (lambda raw, cast: raw.change(cast.keys("base")[0], expires=None), {"malformed": 1}),
    "stored twice": (store_again, {"sent twice": 1}),
    "text for a time": (
        lambda raw, cast: raw.change(cast.at(f"u#{cast.ann}", 2), ts=TEXT),
        {"malformed": 1},
    ),
    "half a seq": (lambda raw, cast: raw.change(cast.at(f"u#{cast.ann}", 2), seq=FRACTION), {"malformed": 1}),
    "a mailbox of no kind": (
        lambda raw, cast: raw.change(cast.at(f"u#{cast.ann}", 1), box={"S": "x#y"}),
        {"malformed": 1},
    ),
    "an item of somebody else": (
        lambda raw, _: raw.put({"pk": {"S": "orders"}, "sk": {"S": "1"}}),
        {"malformed": 1},
    ),
    "a membership of another group": (
        lambda raw, cast: raw.change(cast.of(f"u#{cast.ann}", f"group#{cast.group}"), member_of={"S": "group-x"}),
        {"malformed": 1, "counts": 1},
    ),
    "the generation is gone": (lambda raw, cast: raw.delete(cast.of("store", "generation")), {"generation": 1}),
    "the floor is gone": (lambda raw, cast: raw.delete(cast.of("store", "floor")), {"floor": 1}),
    "the floor is low": (lambda raw, cast: raw.change(cast.of("store", "floor"), value={"N": "7"}), {"floor": 1}),
}


@pytest.mark.parametrize("what", PLANTS)
def test_a_planted_fault_is_found(copy: Raw, sound: Cast, what: str) -> None:
    """One thing is done to the tables behind the nodes' backs; the doctor finds that, and nothing else."""
    deed, expected = PLANTS[what]
    asyncio.run(deed(copy, sound))  # type: ignore[arg-type]
    assert found(copy) == expected


def test_what_is_not_as_init_makes_it_is_found(copy: Raw) -> None:
    """No expiry, no backups, provisioned, or without its index: each is named, and what to do; init mends two."""
    off: dict[str, Any] = {"Enabled": False, "AttributeName": "expires"}
    asyncio.run(copy.ask("update_time_to_live", TableName=copy.directory, TimeToLiveSpecification=off))
    no_backups = {"PointInTimeRecoveryEnabled": False}
    asyncio.run(
        copy.ask("update_continuous_backups", TableName=copy.messages, PointInTimeRecoverySpecification=no_backups)
    )
    assert found(copy) == {"tables": 2}
    Shell().done("store", "init", "--store", url(copy))
    assert found(copy, 0) == {}
    asyncio.run(
        copy.ask(
            "update_table",
            TableName=copy.messages,
            BillingMode="PROVISIONED",
            ProvisionedThroughput={"ReadCapacityUnits": 1, "WriteCapacityUnits": 1},
        )
    )
    asyncio.run(
        copy.ask(
            "update_table", TableName=copy.directory, GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": "members"}}]
        )
    )
    said = Shell().run("doctor", "--store", url(copy))
    assert said.returncode == 1
    assert "no index members" in said.stdout
    assert "not paid by use" in said.stdout


def test_no_message_is_told(copy: Raw, sound: Cast) -> None:
    """What people wrote, and their names, stand in no finding, however damaged the tables are; all else is told."""

    async def spoil() -> None:
        for n, item in enumerate(sound.messages):
            await copy.change(item, body={"S": "SECRET"}, ts={"N": str(n)} if n % 3 else TEXT)
        for item in sound.directory:
            if "title" in item:
                await copy.change(item, title={"S": "SECRET"}, stay=None, groups=TEXT)

    asyncio.run(spoil())
    findings = json.loads(Shell().run("doctor", "--store", url(copy), "--json").stdout)["findings"]
    run = Shell().run("doctor", "--store", url(copy))
    assert (run.returncode, run.stderr) == (1, "")
    assert "SECRET" not in run.stdout
    for finding in findings:
        assert f"\n{finding['kind']}: {finding['what']} ({finding['count']})\n  {finding['examples'][0]}" in run.stdout
        assert f"\n  What to do: {finding['advice']}" in run.stdout
        assert 1 <= len(finding["examples"]) <= 5


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("dynamodb://eu-central-1/a?endpoint=http://127.0.0.1:9", "can't be used"),
        ("dynamodb://eu-central-1/nothing-here?endpoint={0}", "tidings store init"),
        ("dynamodb://eu-central-1", "--store must be"),
    ],
)
def test_what_can_not_be_looked_at_is_said_in_one_line(store: str, words: str) -> None:
    """Nobody there, no tables, no prefix: one line and exit code 2."""
    said = Shell().refused("doctor", "--store", store.format(endpoint()), code=2)
    assert words in said
    assert len(said.strip().splitlines()) == 1
