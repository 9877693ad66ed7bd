"""Questions about tables as such: how they are made, what is kept and what expires, and how much may be asked."""

import asyncio
import time
from collections import Counter

from tests.standin.probes import Server, message, question, text
from tidings.store.dynamodb.tables import creation, messages_of


@question("the answer to `CreateTable`")
async def _(server: Server) -> str:
    name = f"{server.messages}-more"
    state = await server.make(name)
    await server.ask("delete_table", TableName=name)
    return state


@question("a table made a second time")
async def _(server: Server) -> str:
    return await server.says("create_table", **creation(messages_of("")._replace(name=server.messages)))


@question("a put into a table that is not there")
async def _(server: Server) -> str:
    return await server.says("put_item", TableName=f"{server.messages}-none", Item=message(1))


@question("point-in-time recovery of a new table; its state then")
async def _(server: Server) -> str:
    wanted = {"PointInTimeRecoveryEnabled": True}
    said = await server.says(
        "update_continuous_backups", TableName=server.messages, PointInTimeRecoverySpecification=wanted
    )
    told = await server.ask("describe_continuous_backups", TableName=server.messages)
    found = told["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"]
    return f"{said}, {found}"


@question("the state of expiry just after it was switched on; switching it on again")
async def _(server: Server) -> str:
    wanted = {"TimeToLiveSpecification": {"Enabled": True, "AttributeName": "expires"}}
    await server.ask("update_time_to_live", TableName=server.messages, **wanted)
    told = (await server.ask("describe_time_to_live", TableName=server.messages))["TimeToLiveDescription"]
    return (
        f"{told['TimeToLiveStatus']}, {await server.says('update_time_to_live', TableName=server.messages, **wanted)}"
    )


@question("an item past its end: whether it is still read")
async def _(server: Server) -> str:
    wanted = {"TimeToLiveSpecification": {"Enabled": True, "AttributeName": "expires"}}
    await server.ask("update_time_to_live", TableName=server.messages, **wanted)
    await server.put(message(1, expires={"N": str(int(time.time()) - 60)}))
    return "it is" if (await server.query())["Count"] else "it is not"


@question("400 puts of 4 KB within seconds, where one write a second is paid for")
async def _(server: Server) -> str:
    name = f"{server.messages}-slow"
    paid = {"BillingMode": "PROVISIONED", "ProvisionedThroughput": {"ReadCapacityUnits": 1, "WriteCapacityUnits": 1}}
    await server.make(name, **paid)
    said = Counter[str]()
    for first in range(0, 400, 40):
        puts = [server.says("put_item", TableName=name, Item=message(first + n, body=text(4_000))) for n in range(40)]
        said.update(await asyncio.gather(*puts))
    await server.ask("delete_table", TableName=name)
    return "all taken" if set(said) == {"taken"} else f"some: {', '.join(sorted(set(said) - {'taken'}))}"


@question("the clock in its answers")
async def _(server: Server) -> str:
    headers = (await server.query())["ResponseMetadata"]["HTTPHeaders"]
    return "its Date" if headers.get("date") else "none"
