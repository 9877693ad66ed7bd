"""What AWS documents, and neither stand-in does (docs/standins.md): a door between gives the answers that AWS would.

Transactions under way, repeats that come too soon, throttling of each kind, tables that are not ready yet.
"""

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from tests.backends import forget, gather_group, key, mailbox, private, sign_up, to_group
from tests.standin import endpoint
from tests.standin.between import Between, Talk, hush, times
from tidings.errors import Conflict, UpkeepError
from tidings.model import Draft, own, room
from tidings.store.dynamodb import DynamoStore, setup
from tidings.store.dynamodb.address import Address
from tidings.store.dynamodb.setup import prepare

pytest_plugins = ("tests.opened", "tests.standin.opened")
pytestmark = pytest.mark.anyio

UNDER_WAY = {"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"}
UNMET = {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}
FINE = {"Code": "None"}

# "The request was denied due to request throttling", in each of the ways that AWS has for it.
THROTTLED = [
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
]


async def _of(store: DynamoStore, is_private: bool) -> tuple[Callable[[], Draft], str]:
    """Messages to Bob, each a transaction, or to a group, each one put; and where they are kept."""
    ann, bob = await sign_up(store, "ann"), await sign_up(store, "bob")
    group = await gather_group(store, ann, bob)
    if is_private:
        return lambda: private(ann, bob), own(bob)
    return lambda: to_group(ann, group), room(group)


@pytest.mark.parametrize("is_private", [True, False])
async def test_whatever_throttles_is_asked_again(
    here: DynamoStore, door: Between, caplog: pytest.LogCaptureFixture, is_private: bool
) -> None:
    """A send is refused once in each way that passes: it is stored, once, in the end, and the log has no error."""
    draft, name = await _of(here, is_private)
    ways: list[tuple[str, dict[str, Any]]] = [(code, {}) for code in THROTTLED]
    if is_private:
        for code in ("ProvisionedThroughputExceeded", "ThrottlingError", "TransactionConflict"):
            ways.append(("TransactionCanceledException", {"CancellationReasons": [FINE, {"Code": code}]}))
    else:
        ways.append(("TransactionConflictException", {}))
    left = ways[:]

    def fault(talk: Talk) -> None:
        if left and talk.operation in ("PutItem", "TransactWriteItems"):
            code, more = left.pop()
            talk.refuse(code, **more)

    door.fault = fault
    assert (await here.send(draft())).value.seq == 1
    assert not left
    assert len(await mailbox(here, name)) == 1
    assert not caplog.records


async def test_a_repeat_that_comes_too_soon_waits_for_the_first(here: DynamoStore, door: Between) -> None:
    """A transaction is done, its answer lost; repeats are told that it is under way: it is there once, and told so."""
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    tries = 0

    def fault(talk: Talk) -> None:
        nonlocal tries
        if talk.operation == "TransactWriteItems":
            tries += 1
            if tries == 1:
                hush(talk)
            elif tries < 4:
                talk.refuse("TransactionInProgressException")

    door.fault = fault
    assert (await here.send(private(ann, bob))).value.seq == 1
    assert tries == 4
    assert len(await mailbox(here, own(bob))) == 1
    tries = 0
    await here.block(ann, bob)
    assert tries == 4
    with pytest.raises(Conflict):
        await here.block(ann, bob)


async def test_a_repeat_beside_its_first_call_is_a_repeat(here: DynamoStore, there: DynamoStore, door: Between) -> None:
    """Ann blocks Bob by one key on two nodes at once: the second meets the block, and the key still under way.

    AWS tells of both, since it judges each item by itself. It is no conflict: it is the same call, and answered alike.
    """
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")

    def overtaken(talk: Talk) -> None:
        talk.first = there.block(ann, bob, key("k"))
        talk.refuse("TransactionCanceledException", CancellationReasons=[UNMET, FINE, UNDER_WAY])

    door.fault = times(1, overtaken, "TransactWriteItems")
    await here.block(ann, bob, key("k"))
    assert await here.blocks(ann) == [bob]
    with pytest.raises(Conflict):
        await here.block(ann, bob, key("another"))


