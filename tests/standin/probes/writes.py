"""Questions about conditions, transactions, and what may be written."""

import asyncio
from collections import Counter
from typing import Any

from tests.standin.probes import ABSENT, BIG, OLD, Server, message, question, text


@question("a put whose condition is not met, asked for `ALL_OLD`: what its error has of the item in the way")
async def _(server: Server) -> str:
    await server.put(message(1, id={"S": "first"}))
    told = await server.refusal("put_item", **server.putting(message(1), **OLD))
    return "the item" if told.get("Item", {}).get("id") == {"S": "first"} else "nothing"


@question("a transaction refused for its second and third of four: its reasons, in order")
async def _(server: Server) -> str:
    await server.put(message(2), message(3))
    puts = [{"Put": server.putting(message(seq), **OLD)} for seq in (1, 2, 3, 4)]
    reasons = (await server.refusal("transact_write_items", TransactItems=puts))["CancellationReasons"]
    return ", ".join(f"{reason.get('Code')}{' with the item' * ('Item' in reason)}" for reason in reasons)


@question("the same with `Update` and `Delete` whose conditions are not met")
async def _(server: Server) -> str:
    await server.put(message(1), message(2))
    of = {"TableName": server.messages, **ABSENT, **OLD}
    update = {**of, "Key": message(1), "UpdateExpression": "REMOVE x"}
    writes = [{"Update": update}, {"Delete": {**of, "Key": message(2)}}]
    reasons = (await server.refusal("transact_write_items", TransactItems=writes))["CancellationReasons"]
    return ", ".join(f"{reason.get('Code')}{' with the item' * ('Item' in reason)}" for reason in reasons)


def _adding(server: Server, amount: int = 1) -> dict[str, Any]:
    count = {
        "TableName": server.messages,
        "Key": message(1),
        "UpdateExpression": "ADD n :n",
        "ExpressionAttributeValues": {":n": {"N": str(amount)}},
    }
    return {"TransactItems": [{"Update": count}], "ClientRequestToken": server.token}


@question("a transaction repeated with its `ClientRequestToken`")
async def _(server: Server) -> str:
    for _ in range(3):
        await server.ask("transact_write_items", **_adding(server))
    (item,) = (await server.query())["Items"]
    return "done once" if item["n"] == {"N": "1"} else "done each time"


@question("another transaction with that token")
async def _(server: Server) -> str:
    await server.ask("transact_write_items", **_adding(server))
    return await server.says("transact_write_items", **_adding(server, 2))


@question("units told of a repeat by token")
async def _(server: Server) -> str:
    for _ in range(2):
        told = await server.ask("transact_write_items", **_adding(server), ReturnConsumedCapacity="TOTAL")
    (units,) = told.get("ConsumedCapacity") or [{}]
    return "reads" if units.get("ReadCapacityUnits") else "writes" if units.get("CapacityUnits") else "none"


@question("fifty transactions at once that all change one item")
async def _(server: Server) -> str:
    def call(n: int) -> dict[str, Any]:
        return {**_adding(server), "ClientRequestToken": f"{n:032}"}

    said = Counter(await asyncio.gather(*(server.says("transact_write_items", **call(n)) for n in range(50))))
    return "some canceled: TransactionConflict" if said["TransactionCanceledException"] else "all done"


@question("ten transactions at once that put one item if it is not there, thirty times")
async def _(server: Server) -> str:
    done = Counter[int]()
    for seq in range(30):
        calls = [
            [{"Put": server.putting(message(seq))}, {"Put": server.putting(message(seq, f"b{n}"))}] for n in range(10)
        ]
        said = await asyncio.gather(*(server.says("transact_write_items", TransactItems=call) for call in calls))
        done[said.count("taken")] += 1
    return "one of them is done" if set(done) <= {0, 1} else "sometimes several are done"


@question("two actions of a transaction on one item")
async def _(server: Server) -> str:
    puts = [{"Put": server.putting(message(1))}] * 2
    return await server.says("transact_write_items", TransactItems=puts)


@question("a transaction of 101 actions")
async def _(server: Server) -> str:
    puts = [{"Put": server.putting(message(seq))} for seq in range(101)]
    return await server.says("transact_write_items", TransactItems=puts)


@question("a transaction of more than 4 MB")
async def _(server: Server) -> str:
    puts = [{"Put": server.putting(message(seq, body=text(BIG)))} for seq in range(11)]
    return await server.says("transact_write_items", TransactItems=puts)


