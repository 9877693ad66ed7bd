"""The store: the truth, durable.

Every implementation keeps these promises; `tests/test_store.py` holds each of them against every one.

- Durable: a write that returned survives the death of every process and a power cut.
- Whole: a write takes effect with all of its parts (message, sent copy, idempotency key) or not at all; one that
  raised a `TidingsError` other than `StoreUnavailable` changed nothing. After `StoreUnavailable` the outcome is
  unknown: the same idempotency key finds it out.
- Checked: a write is decided against the state that it is appended to. Once `block` returned, no later `send` past
  that block succeeds; once `remove_member` returned, none by that member.
- Gap-free: a mailbox's messages have seq 1, 2, 3, ...; their timestamps strictly increase along it.
- Ordered, where the store keeps its own news (`LoggedStore`): every change has a position; `changes` gives all of them
  in that order, whole commits at a time. A message visible to `read` is visible to `changes`, and the other way round.
  Elsewhere a write's news has no positions (all 0) until the feed numbers it.
- Once: with a `Key` seen before and the same content, a write changes nothing and returns what it returned then; with
  other content it raises `KeyReused`. Only successes are remembered, for at least 24 hours. Its news is empty, but
  without positions the first call's again, since nobody may have been told.
- Snapshots: each read sees one state of the store, at least as new as every write that returned before it began. Where
  many nodes write (no positions), that is so of each mailbox by itself, which is never given with a hole; and a list of
  members may lag by a moment.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from tidings.board import Board
from tidings.config import Settings
from tidings.model import (
    Batch,
    Draft,
    Found,
    Group,
    Head,
    Key,
    Message,
    Profile,
    Start,
    User,
    Written,
)

Settle = Callable[[Written[Message] | None, Exception | None], None]


class Store(Protocol):
    """The truth; see the module's words for what every method promises."""

    @property
    def generation(self) -> int:
        """A random 64-bit number of this history: kept by export and import, changed by restore."""

    @property
    def forgets(self) -> bool:
        """Whether messages leave by themselves: then what is kept of a mailbox may change without news."""

    @property
    def waiting(self) -> int:
        """How many writes wait."""

    async def create_user(self, user: User, key: Key | None = None) -> Written[User]:
        """Add a user."""

    async def create_group(self, group: Group, key: Key | None = None) -> Written[Group]:
        """Add a group without members."""

    async def block(self, user_id: str, other_id: str, key: Key | None = None) -> Written[None]:
        """Let `user_id` refuse private messages of `other_id`. Raises Unknown (user, then other), Conflict."""

    async def unblock(self, user_id: str, other_id: str, key: Key | None = None) -> Written[None]:
        """Take a block back. Raises Unknown (user, then other), Conflict."""

    async def add_member(self, group_id: str, user_id: str, key: Key | None = None) -> Written[None]:
        """Let a user into a group, under a new membership key. Raises Unknown (group, then user), Conflict."""

    async def remove_member(self, group_id: str, user_id: str, key: Key | None = None) -> Written[None]:
        """Put a user out of a group. Raises Unknown (group, then user), Conflict."""

    async def send(self, draft: Draft, key: Key | None = None) -> Written[Message]:
        """Append to the recipient's mailbox (and the sender's copies, if kept and sender is not recipient).

        Raises, private: Unknown receiver, Refused `blocked`, Unknown sender; group: Unknown sender, Unknown group,
        Refused `not_a_member`; both: TooMany `mailbox_busy` when as many wait for that mailbox as the limit allows.
        """

    def submit(self, draft: Draft, key: Key | None, settle: Settle) -> None:
        """`send` without waiting: `settle` is called once, on the event loop, with what it gives or would raise.

        In that very call the news must be published: a reader may come before the next step of the loop. Raises at
        once, instead of settling, what refuses a write before it waits: TooMany, Unavailable.
        """

    async def find_profile(self, user_id: str) -> Profile | None:
        """A user with the memberships of now."""

    async def find_group(self, group_id: str) -> Group | None:
        """A group."""

    async def blocks(self, user_id: str) -> list[str]:
        """The ids that a user blocks, in order; empty for an unknown user."""

    async def members(self, group_id: str, after: str, limit: int) -> list[User]:
        """At most `limit` members with ids above `after`, in order of ids."""

    async def heads(self, mailboxes: Sequence[str]) -> list[Head]:
        """The heads, in the order asked for; `NO_HEAD` for a mailbox never written to."""

    async def read(self, starts: Sequence[Start], limit: int, until: int | None = None) -> list[Found]:
        """The first `limit` messages after the starts, merged by (timestamp, mailbox).

        Where there are positions, nothing with one above `until` is given, so that a read can continue the state that
        a tail has applied. Memory is bounded by `limit` and the number of starts, whatever the mailboxes hold.
        """

    async def read_before(self, mailbox: str, before: int, limit: int, until: int | None = None) -> list[Found]:
        """The last `limit` messages with a seq below `before` and no position above `until`, oldest first."""

    async def position(self) -> int:
        """The position of the last commit; 0 where there are none."""

    def surely_knows(self, run: int, position: int) -> bool:
        """Whether memory alone can tell that `knows` would say so. Raises StoreUnavailable."""

    async def knows(self, run: int, position: int) -> bool:
        """Whether a cursor of this generation, minted in `run` at `position`, belongs to this history."""

    async def close(self) -> None:
        """Finish the writes under way, refuse later ones, let go of everything."""


