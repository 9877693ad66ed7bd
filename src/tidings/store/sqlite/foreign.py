"""What other processes committed, read by a writer inside its own transaction: it decides by it, and its news has it.

It is read as two JSON texts, since each row that is fetched gives up the interpreter lock and waits to get it back.
"""

import apsw
import msgspec

from tidings.model import Altered, Change, Message, Posted

MOST = 500  # changes read so; who missed more learns of them beside its commits

_QUERY = """
SELECT
  (SELECT json_group_array(json_array(position, timestamp, mailbox, seq, sender, sent_seq, id, text))
    FROM messages WHERE position > ?1),
  (SELECT json_group_array(json_array(position, user_id)) FROM alterations WHERE position > ?1)
"""
_MESSAGES = msgspec.json.Decoder(list[tuple[int, int, str, int, str, int | None, str, str]])
_ALTERATIONS = msgspec.json.Decoder(list[tuple[int, str]])


def find_changes(db: apsw.Connection, after: int, last: int) -> list[Change] | None:
    """All changes with `after < position <= last`, the store's last; None if they are too many, or no longer all there.

    Each position was given to one change, so their number tells.
    """
    if last - after > MOST:
        return None
    messages, alterations = db.execute(_QUERY, (after,)).get
    found: list[Change] = [
        Posted(position, mailbox, Message(sender, text, mailbox[1:], str(timestamp), number, seq), sent_seq or 0)
        for position, timestamp, mailbox, seq, sender, sent_seq, number, text in _MESSAGES.decode(messages)
    ]
    found += [Altered(position, user_id) for position, user_id in _ALTERATIONS.decode(alterations)]
    found.sort(key=_position)
    return found if len(found) == last - after else None


def _position(change: Change) -> int:
    return change.position
