"""Stores with a past: what would take hours over HTTP, written in seconds into a file with the store's own schema.

`python -m bench.seed FILE` reads a `Story` as JSON on stdin. The rows are those that the calls would have left, made
in SQL, without waiting for the disk at each commit.
"""

import os
import sys
import time
from pathlib import Path

import apsw
import msgspec

from tidings.model import own, room
from tidings.store.sqlite.file import open_file
from tidings.store.sqlite.mailboxes import place_all

TEXT = "Fifty bytes of tidings, neither good nor bad, yet!"
WEEK_MS = 7 * 24 * 3600 * 1000
_AT_ONCE = 32  # most messages of one timestamp; a commit takes one of each mailbox


class Story(msgspec.Struct, frozen=True):
    """Users, each in `groups_each` of `groups`; the last `joiners` of them in every group.

    The messages go in turn to every user's own mailbox and every group's, or to the first `mailboxes` of them; a
    user's come from the next user. The last is `ended_ms` old.
    """

    users: int
    groups: int = 0
    groups_each: int = 0
    joiners: int = 0
    messages: int = 0
    mailboxes: int = 0
    ended_ms: int = 0


def user_id(number: int) -> str:
    """The id of a story's user, in the form of those that are minted."""
    return f"user-{number:028x}"


def group_id(number: int) -> str:
    """The id of a story's group."""
    return f"group-{number:028x}"


def tell(path: Path, story: Story) -> None:
    """Make a store that tells the story."""
    db = open_file(path)
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-200000"):
        db.execute(f"PRAGMA {pragma}").fetchall()
    with db:
        _people(db, story)
        _messages(db, story)
        place_all(db)
    db.close()
    with path.open("rb") as file:
        os.fsync(file.fileno())  # so that writing it out does not fall into what is measured next


def _people(db: apsw.Connection, story: Story) -> None:
    numbers = "WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < ?1 - 1)"
    if story.users:
        db.execute(
            f"{numbers} INSERT INTO users(id, name) SELECT 'user-' || printf('%028x', n), n FROM n", (story.users,)
        )
    if not story.groups:
        return
    _memberships(db, 0, story.users - story.joiners, story.groups_each, story.groups)
    _memberships(db, story.users - story.joiners, story.users, story.groups, story.groups)
    db.execute(
        f"{numbers}, g AS (SELECT 'group-' || printf('%028x', n) AS id, n FROM n)"
        " INSERT INTO groups(id, name, members)"
        " SELECT id, n, (SELECT count(*) FROM memberships WHERE group_id = id) FROM g",
        (story.groups,),
    )


def _memberships(db: apsw.Connection, first: int, end: int, each: int, groups: int) -> None:
    """Users number `first` up to `end` join `each` groups, beginning with that of their own number."""
    if first >= end or not each:
        return
    db.execute(
        "WITH RECURSIVE u(n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM u WHERE n < ?2 - 1),"
        " k(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM k WHERE k < ?3 - 1)"
        " INSERT INTO memberships(user_id, group_id, key, joined_seq)"
        " SELECT 'user-' || printf('%028x', n), 'group-' || printf('%028x', (n + k) % ?4), random(), 0 FROM u, k",
        (first, end, each, groups),
    )


def _messages(db: apsw.Connection, story: Story) -> None:
    """Position after position, round the mailboxes; a private message leaves a copy, too."""
    if not story.messages:
        return
    boxes = _mailboxes(story)
    count = len(boxes)
    at_once = min(_AT_ONCE, count)
    last = time.time_ns() // 1_000_000 - story.ended_ms
    db.execute("CREATE TEMP TABLE boxes(n INTEGER PRIMARY KEY, mailbox TEXT, sender TEXT, is_copied INTEGER)")
    rows = [(n, mailbox, sender, mailbox[0] == "u") for n, (mailbox, sender) in enumerate(boxes)]
    db.executemany("INSERT INTO boxes VALUES (?, ?, ?, ?)", rows)
    db.execute(
        "WITH RECURSIVE p(p) AS (SELECT 0 UNION ALL SELECT p + 1 FROM p WHERE p < ?1 - 1)"
        " INSERT INTO messages(position, mailbox, seq, sender, sent_seq, timestamp, id, text)"
        " SELECT p + 1, mailbox, p / ?2 + 1, sender, iif(is_copied, p / ?2 + 1, NULL), ?3 - (?1 - 1 - p) / ?4,"
        " 'message-' || printf('%028x', p), ?5 FROM p JOIN boxes ON n = p % ?2",
        (story.messages, count, last, at_once, TEXT),
    )
    db.execute("UPDATE clock SET position = ?, timestamp = ?", (story.messages, last))


def _mailboxes(story: Story) -> list[tuple[str, str]]:
    """Each mailbox with who writes to it: the next user, or a member."""
    private = [(own(user_id(n)), user_id((n + 1) % story.users)) for n in range(story.users)]
    member = (lambda n: story.users - 1) if story.joiners else (lambda n: n % story.users)
    boxes = private + [(room(group_id(n)), user_id(member(n))) for n in range(story.groups)]
    return boxes[: story.mailboxes or None]


if __name__ == "__main__":
    tell(Path(sys.argv[1]), msgspec.json.decode(sys.stdin.buffer.read(), type=Story))