async def test_of_several_reasons_the_first_is_told_though_it_was_not_judged(here: DynamoStore, door: Between) -> None:
    """Adding a member meets a full group, and the stay under way: asked again, that is there, and told first."""
    ann = await sign_up(here, "ann")
    group = await gather_group(here, ann)
    door.fault = times(
        1,
        lambda talk: talk.refuse("TransactionCanceledException", CancellationReasons=[UNDER_WAY, FINE, UNMET]),
        "TransactWriteItems",
    )
    with pytest.raises(Conflict) as caught:
        await here.add_member(group, ann)
    assert caught.value.code == "already_a_member"


async def test_a_floor_that_a_transaction_holds_is_raised_all_the_same(here: DynamoStore, door: Between) -> None:
    """Updates, too, are refused while a transaction is about their item."""
    door.fault = times(2, lambda talk: talk.refuse("TransactionConflictException"), "UpdateItem")
    await here.raise_floor(7)
    assert await here.floor() == 7


class Slow:
    """Tables as AWS makes them: unknown at first, then being made; recovery can be switched on some time later."""

    def __init__(self, unavailable: int = 2) -> None:
        self.made: dict[str, int] = {}  # how often each was asked about since
        self.unavailable = unavailable
        self.recovered: dict[str, int] = {}

    def __call__(self, talk: Talk) -> None:
        name = talk.request["TableName"]
        if talk.operation == "CreateTable":
            self.made[name] = 0
        elif talk.operation == "DescribeTable" and name in self.made:
            self.made[name] += 1
            if self.made[name] == 1:
                talk.refuse("ResourceNotFoundException")
            elif self.made[name] == 2:
                talk.change = _creating
        elif talk.operation == "UpdateContinuousBackups":
            self.recovered[name] = self.recovered.get(name, 0) + 1
            if self.recovered[name] <= self.unavailable:
                talk.refuse("ContinuousBackupsUnavailableException")
        elif self.made.get(name, 3) < 3:
            talk.refuse("ResourceNotFoundException")
        elif talk.operation == "DescribeTimeToLive":
            talk.change = _enabling


def _creating(answer: dict[str, Any]) -> None:
    answer["Table"]["TableStatus"] = "CREATING"


def _enabling(answer: dict[str, Any]) -> None:
    if answer["TimeToLiveDescription"]["TimeToLiveStatus"] == "ENABLED":
        answer["TimeToLiveDescription"]["TimeToLiveStatus"] = "ENABLING"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are asked about more often than a person would."""
    monkeypatch.setattr(setup, "LOOK_S", 0.01)


@pytest.mark.usefixtures("quick")
async def test_init_waits_for_tables_as_aws_makes_them(door: Between) -> None:
    """New tables are unknown, then being made, then without backups: init waits, and has all of it in the end.

    Expiry that is still being switched on is on: it could not be switched on again for an hour.
    """
    address = Address("eu-central-1", f"t-{secrets.token_hex(6)}", endpoint())
    through = address._replace(endpoint=door.url)
    door.fault = slow = Slow()
    first = await prepare(through, "")
    assert len(first.made) == 2
    assert (first.point_in_time_recovery, first.expiry) == (True, True)
    assert set(slow.recovered.values()) == {3}
    door.seen.clear()
    again = await prepare(through, "")
    assert (again.made, again.point_in_time_recovery, again.expiry) == ([], True, True)
    assert "UpdateTimeToLive" not in door.seen
    await forget(address)


@pytest.mark.usefixtures("quick")
async def test_init_beside_another_looks_at_what_that_makes(door: Between) -> None:
    """A table is not to be seen yet when somebody else has just begun to make it: it is waited for, and looked over."""
    address = Address("eu-central-1", f"t-{secrets.token_hex(6)}", endpoint())
    through = address._replace(endpoint=door.url)
    await prepare(address, "")
    door.fault = times(3, lambda talk: talk.refuse("ResourceNotFoundException"), "DescribeTable")
    done = await prepare(through, "")
    assert done.made == []
    await forget(address)


async def test_recovery_that_is_never_to_be_had_is_said(door: Between, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backups stay unavailable: init says so in one line, and what to do."""
    monkeypatch.setattr(setup, "LOOK_S", 0.001)
    monkeypatch.setattr(setup, "WAIT_S", 0.01)
    address = Address("eu-central-1", f"t-{secrets.token_hex(6)}", endpoint())
    door.fault = lambda talk: (
        talk.refuse("ContinuousBackupsUnavailableException") if talk.operation == "UpdateContinuousBackups" else None
    )
    with pytest.raises(UpkeepError) as caught:
        await prepare(address._replace(endpoint=door.url), "")
    assert "try again" in str(caught.value)
    await forget(address)
