"""What is written, but for messages (sends.py): each function runs inside a commit, checks first, then writes.

Every write has two halves: `check` may refuse, and nothing was changed then; what follows can't be refused any more.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from tidings.errors import Conflict, KeyReused, unknown_group, unknown_user
from tidings.model import (
    Altered,
    Group,
    Key,
    User,
    room,
)
from tidings.store.sqlite import mailboxes
from tidings.store.sqlite.file import random_64
from tidings.store.sqlite.transaction import Transaction

T = TypeVar("T")


class Limits(msgspec.Struct, frozen=True):
    """How many of a thing there may be."""

    groups_per_user: int
    blocks_per_user: int
    members_per_group: int


def once(key: Key | None, kind: type[T], write: Callable[[Transaction], T]) -> Callable[[Transaction], T]:
    """Run a write for its idempotency key once, and give the remembered answer ever after. Raises KeyReused."""
    if key is None:
        return write

    def guarded(tx: Transaction) -> T:
        found = tx.db.execute("SELECT content, answer FROM keys WHERE name = ?", (key.name,)).get
        if found is None:
            value = write(tx)
            tx.db.execute(
                "INSERT INTO keys (name, content, timestamp, answer) VALUES (?, ?, ?, ?)",
                (key.name, key.content, tx.timestamp, msgspec.json.encode(value).decode()),
            )
            return value
        content, answer = found
        if content != key.content:
            raise KeyReused("idempotency_key_reused", "This Idempotency-Key was used with other content.")
        return msgspec.json.decode(answer, type=kind)

    return guarded


def create_user(tx: Transaction, user: User) -> User:
    """Add a user; ids are ours and random, so there is nothing to check."""
    tx.db.execute("INSERT INTO users VALUES (?, ?)", (user.user_id, user.username))
    _alter(tx, user.user_id)  # somebody may be looking the user up just now
    return user


def create_group(tx: Transaction, group: Group) -> Group:
    """Add a group without members."""
    tx.db.execute("INSERT INTO groups VALUES (?, ?, 0)", (group.group_id, group.group_name))
    return group


def block(tx: Transaction, user_id: str, other_id: str, limits: Limits) -> None:
    """Add a block, unless there is one or the user has too many."""
    need_user(tx, user_id)
    need_user(tx, other_id)
    if _is_blocked(tx, user_id, other_id):
        raise Conflict("already_blocked", "That user is blocked already.")
    if _count(tx, "SELECT count(*) FROM blocks WHERE user_id = ?", user_id) >= limits.blocks_per_user:
        raise Conflict("too_many_blocks", f"A user can block {limits.blocks_per_user} others.")
    tx.db.execute("INSERT INTO blocks VALUES (?, ?)", (user_id, other_id))
    _alter(tx, user_id)


def unblock(tx: Transaction, user_id: str, other_id: str) -> None:
    """Take a block back."""
    need_user(tx, user_id)
    need_user(tx, other_id)
    if not _is_blocked(tx, user_id, other_id):
        raise Conflict("not_blocked", "That user is not blocked.")
    tx.db.execute("DELETE FROM blocks WHERE user_id = ? AND other_id = ?", (user_id, other_id))
    _alter(tx, user_id)


def add_member(tx: Transaction, group_id: str, user_id: str, limits: Limits) -> None:
    """Let a user in under a new membership key, which a cursor names instead of the group."""
    members = tx.db.execute("SELECT members FROM groups WHERE id = ?", (group_id,)).get
    if members is None:
        raise unknown_group(group_id)
    need_user(tx, user_id)
    if _is_member(tx, group_id, user_id):
        raise Conflict("already_a_member", "That user is a member already.")
    if _count(tx, "SELECT count(*) FROM memberships WHERE user_id = ?", user_id) >= limits.groups_per_user:
        raise Conflict("too_many_groups", f"A user can be in {limits.groups_per_user} groups.")
    if members >= limits.members_per_group:
        raise Conflict("group_full", f"A group can have {limits.members_per_group} members.")
    joined_seq = mailboxes.head(tx.db, room(group_id)).seq
    row = (user_id, group_id, _new_membership_key(tx, user_id), joined_seq)
    tx.db.execute("INSERT INTO memberships VALUES (?, ?, ?, ?)", row)
    tx.db.execute("UPDATE groups SET members = members + 1 WHERE id = ?", (group_id,))
    _alter(tx, user_id)


def remove_member(tx: Transaction, group_id: str, user_id: str) -> None:
    """Put a user out; a later joining is a new membership."""
    if tx.db.execute("SELECT 1 FROM groups WHERE id = ?", (group_id,)).get is None:
        raise unknown_group(group_id)
    need_user(tx, user_id)
    if not _is_member(tx, group_id, user_id):
        raise Conflict("not_a_member_of_it", "That user is not a member.")
    tx.db.execute("DELETE FROM memberships WHERE user_id = ? AND group_id = ?", (user_id, group_id))
    tx.db.execute("UPDATE groups SET members = members - 1 WHERE id = ?", (group_id,))
    _alter(tx, user_id)


def need_user(tx: Transaction, user_id: str) -> None:
    """Raises Unknown if there is no such user."""
    if tx.db.execute("SELECT 1 FROM users WHERE id = ?", (user_id,)).get is None:
        raise unknown_user(user_id)


def _is_blocked(tx: Transaction, user_id: str, other_id: str) -> bool:
    found = tx.db.execute("SELECT 1 FROM blocks WHERE user_id = ? AND other_id = ?", (user_id, other_id)).get
    return found is not None


def _is_member(tx: Transaction, group_id: str, user_id: str) -> bool:
    found = tx.db.execute("SELECT 1 FROM memberships WHERE user_id = ? AND group_id = ?", (user_id, group_id)).get
    return found is not None


def _new_membership_key(tx: Transaction, user_id: str) -> int:
    while True:
        key = random_64()
        if tx.db.execute("SELECT 1 FROM memberships WHERE user_id = ? AND key = ?", (user_id, key)).get is None:
            return key


def _count(tx: Transaction, query: str, argument: str) -> int:
    return int(tx.db.execute(query, (argument,)).get)


def _alter(tx: Transaction, user_id: str) -> None:
    position = tx.next_position()
    tx.db.execute("INSERT INTO alterations VALUES (?, ?, ?)", (position, tx.timestamp, user_id))
    tx.changes.append(Altered(position, user_id))
