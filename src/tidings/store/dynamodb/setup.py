"""Making the tables, and looking at those that are there."""

import asyncio
import random
from typing import Any

from tidings.errors import StartError, UpkeepError
from tidings.store import Uncounted
from tidings.store.dynamodb import items
from tidings.store.dynamodb.address import Address
from tidings.store.dynamodb.driver import Driver, code_of, connected, is_unknown, reason
from tidings.store.dynamodb.retention import find_retention, keep_for
from tidings.store.dynamodb.tables import Table, creation, directory_of, key_schema, messages_of, tables
from tidings.store.upkeep import Prepared

WAIT_S = 120.0  # for a new table, and for its backups: AWS takes 10 s or so for each
LOOK_S = 0.5


async def prepare(address: Address, url: str, retention_days: int | None = None) -> Prepared:
    """Make what is missing, and leave alone what is there. Raises UpkeepError, in one line.

    Messages are kept for so many days from now on, 0: for ever; None: as before.
    """
    try:
        async with connected(address, Uncounted()) as driver:
            made = [table.name for table in tables(address.prefix) if await _have(driver, table)]
            for table in tables(address.prefix):
                _check(table, await active(driver, table))
            recovery = all([await _keep_backups(driver, table) for table in tables(address.prefix)])
            expiry = await _expire(driver, directory_of(address.prefix))
            directory = directory_of(address.prefix).name
            found = await find_retention(driver, directory)
            days = (found.days if found else 0) if retention_days is None else retention_days
            if days and not await _expire(driver, messages_of(address.prefix)):
                raise UpkeepError("this server lets nothing expire: messages can only be kept for ever")
            await keep_for(driver, directory, days)
            await _begin(driver, directory)
    except (UpkeepError, StartError):
        raise
    except Exception as error:
        where = address.endpoint or f"DynamoDB in {address.region}"
        raise UpkeepError(f"{where} can't be used: {reason(error)}") from error
    return Prepared(url, [table.name for table in tables(address.prefix)], made, recovery, expiry, days)


async def _have(driver: Driver, table: Table) -> bool:
    """Check a table that is there; make one that is not, and say so."""
    try:
        found = (await driver.ask("describe_table", TableName=table.name))["Table"]
    except Exception as error:
        if not is_unknown(error):
            raise
        try:
            await driver.ask("create_table", **creation(table))
        except Exception as error:
            if code_of(error) != "ResourceInUseException":
                raise
            return False  # somebody made it just now; it is looked over once it is ready
        return True
    _check(table, found)
    return False


def _check(table: Table, found: dict[str, Any]) -> None:
    wrong = fault(table, found)
    if wrong:
        raise UpkeepError(f"{table.name} is there, but is none of ours: {wrong}. Take another prefix, or delete it.")


def fault(table: Table, found: dict[str, Any]) -> str | None:
    """What of a table is not as it must be."""
    types = {one["AttributeName"]: one["AttributeType"] for one in found["AttributeDefinitions"]}
    if _pairs(found["KeySchema"]) != _pairs(key_schema(table.keys)):
        return f"its keys are not {' and '.join(table.keys)}"
    wrong = [name for name, kind in table.keys.items() if types.get(name) != kind]
    if wrong:
        return f"its key {wrong[0]} has another type"
    indexes = {one["IndexName"]: one for one in found.get("GlobalSecondaryIndexes", ())}
    for index in table.indexes:
        there = indexes.get(index.name)
        if there is None or _pairs(there["KeySchema"]) != _pairs(key_schema(index.keys)):
            return f"it has no index {index.name} by {' and '.join(index.keys)}"
        projection = there["Projection"]
        lacks = set(index.carried) - set(projection.get("NonKeyAttributes", ()))
        if projection["ProjectionType"] != "ALL" and lacks:
            return f"its index {index.name} lacks {', '.join(sorted(lacks))}"
    return None


def _pairs(schema: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(one["AttributeName"], one["KeyType"]) for one in schema]


async def active(driver: Driver, table: Table) -> dict[str, Any]:
    """Wait for a table; gives its description. One that was just made may be unknown for a moment, says AWS."""
    for _ in range(int(WAIT_S / LOOK_S)):
        try:
            found: dict[str, Any] = (await driver.ask("describe_table", TableName=table.name))["Table"]
        except Exception as error:
            if not is_unknown(error):
                raise
        else:
            indexes = found.get("GlobalSecondaryIndexes", ())
            states = {found["TableStatus"], *(one.get("IndexStatus", "ACTIVE") for one in indexes)}
            if states <= {"ACTIVE", "UPDATING"}:
                return found
        await asyncio.sleep(LOOK_S)
    raise UpkeepError(f"{table.name} is still not ready; try again later")


async def _keep_backups(driver: Driver, table: Table) -> bool:
    """Switch point-in-time recovery on; false where the server knows no such thing.

    On AWS a new table has no backups yet, for some seconds after it became active; till then it is refused.
    """
    request = {
        "TableName": table.name,
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
    }
    for _ in range(int(WAIT_S / LOOK_S)):
        try:
            return await _offered(driver, "update_continuous_backups", **request)
        except Exception as error:
            if code_of(error) != "ContinuousBackupsUnavailableException":
                raise
        await asyncio.sleep(LOOK_S)
    raise UpkeepError(f"{table.name} has no backups yet, so no point-in-time recovery; try again in some minutes")


async def _expire(driver: Driver, table: Table) -> bool:
    """Let what has expired be deleted; false where the server knows no such thing."""
    try:
        there = (await driver.ask("describe_time_to_live", TableName=table.name))["TimeToLiveDescription"]
    except Exception as error:
        if not is_unknown(error):
            raise
        return False
    if there.get("TimeToLiveStatus") in ("ENABLED", "ENABLING"):
        return True
    wanted = {"Enabled": True, "AttributeName": table.expires}
    return await _offered(driver, "update_time_to_live", TableName=table.name, TimeToLiveSpecification=wanted)


async def _offered(driver: Driver, operation: str, **request: Any) -> bool:
    try:
        await driver.ask(operation, **request)
    except Exception as error:
        if not is_unknown(error):
            raise
        return False
    return True


async def _begin(driver: Driver, table: str) -> None:
    """Begin a history, unless there is one."""
    generation = 0
    while generation == 0:
        generation = random.SystemRandom().getrandbits(64) - (1 << 63)
    item = {**items.own_key("generation"), "value": items.number(generation)}
    try:
        await driver.ask("put_item", TableName=table, Item=item, ConditionExpression="attribute_not_exists(pk)")
    except Exception as error:
        if code_of(error) != "ConditionalCheckFailedException":
            raise
