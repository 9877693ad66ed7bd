"""Questions about what is read, and in which pieces."""

from tests.standin.probes import Server, message, question, text


async def _fill(server: Server, count: int, size: int) -> None:
    for seq in range(1, count + 1):
        await server.put(message(seq, body=text(size)))


@question("the first page of 30 messages of 100,000 bytes (1 MB holds ten): how many, and whether there is more")
async def _(server: Server) -> str:
    await _fill(server, 30, 100_000)
    page = await server.query()
    return f"{page['Count']}, {'more' if 'LastEvaluatedKey' in page else 'no more'}"


@question("the same with `seq` alone asked for")
async def _(server: Server) -> str:
    await _fill(server, 30, 100_000)
    page = await server.query(ProjectionExpression="seq")
    return f"{page['Count']}, {'more' if 'LastEvaluatedKey' in page else 'no more'}"


@question("the first page of a scan of them")
async def _(server: Server) -> str:
    await _fill(server, 30, 100_000)
    page = await server.ask("scan", TableName=server.messages)
    return f"{page['Count']}, {'more' if 'LastEvaluatedKey' in page else 'no more'}"


@question("a page whose `Limit` is all there is: whether there is more")
async def _(server: Server) -> str:
    await _fill(server, 3, 1)
    return "maybe" if "LastEvaluatedKey" in await server.query(Limit=3) else "no"


@question("a `Limit` of 0")
async def _(server: Server) -> str:
    return await _says(server, Limit=0)


@question("`BETWEEN` 2 `AND` 1")
async def _(server: Server) -> str:
    bounds = {":from": {"N": "2"}, ":to": {"N": "1"}, ":box": {"S": "a"}}
    return await _says(
        server,
        KeyConditionExpression="box = :box AND seq BETWEEN :from AND :to",
        ExpressionAttributeValues=bounds,
    )


async def _says(server: Server, **more: object) -> str:
    request = {
        "TableName": server.messages,
        "KeyConditionExpression": "box = :box",
        "ExpressionAttributeValues": {":box": {"S": "a"}},
        **more,
    }
    return await server.says("query", **request)


@question("numbers as keys: the order of 10, 9, -1 and 100")
async def _(server: Server) -> str:
    await server.put(*(message(seq) for seq in (10, 9, -1, 100)))
    return ", ".join(item["seq"]["N"] for item in (await server.query())["Items"])


@question("texts as keys: the order of a, Z, é, U+FFFF, U+1F601")
async def _(server: Server) -> str:
    for sort in ("\U0001f601", "\uffff", "é", "a", "Z"):
        await server.ask("put_item", TableName=server.directory, Item={"pk": {"S": "u"}, "sk": {"S": sort}})
    found = await server.ask(
        "query",
        TableName=server.directory,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": "u"}},
    )
    names = {"\U0001f601": "U+1F601", "\uffff": "U+FFFF"}
    return ", ".join(names.get(item["sk"]["S"], item["sk"]["S"]) for item in found["Items"])


def _members(server: Server) -> dict[str, object]:
    return {
        "TableName": server.directory,
        "IndexName": "members",
        "KeyConditionExpression": "member_of = :group",
        "ExpressionAttributeValues": {":group": {"S": "g"}},
    }


@question("a consistent read of the index")
async def _(server: Server) -> str:
    return await server.says("query", **_members(server), ConsistentRead=True)


@question("the index, at once after joins, and after a removal that takes its key away")
async def _(server: Server) -> str:
    for user in ("u1", "u2"):
        stay = {"pk": {"S": user}, "sk": {"S": "group#g"}, "member_of": {"S": "g"}, "username": {"S": user}}
        await server.ask("put_item", TableName=server.directory, Item=stay)
    joined = (await server.ask("query", **_members(server)))["Count"]
    left = {"TableName": server.directory, "Key": {"pk": {"S": "u1"}, "sk": {"S": "group#g"}}}
    await server.ask("update_item", **left, UpdateExpression="REMOVE member_of")
    return f"{joined}, {(await server.ask('query', **_members(server)))['Count']}"


@question("a page of the index: by what it goes on")
async def _(server: Server) -> str:
    for user in ("u1", "u2"):
        stay = {"pk": {"S": user}, "sk": {"S": "group#g"}, "member_of": {"S": "g"}, "username": {"S": user}}
        await server.ask("put_item", TableName=server.directory, Item=stay)
    page = await server.ask("query", **_members(server), Limit=1)
    rest = await server.ask("query", **_members(server), ExclusiveStartKey=page["LastEvaluatedKey"])
    return f"{', '.join(sorted(page['LastEvaluatedKey']))}; then {rest['Items'][0]['pk']['S']}"


@question("101 keys in a batch of reads; one of them twice")
async def _(server: Server) -> str:
    batches = [[message(seq) for seq in range(101)], [message(1), message(1)]]
    said = [await server.says("batch_get_item", RequestItems={server.messages: {"Keys": keys}}) for keys in batches]
    return ", ".join(said)


@question("a batch of reads of 17 MB (16 MB is the most)")
async def _(server: Server) -> str:
    await _fill(server, 44, 390_000)
    keys = [message(seq) for seq in range(1, 45)]
    told = await server.ask("batch_get_item", RequestItems={server.messages: {"Keys": keys, "ConsistentRead": True}})
    left = told.get("UnprocessedKeys", {}).get(server.messages, {}).get("Keys", ())
    return f"{len(told['Responses'][server.messages])} items, {'the rest as UnprocessedKeys' if left else 'no rest'}"


@question("units told of a read of 100 bytes, consistent, and not; of a mailbox with nothing in it")
async def _(server: Server) -> str:
    await server.put(message(1))
    reads = [("a", True), ("a", False), ("b", True)]
    told = [
        await server.query(box, ConsistentRead=is_consistent, ReturnConsumedCapacity="TOTAL")
        for box, is_consistent in reads
    ]
    return ", ".join(f"{one['ConsumedCapacity']['CapacityUnits']:g}" for one in told)
