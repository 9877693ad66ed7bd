"""What no store may have, as queries: each gives a line for each fault, made of ids and numbers, never of text.

Every one is a pass along a table or an index (and look-ups by key), so that memory stays flat and a million messages
take seconds. What needs the order of the whole log is in doctor.py, that of each mailbox in walk.py.
"""

from typing import NamedTuple


class Rule(NamedTuple):
    """What is looked for, what that means, what to do about it, and the query that finds it."""

    kind: str
    what: str
    advice: str
    query: str


BACKUP = "Restore a backup from before (tidings restore); what it lacks is lost."
EDITED = "Somebody changed the file by hand, or something overwrote it: restore a backup (tidings restore)."


def shown(mailbox: str) -> str:
    """SQL for a mailbox in words."""
    return (
        f"CASE substr({mailbox}, 1, 1) WHEN 's' THEN 'the copies of ' || substr({mailbox}, 2)"
        f" ELSE 'the mailbox of ' || substr({mailbox}, 2) END"
    )


_ANSWERED_USER, _ANSWERED_GROUP = "answer ->> 'userId'", "answer ->> 'groupId'"
_NO_USER = "NOT EXISTS (SELECT 1 FROM users WHERE users.id = {0})"
_NO_GROUP = "NOT EXISTS (SELECT 1 FROM groups WHERE groups.id = {0})"

TRIMMED = Rule(
    "trimmed",
    "what is noted as kept no more does not fit what is kept",
    EDITED,
    f"SELECT {shown('mailbox')} || ': gone up to seq ' || seq || ', timestamp ' || trimmed.timestamp"
    " FROM trimmed, clock WHERE seq < 1 OR trimmed.timestamp NOT BETWEEN 1 AND clock.timestamp"
    " OR substr(mailbox, 1, 1) NOT IN ('u', 'g', 's')",
)
MESSAGE_OF_NOBODY = Rule(
    "message of nobody",
    "messages to or from users or groups that are not there",
    BACKUP,
    "SELECT 'position ' || position || ', from ' || sender FROM messages"
    f" WHERE {_NO_USER.format('sender')} OR substr(mailbox, 1, 1) NOT IN ('u', 'g')",
)
# Heads by `places`, and by the messages after `:unplaced`, which it need not have: few, unless it does not fit the log.
_JOINED = """
WITH ends AS MATERIALIZED (
  SELECT substr(mailbox, 2) AS id, max(seq) AS seq FROM messages
  WHERE position > :unplaced AND substr(mailbox, 1, 1) = 'g' GROUP BY mailbox)
SELECT user_id || ' in ' || group_id || ' from seq ' || joined_seq
FROM memberships LEFT JOIN ends ON ends.id = group_id WHERE joined_seq NOT BETWEEN 0 AND coalesce(
  ends.seq, (SELECT max(places.seq) FROM places WHERE mailbox = 'g' || group_id),
  (SELECT trimmed.seq FROM trimmed WHERE mailbox = 'g' || group_id), 0)
"""

RULES = (
    TRIMMED,
    Rule(
        "copies",
        "a message has a sent copy that should have none: to a group, or to its own sender",
        EDITED,
        "SELECT 'position ' || position || ', from ' || sender FROM messages"
        " WHERE sent_seq IS NOT NULL AND (mailbox = 'u' || sender OR substr(mailbox, 1, 1) != 'u')",
    ),
    Rule(
        "joined",
        "a membership begins behind the head of its group",
        EDITED,
        _JOINED,
    ),
    MESSAGE_OF_NOBODY,
    Rule(
        "membership of nobody",
        "memberships of users or groups that are not there",
        BACKUP,
        "SELECT user_id || ' in ' || group_id FROM memberships"
        f" WHERE {_NO_USER.format('user_id')} OR {_NO_GROUP.format('group_id')}",
    ),
    Rule(
        "block of nobody",
        "blocks by or of users that are not there",
        BACKUP,
        "SELECT user_id || ' blocks ' || other_id FROM blocks"
        f" WHERE {_NO_USER.format('user_id')} OR {_NO_USER.format('other_id')}",
    ),
    Rule(
        "news of nobody",
        "changes of users that are not there",
        BACKUP,
        f"SELECT 'position ' || position || ', of ' || user_id FROM alterations WHERE {_NO_USER.format('user_id')}",
    ),
    Rule(
        "member count",
        "a group's count of members is wrong, so its limit is",
        "Messages are not concerned. " + EDITED,
        "SELECT id || ' counts ' || members || ', has ' || found FROM (SELECT id, members,"
        " (SELECT count(*) FROM memberships WHERE group_id = groups.id) AS found FROM groups) WHERE members != found",
    ),
    Rule(
        "key to nowhere",
        "idempotency keys whose answer is not there: a repeat would not be answered alike",
        "They leave by themselves after --news-kept-s; until then a repeat with one may be answered 500. " + BACKUP,
        "SELECT 'key ' || number FROM keys WHERE (position IS NULL) = (answer IS NULL) OR position IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM messages WHERE messages.position = keys.position) OR answer IS NOT NULL AND"
        " CASE WHEN NOT json_valid(answer) THEN 1"
        f" WHEN {_ANSWERED_USER} IS NOT NULL THEN {_NO_USER.format(_ANSWERED_USER)}"
        f" WHEN {_ANSWERED_GROUP} IS NOT NULL THEN {_NO_GROUP.format(_ANSWERED_GROUP)} ELSE 0 END",
    ),
    Rule(
        "run",
        "the starts of the server are not in order: cursors of some could be taken for those of another history",
        "Restore a backup (tidings restore): its new generation makes all readers start over, knowingly.",
        "SELECT 'run ' || number || ' begins at position ' || first FROM (SELECT number, first, lag(first, 1, 1) OVER"
        " (ORDER BY number) AS before, (SELECT position FROM clock) AS last FROM run)"
        " WHERE first < before OR first > last + 1",
    ),
)
