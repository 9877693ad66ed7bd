"""The two tables, in one place: `tidings store init` makes them so, and whoever deploys them otherwise reads them here.

`PREFIX-directory` has users, groups, blocks, memberships, idempotency keys and what the store says of itself:

| pk | sk | what |
|---|---|---|
| `u#USER` | `profile` | `title` (name); how many `blocks` and `groups` there are, so that limits are exact |
| `u#USER` | `block#OTHER` | a block |
| `u#USER` | `group#GROUP` | a stay: `title` (the group's), `stay` (its key), `joined`; left: no `member_of` |
| `g#GROUP` | `profile` | `title` (name); how many `members` |
| `k#NAME` | `key` | an idempotency key: `content`, and `base` (a send's) or `answer`; `ts` (ms), `expires` (s) |
| `store` | `generation` | `value`: which history this is; `closed`, `importing`, `imported`, `told` (gate.py) |
| `store` | `floor` | `value`: the floor under the clock, in Unix ms |
| `store` | `retention` | `value`: for how many days messages are kept; 0: for ever again |
| `store` | `run#N` | a start of a server, when the store was on SQLite: `id`, `first`, `last` |

`PREFIX-messages` has the mailboxes: `box` is `u#USER`, `g#GROUP`, or `s#USER` for sent copies; `seq` 1, 2, 3, ... Each
message has the timestamp of the one before it (`prev`), and `expires` where there is a retention and another behind it.
Slot 0 has `head` and its `ts`, once a last message is kept no more.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

STRING, NUMBER = "S", "N"

MEMBERS = "members"  # the index that lists the members of a group; it lags
EXPIRES = "expires"  # when an item may be deleted, in Unix seconds


class Index(NamedTuple):
    """A global secondary index: its keys by name and type, and what it has besides the keys of the table."""

    name: str
    keys: Mapping[str, str]
    carried: tuple[str, ...]


class Table(NamedTuple):
    """A table: its keys (partition, then sort) by name and type, its indexes, and the attribute that ends items."""

    name: str
    keys: Mapping[str, str]
    indexes: tuple[Index, ...] = ()
    expires: str | None = None


def directory_of(prefix: str) -> Table:
    """Users, groups, blocks, memberships and idempotency keys."""
    members = Index(MEMBERS, {"member_of": STRING, "pk": STRING}, ("username",))
    return Table(f"{prefix}-directory", {"pk": STRING, "sk": STRING}, (members,), EXPIRES)


def messages_of(prefix: str) -> Table:
    """The mailboxes."""
    return Table(f"{prefix}-messages", {"box": STRING, "seq": NUMBER}, (), EXPIRES)


def tables(prefix: str) -> tuple[Table, Table]:
    """Both."""
    return directory_of(prefix), messages_of(prefix)


def creation(table: Table) -> dict[str, Any]:
    """What CreateTable is asked for: on demand, since how many messages come is not known before they do."""
    types = {**table.keys, **{name: kind for index in table.indexes for name, kind in index.keys.items()}}
    request: dict[str, Any] = {
        "TableName": table.name,
        "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": key_schema(table.keys),
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": kind} for name, kind in types.items()],
    }
    if table.indexes:
        request["GlobalSecondaryIndexes"] = [
            {
                "IndexName": index.name,
                "KeySchema": key_schema(index.keys),
                "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": list(index.carried)},
            }
            for index in table.indexes
        ]
    return request


def key_schema(keys: Mapping[str, str]) -> list[dict[str, str]]:
    """Names as DynamoDB has them: the partition's, then the order's within it."""
    return [{"AttributeName": name, "KeyType": kind} for name, kind in zip(keys, ("HASH", "RANGE"), strict=True)]