class LoggedStore(Store, Protocol):
    """A store that numbers its own commits and keeps their news: the embedded one, which is its own feed."""

    @property
    def run(self) -> int:
        """A random 64-bit number of this server start: the feed's identity on an embedded store."""

    def share(self, board: Board) -> None:
        """Let the workers of this server open the store as well. Raises StartError if another server slipped in."""

    async def changes(self, after: int, limit: int) -> Batch:
        """The news after a position: whole commits, about `limit` changes (one commit's more at the most).

        Raises `Forgotten` if some of it was trimmed: who follows must begin anew at `position`.
        """

    def follow(self, tell: Callable[[Batch], None]) -> None:
        """Have `tell` called, on the event loop, with what others committed, when a write of ours has read it.

        That is before the write is settled; what was not read on the way is in `changes` alone.
        """

    def latest(self) -> int:
        """The same, without leaving the event loop: microseconds. A commit counts once a writer was answered for it."""

    def look(self) -> int:
        """The same, by the file itself; one process's commit counts though no writer was answered, or lived to be."""

    async def recent(self, window_ms: int, limit: int) -> int:
        """A position after which lie at most `limit` changes, none older than `window_ms`: where a tail begins."""


class Meter(Protocol):
    """Who counts what a store does."""

    def store_call(self, name: str) -> None:
        """One more read or write of this name was asked for."""

    def batch(self, size: int) -> None:
        """A commit took so many writes."""


class RemoteMeter(Meter, Protocol):
    """The same of a store on other machines."""

    def capacity(self, kind: str, units: float) -> None:
        """A store that is paid by use counted so many units for one call; `kind` is read or write."""

    def operation(self, name: str, is_own: bool) -> None:
        """One try of a call to a database over the network, by its name there; `is_own`: no request is behind it."""

    def retry(self, why: str) -> None:
        """That will be tried again: it was `busy`, or its answer was `lost`."""

    def conflict(self) -> None:
        """A put found another node's message in its place, and goes behind it."""


class Uncounted:
    """The meter of a program that makes a few calls and ends: it counts nothing."""

    def store_call(self, name: str) -> None:
        """Not counted."""

    def batch(self, size: int) -> None:
        """Not counted."""

    def capacity(self, kind: str, units: float) -> None:
        """Not counted."""

    def operation(self, name: str, is_own: bool) -> None:
        """Not counted."""

    def retry(self, why: str) -> None:
        """Not counted."""

    def conflict(self) -> None:
        """Not counted."""


async def open_store(
    settings: Settings, meter: Meter, run: int | None = None, board: Board | None = None
) -> LoggedStore:
    """Open the embedded store that the settings name, as its one server or as a worker of the server that began `run`.

    Workers show each other on the board what is committed.
    Raises StartError, in one line, if it is served already, foreign, newer or corrupt.
    """
    from tidings.store.sqlite import SqliteStore  # a driver is imported only when asked for

    return await SqliteStore.open(settings, meter, run, board)
