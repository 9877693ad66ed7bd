"""Looks a store on DynamoDB over while nodes serve it; finds what no run of Tidings leaves behind. Nothing is changed.

Each table is gone through once, page by page; of what else is needed, only as much is read as a page asks for. There is
no snapshot: what looks wrong may be half of a write under way, so it is looked at once more after a moment.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from tidings.errors import UpkeepError
from tidings.store import Uncounted
from tidings.store.dynamodb import items
from tidings.store.dynamodb.address import Address
from tidings.store.dynamodb.driver import Driver, Item, connected, is_unknown, reason
from tidings.store.dynamodb.faults import DIRECTORY, MESSAGES, RULES, Fault
from tidings.store.dynamodb.letters import Letters, worded
from tidings.store.dynamodb.looking import Looking, key_of, place
from tidings.store.dynamodb.registry import Registry
from tidings.store.dynamodb.retention import Retention, find_retention
from tidings.store.dynamodb.setup import fault
from tidings.store.dynamodb.tables import Table, tables
from tidings.store.ledger import Ledger
from tidings.store.upkeep import Examination, Step

_AGAIN_S = 1.0  # a put is visible in whole after milliseconds, an index after less than a second


class _Survey(Protocol):
    """Who looks at the items of a table."""

    async def look(self, page: Sequence[Item], *, anew: bool = False) -> list[Fault]:
        """What is wrong with them."""


async def examine(address: Address, url: str, on_step: Step) -> Examination:
    """See `tidings.store.upkeep`. Raises UpkeepError, in one line, if the tables can't be read."""
    try:
        async with connected(address, Uncounted()) as driver:
            return await _Doctor(driver, address.prefix).examine(url, on_step)
    except UpkeepError:
        raise
    except Exception as error:
        where = address.endpoint or f"DynamoDB in {address.region}"
        raise UpkeepError(f"{where} can't be used: {reason(error)}") from error


class _Doctor:
    def __init__(self, driver: Driver, prefix: str) -> None:
        self._driver = driver
        self._prefix = prefix
        self._looking = Looking(driver, prefix)
        self._ledger = Ledger()
        self._retention: Retention | None = None
        self._is_ours = True  # else nothing in the tables can be judged

    async def examine(self, url: str, on_step: Step) -> Examination:
        """See the module."""
        looked_for: list[str] = []
        rows: dict[str, int] = {}
        registry = Registry(self._looking)
        letters = Letters(self._looking, lambda: self._retention, self._driver.now_ms)
        steps: list[tuple[tuple[str, ...], Callable[[], Awaitable[None]]]] = [
            (("tables",), self._look_at_tables),
            (("generation",), self._look_for_generation),
            (DIRECTORY, lambda: self._go_through(self._looking.directory, registry)),
            (MESSAGES, lambda: self._go_through(self._looking.messages, letters)),
            ((), lambda: self._look_at_floor(letters.highest)),
        ]
        for kinds, step in steps:
            on_step(kinds[0] if kinds else "floor")
            looked_for += kinds
            await step()
            if not self._is_ours:
                break
        rows |= letters.rows | registry.rows
        return Examination(url, rows, tuple(looked_for), self._ledger.findings())

    async def _look_at_tables(self) -> None:
        """They are as `tidings store init` makes them, as far as the server knows such things."""
        there = 0
        for table in tables(self._prefix):
            try:
                found = (await self._driver.ask("describe_table", TableName=table.name))["Table"]
            except Exception as error:
                if not is_unknown(error):
                    raise
                self._add("tables", f"{table.name} is not there")
                continue
            there += 1
            if table == self._looking.directory:
                self._retention = await find_retention(self._driver, table.name)
            other = fault(table, found)
            self._is_ours = self._is_ours and other is None
            for wrong in [*([other] if other else []), *await self._switches(table, found)]:
                self._add("tables", f"{table.name}: {wrong}")
        if there < len(tables(self._prefix)):
            names = " and ".join(table.name for table in tables(self._prefix))
            raise UpkeepError(f"there are no tables {names} to be looked at; make them: tidings store init")

    async def _switches(self, table: Table, found: dict[str, Any]) -> list[str]:
        """What is to be switched on beside the keys, and is not."""
        wrong: list[str] = []
        if found.get("BillingModeSummary", {}).get("BillingMode", "PAY_PER_REQUEST") != "PAY_PER_REQUEST":
            wrong.append("it is not paid by use: calls above what is provisioned are refused")
        backups = await self._told("describe_continuous_backups", table)
        if backups is not None:
            status = backups["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
            if status.get("PointInTimeRecoveryStatus") != "ENABLED":
                wrong.append("it has no point-in-time recovery")
        is_ending = table == self._looking.directory or (self._retention is not None and self._retention.days > 0)
        expiry = await self._told("describe_time_to_live", table) if is_ending else None
        if expiry is not None:
            status = expiry["TimeToLiveDescription"]
            is_on = status.get("TimeToLiveStatus") in ("ENABLED", "ENABLING")
            if not is_on or status.get("AttributeName") != table.expires:
                wrong.append(f"items do not expire by {table.expires}")
        return wrong

    async def _told(self, operation: str, table: Table) -> dict[str, Any] | None:
        """An answer; None of a server that knows no such operation."""
        try:
            return await self._driver.ask(operation, TableName=table.name)
        except Exception as error:
            if not is_unknown(error):
                raise
            return None

    async def _look_for_generation(self) -> None:
        if not items.plain(await self._own("generation"), "value"):
            self._add("generation", "it is missing")

    async def _own(self, what: str) -> Item | None:
        key = items.own_key(what)
        return (await self._looking.find(self._looking.directory.name, [key])).get(items.place(key))

    async def _go_through(self, table: Table, survey: _Survey) -> None:
        async for page in self._looking.pages(table.name):
            suspects = {place(one.item): key_of(one.item) for one in await survey.look(page)}
            if not suspects:
                continue
            await asyncio.sleep(_AGAIN_S)
            now = await self._looking.find(table.name, suspects.values())
            for one in await survey.look(list(now.values()), anew=True):
                self._add(one.kind, one.example, one.times)

    async def _look_at_floor(self, highest: Item | None) -> None:
        """The floor is above every timestamp that was met."""
        if highest is None:
            return
        timestamp = items.plain(highest, "ts")
        for wait_s in (0, _AGAIN_S):
            await asyncio.sleep(wait_s)
            floor = items.plain(await self._own("floor"), "value")
            if floor > timestamp:
                return
        self._add("floor", f"it is {floor or 'missing'}; {worded(highest)} has {timestamp}")

    def _add(self, kind: str, example: str, count: int = 1) -> None:
        rule = RULES[kind]
        self._ledger.add(kind, rule.what, rule.advice, example, count)
