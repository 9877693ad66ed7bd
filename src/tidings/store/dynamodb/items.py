"""Items: what we keep, as DynamoDB writes it; `tables.py` says what is where."""

from typing import Any

from tidings.model import Found, Membership, Message, Posted
from tidings.store.dynamodb.driver import Item

PROFILE, BLOCK, GROUP = "profile", "block#", "group#"
ID_MAX_BYTES = 900  # a sort key holds 1,024; none of ours is longer


def is_possible(an_id: str) -> bool:
    """Whether there can be something under this id; a client may ask for anything."""
    try:
        return len(an_id.encode()) <= ID_MAX_BYTES
    except UnicodeEncodeError:  # half of a pair
        return False


def text(value: str) -> dict[str, str]:
    """A string."""
    return {"S": value}


def number(value: int) -> dict[str, str]:
    """A number."""
    return {"N": str(value)}


def user_key(user_id: str, sort: str = PROFILE) -> Item:
    """Where a user's profile is; with `sort`, a block or a membership of theirs."""
    return {"pk": text(f"u#{user_id}"), "sk": text(sort)}


def group_key(group_id: str) -> Item:
    """Where a group's profile is."""
    return {"pk": text(f"g#{group_id}"), "sk": text(PROFILE)}


def key_key(name: bytes) -> Item:
    """Where an idempotency key is."""
    return {"pk": text(f"k#{name.hex()}"), "sk": text("key")}


def own_key(what: str) -> Item:
    """Where the store says something of itself."""
    return {"pk": text("store"), "sk": text(what)}


def place(key: Item) -> tuple[str, str]:
    """A key of the directory, to be looked up by."""
    return key["pk"]["S"], key["sk"]["S"]


def box_of(mailbox: str) -> str:
    """A mailbox's partition."""
    return f"{mailbox[0]}#{mailbox[1:]}"


def slot(mailbox: str, seq: int) -> Item:
    """Where a message is."""
    return {"box": text(box_of(mailbox)), "seq": number(seq)}


def message_item(posted: Posted, key: bytes | None) -> Item:
    """A message in the mailbox that it was sent to; it says where its copy is, so that it can be announced again."""
    message = posted.message
    item = {
        **slot(posted.mailbox, message.seq),
        "ts": {"N": message.timestamp},
        "by": text(message.sender_id),
        "id": text(message.message_id),
        "body": text(message.message),
    }
    if posted.sent_seq:
        item["copied"] = number(posted.sent_seq)
    if key is not None:
        item["intent"] = {"B": key}
    return item


def copy_item(posted: Posted, copies: str) -> Item:
    """Its copy, which says where the message is, so that each can be looked for from the other."""
    message = posted.message
    return {
        **slot(copies, posted.sent_seq),
        "ts": {"N": message.timestamp},
        "recipient": text(message.recipient_id),
        "at": number(message.seq),
        "id": text(message.message_id),
        "body": text(message.message),
    }


def found(item: Item, mailbox: str) -> Found:
    """A message as it is met in a mailbox."""
    timestamp, seq = item["ts"]["N"], int(item["seq"]["N"])
    is_copy = mailbox[0] == "s"
    sender, recipient = (mailbox[1:], item["recipient"]["S"]) if is_copy else (item["by"]["S"], mailbox[1:])
    message = Message(sender, item["body"]["S"], recipient, timestamp, item["id"]["S"], seq, is_copy)
    return Found(int(timestamp), mailbox, message)


def posted(item: Item, mailbox: str) -> Posted:
    """The news of a message that is stored; not of a copy."""
    copied = int(item["copied"]["N"]) if "copied" in item else 0
    return Posted(0, mailbox, found(item, mailbox).message, copied)


def membership(item: Item) -> Membership | None:
    """A stay in a group; None if it has ended."""
    if "member_of" not in item:
        return None
    return Membership(item["member_of"]["S"], item["title"]["S"], int(item["stay"]["N"]), int(item["joined"]["N"]))


def plain(item: Item | None, name: str, default: int = 0) -> int:
    """A number in an item."""
    value: Any = (item or {}).get(name)
    return int(value["N"]) if value is not None else default
