"""What no store on DynamoDB may have, in words: each kind of fault, what it means, and what to do about it."""

from typing import NamedTuple

from tidings.store.dynamodb.driver import Item


class Rule(NamedTuple):
    """What a kind of fault means, and what to do."""

    what: str
    advice: str


class Fault(NamedTuple):
    """A place with a fault: its kind, the item that shows it, in words (ids and numbers, never text), how many."""

    kind: str
    item: Item
    example: str
    times: int = 1


_BACKUP = (
    "Have AWS restore the tables to a moment before (point-in-time recovery), under another prefix, and let the nodes"
    " serve that; what came later is lost."
)
_EDITED = "Somebody changed the tables by hand, or another program did. " + _BACKUP
_INIT = "Run tidings store init, which switches on what is missing; a table of another kind it names."

RULES = {
    "tables": Rule("the tables are not as tidings store init makes them", _INIT),
    "generation": Rule(
        "the store does not say which history it is: no node starts on it",
        "Run tidings store init: it begins a new generation, and every cursor is told to start over (410), knowingly.",
    ),
    "malformed": Rule("items that are none of ours, or lack what they must have", _EDITED),
    "hole": Rule("messages that were given out are not there", _BACKUP),
    "timestamps": Rule("timestamps do not rise along a mailbox: readers by timestamp can miss messages", _EDITED),
    "end": Rule(
        "the last message of a mailbox will expire, and nothing keeps its number: it would be given again", _EDITED
    ),
    "copies": Rule("a message without its sent copy, a copy without its message, or one that should not be", _EDITED),
    "message of nobody": Rule("messages to or from users or groups that are not there", _BACKUP),
    "key to nowhere": Rule(
        "idempotency keys by which what was done is not found: a repeat would not be answered alike, or done again",
        "They expire by themselves after --news-kept-s. " + _EDITED,
    ),
    "sent twice": Rule("two messages were stored for one idempotency key", _EDITED),
    "membership of nobody": Rule("memberships of users or groups that are not there", _BACKUP),
    "joined": Rule("a membership begins behind the head of its group", _EDITED),
    "block of nobody": Rule("blocks by or of users that are not there", _BACKUP),
    "counts": Rule(
        "a count of blocks, groups or members is wrong, so its limit is", "Messages are not concerned. " + _EDITED
    ),
    "floor": Rule(
        "the clock's floor is not above every timestamp: after a flush of the feed, later ones may be lower",
        "A mailbox that took over 1,000 messages a second runs ahead of the clock: then this passes by itself; look"
        " again in a minute. Else the tables were filled by hand, or the floor was changed; an import raises it.",
    ),
}
DIRECTORY = ("membership of nobody", "joined", "block of nobody", "counts")
MESSAGES = (
    "hole",
    "timestamps",
    "end",
    "copies",
    "message of nobody",
    "sent twice",
    "key to nowhere",
    "malformed",
    "floor",
)
