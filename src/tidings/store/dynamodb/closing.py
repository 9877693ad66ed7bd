"""A store is closed for its export, and opened again; every node notices within seconds (gate.py)."""

import asyncio
import secrets
from typing import Any

from tidings.errors import UpkeepError
from tidings.store.dynamodb import items
from tidings.store.dynamodb.address import Address, address_of
from tidings.store.dynamodb.driver import Driver, Item, Unmet
from tidings.store.dynamodb.gate import CLOSED, IMPORTING
from tidings.store.dynamodb.outside import LONG_S, at
from tidings.store.dynamodb.tables import directory_of


async def close_for(driver: Driver, address: Address) -> Item:
    """Close the store; gives the item that says so, of an earlier time if it was closed. Raises UpkeepError."""
    change = {
        "UpdateExpression": "SET #closed = if_not_exists(#closed, :export)",
        "ConditionExpression": "attribute_exists(#value) AND attribute_not_exists(#importing)",
        "ExpressionAttributeNames": {"#closed": CLOSED, "#value": "value", "#importing": IMPORTING},
        "ExpressionAttributeValues": {":export": items.text(secrets.token_hex(16))},
    }
    return await _change(driver, address, change)


def open_again(url: str) -> bool:
    """Let the store take writes again; whether it was closed."""

    async def open_it() -> bool:
        address = address_of(url)
        async with at(address) as driver:
            change = {
                "UpdateExpression": "REMOVE #closed",
                "ConditionExpression": "attribute_exists(#closed)",
                "ExpressionAttributeNames": {"#closed": CLOSED},
            }
            if CLOSED not in await find_state(driver, address):
                return False
            await _change(driver, address, change)
            return True

    return asyncio.run(open_it())


async def find_state(driver: Driver, address: Address) -> Item:
    """The item in which the store says which history it is. Raises UpkeepError."""
    due = asyncio.get_running_loop().time() + LONG_S
    table = directory_of(address.prefix).name
    request = {"TableName": table, "Key": items.own_key("generation"), "ConsistentRead": True}
    item: Item | None = (await driver.read("get_item", due, **request)).get("Item")
    if item is None:
        raise UpkeepError(f"{table} has no history yet; make the tables: tidings store init")
    return item


async def _change(driver: Driver, address: Address, change: dict[str, Any]) -> Item:
    due = asyncio.get_running_loop().time() + LONG_S
    table = directory_of(address.prefix).name
    request = {"TableName": table, "Key": items.own_key("generation"), "ReturnValues": "ALL_NEW", **change}
    try:
        item: Item = (await driver.write("update_item", due, **request))["Attributes"]
    except Unmet:
        if IMPORTING in await find_state(driver, address):
            raise UpkeepError(f"{address.prefix} is being filled by an import; run that to its end") from None
        raise UpkeepError(f"{address.prefix} was changed by somebody else just now; look again") from None
    return item