@question("units told of a put of 100 bytes; of two in a transaction; of one that the index has as well")
async def _(server: Server) -> str:
    def units(told: Any) -> float:
        parts = told.get("ConsumedCapacity") or []
        return sum(float(part["CapacityUnits"]) for part in ([parts] if isinstance(parts, dict) else parts))

    total = {"ReturnConsumedCapacity": "TOTAL"}
    one = await server.ask("put_item", **server.putting(message(1)), **total)
    puts = [{"Put": server.putting(message(seq))} for seq in (2, 3)]
    two = await server.ask("transact_write_items", TransactItems=puts, **total)
    stay = {"pk": {"S": "u"}, "sk": {"S": "g"}, "member_of": {"S": "g"}}
    listed = await server.ask("put_item", TableName=server.directory, Item=stay, **total)
    return ", ".join(f"{units(told):g}" for told in (one, two, listed))


@question("an item of 409,600 bytes with the names of its attributes; of one more")
async def _(server: Server) -> str:
    beside = len("box") + len("a") + len("seq") + 2 + len("body")  # a number of one digit takes two bytes
    said = [
        await server.says("put_item", **server.putting(message(1 + more, body=text(409_600 - beside + more))))
        for more in (0, 1)
    ]
    return ", ".join(said)


@question("an update that makes an item larger than that")
async def _(server: Server) -> str:
    await server.put(message(1, body=text(BIG)))
    change = {"UpdateExpression": "SET more = :more", "ExpressionAttributeValues": {":more": text(BIG)}}
    return await server.says("update_item", TableName=server.messages, Key=message(1), **change)


@question("an empty text; in a key; in a key of the index")
async def _(server: Server) -> str:
    items = [
        {"pk": {"S": "u"}, "sk": {"S": "a"}, "title": {"S": ""}},
        {"pk": {"S": "u"}, "sk": {"S": ""}},
        {"pk": {"S": "u"}, "sk": {"S": "b"}, "member_of": {"S": ""}},
    ]
    return ", ".join([await server.says("put_item", TableName=server.directory, Item=item) for item in items])


@question("a key of 2,049 bytes; one of 1,025 for the order")
async def _(server: Server) -> str:
    keys = [{"pk": text(2_049), "sk": {"S": "a"}}, {"pk": {"S": "u"}, "sk": text(1_025)}]
    return ", ".join([await server.says("put_item", TableName=server.directory, Item=key) for key in keys])


@question("a number of 38 digits; of 39")
async def _(server: Server) -> str:
    digits = "12345678901234567890123456789012345678"
    await server.put(message(1, n={"N": digits}))
    (item,) = (await server.query())["Items"]
    whole = "whole" if item["n"] == {"N": digits} else "rounded"
    return f"{whole}, {await server.says('put_item', **server.putting(message(2, n={'N': digits + '9'})))}"


@question("the numbers 007, 1.50 and 1e3, read again")
async def _(server: Server) -> str:
    await server.put(message(1, a={"N": "007"}, b={"N": "1.50"}, c={"N": "1e3"}))
    (item,) = (await server.query())["Items"]
    return ", ".join(item[name]["N"] for name in "abc")


@question("bytes, and a text with NUL and the last code point, read again")
async def _(server: Server) -> str:
    put = message(1, key={"B": bytes(range(256))}, body={"S": "\0a\U0010ffff"})
    await server.put(put)
    (item,) = (await server.query())["Items"]
    return "as they were" if item == put else "changed"


@question("an attribute's name, or a value, that no expression uses")
async def _(server: Server) -> str:
    put = server.putting(message(1))
    name = {**put, "ExpressionAttributeNames": {"#box": "box", "#seq": "seq"}}
    value = {**put, "ExpressionAttributeValues": {":one": {"N": "1"}}}
    return ", ".join([await server.says("put_item", **request) for request in (name, value)])


@question("a reserved word (`by`) in an expression")
async def _(server: Server) -> str:
    item = {"TableName": server.messages, "Item": message(1)}
    return await server.says("put_item", **item, ConditionExpression="attribute_not_exists(by)")


@question("`ADD` to a number that is not there, of an item that is not there")
async def _(server: Server) -> str:
    await server.ask("transact_write_items", **_adding(server))
    return f"{(await server.query())['Items'][0]['n']['N']}, and the item is made"


@question("a batch of 26 puts")
async def _(server: Server) -> str:
    puts = [{"PutRequest": {"Item": message(seq)}} for seq in range(26)]
    return await server.says("batch_write_item", RequestItems={server.messages: puts})
