"""What a put of messages asks for: an item for each message and copy, under the condition that its slot is empty."""

from collections.abc import Mapping, Sequence
from typing import Any

from tidings.model import Head, Posted
from tidings.store.dynamodb import items
from tidings.store.dynamodb.driver import Item
from tidings.store.dynamodb.lanes import Job
from tidings.store.dynamodb.retention import Ends


def puts_of(
    table: str, jobs: Sequence[Job], posts: Sequence[Posted], heads: Mapping[str, Head], ends: Ends
) -> list[dict[str, Any]]:
    """The request for each item, in order; `heads` are those that they go behind.

    What has another behind it in the same put gets its end at once; the last one of each mailbox does not.
    """
    behind = {mailbox: head.timestamp for mailbox, head in heads.items()}
    found: list[Item] = []
    last: dict[str, Item] = {}
    for job, post in zip(jobs, posts, strict=True):
        made = [items.message_item(post, job.key.name if job.key else None)]
        if job.copies:
            made.append(items.copy_item(post, job.copies))
        for mailbox, item in zip(job.mailboxes, made, strict=True):
            item["prev"] = items.number(behind[mailbox])
            behind[mailbox] = int(post.message.timestamp)
            if mailbox in last:
                last[mailbox] |= ends.end_of(last[mailbox])
            last[mailbox] = item
        found += made
    return [
        {
            "TableName": table,
            "Item": item,
            "ConditionExpression": "attribute_not_exists(#box)",
            "ExpressionAttributeNames": {"#box": "box"},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        for item in found
    ]
