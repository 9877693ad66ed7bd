"""The directory: users with their memberships, and mailbox heads, in memory; kept right by the feed.

Entries are loaded when asked for. News that comes in while an entry is being loaded makes that load worth nothing
(a user's entry is loaded again, a head takes the later value): a loaded state may be older than the news.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from tidings.cache import Cache
from tidings.cursor import WITH_SENT, digest_of
from tidings.errors import unknown_user
from tidings.model import Altered, Batch, Head, Membership, Profile, User, own, room, sent
from tidings.store import Store

_ENDED_MAX = 1_000  # remembered for one user: 32 KB at the most


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What reading needs to know of a user: the mailboxes (by id, their own last), the digest for hints, and the rest.

    That is packed, since a directory holds hundreds of thousands.
    """

    mailboxes: tuple[str, ...]
    digest: int
    packed: bytes
    ended: frozenset[int] = frozenset()  # keys of stays that the store was asked for, and does not have

    @property
    def mailboxes_with_sent(self) -> tuple[str, ...]:
        """The mailboxes, and the copies of what was sent."""
        return (*self.mailboxes, sent(self.user_id))

    @property
    def digest_with_sent(self) -> int:
        """The digest for all of these."""
        return self.digest | WITH_SENT

    @property
    def user_id(self) -> str:
        """Whose entry it is."""
        return self.mailboxes[-1][1:]

    @property
    def profile(self) -> Profile:
        """The user with the memberships, unpacked at each look: 0.1 us a group."""
        username, stays = _unpack(self.packed)
        rooms = zip(self.mailboxes, stays, strict=False)
        return Profile(User(self.user_id, username), tuple(Membership(name[1:], *stay) for name, stay in rooms))

    def membership(self, group_id: str) -> Membership | None:
        """The user's membership in a group, if there is one."""
        mailbox = room(group_id)
        return self.profile.memberships[self.mailboxes.index(mailbox)] if mailbox in self.mailboxes else None


_Stay = tuple[str, int, int]  # the group's name, the membership's key, the head at joining
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[str, tuple[_Stay, ...]]).decode


def entry_of(profile: Profile, share: Callable[[str], str] = str) -> Entry:
    """An entry made from what the store says; `share` gives a group's mailbox as others hold it, so that it is one."""
    stays = [(m.group_name, m.key, m.joined_seq) for m in profile.memberships]
    return Entry(
        (*(share(room(m.group_id)) for m in profile.memberships), own(profile.user.user_id)),
        digest_of([m.key for m in profile.memberships], with_sent=False),
        _pack((profile.user.username, stays)),
    )


class Straight:
    """The store asked anew at each look, in the directory's words: for whoever may not trust what is remembered."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def find(self, user_id: str) -> Entry | None:
        """Nothing is held."""
        return None

    def find_head(self, mailbox: str) -> Head | None:
        """Nothing is held."""
        return None

    async def entry(self, user_id: str) -> Entry:
        """A user's entry. Raises Unknown; StoreUnavailable."""
        profile = await self._store.find_profile(user_id)
        if profile is None:
            raise unknown_user(user_id)
        return entry_of(profile)

    async def confirm_ended(self, entry: Entry, keys: frozenset[int]) -> Entry:
        """The entry is what the store says."""
        return entry

    async def heads(self, mailboxes: Sequence[str]) -> Mapping[str, Head]:
        """Heads. Raises StoreUnavailable."""
        return dict(zip(mailboxes, await self._store.heads(mailboxes), strict=True))

    async def load_heads(self, mailboxes: Sequence[str]) -> Mapping[str, Head]:
        """The same."""
        return await self.heads(mailboxes)


class _HeadLoad:
    """A reading of heads under way, and the news of those mailboxes that came in meanwhile."""

    def __init__(self) -> None:
        self.newer: dict[str, Head] = {}
        self.task: asyncio.Task[dict[str, Head]]


def _later(head: Head, news: Head | None) -> Head:
    """A head moved on by news, if that is later; what is kept no more stays as it was."""
    if news is None or (news.seq, news.timestamp) <= (head.seq, head.timestamp):
        return head  # a message that came late is told under a later timestamp than it is stored with
    return Head(news.seq, news.timestamp, head.gone, head.gone_timestamp)


def _look_at(task: "asyncio.Task[Any]") -> None:
    """Take note of how a load ended: all who waited for it may be gone, and asyncio would complain in the log."""
    if not task.cancelled():
        task.exception()


class Directory:
    """Bounded; the least recently used leave. `apply` and `reset` make it a listener of the feed."""

    def __init__(self, store: Store, max_users: int, max_heads: int) -> None:
        self._store = store
        self._entries: Cache[Entry] = Cache(max_users)  # by the user's own mailbox
        self._heads: Cache[Head] = Cache(max_heads)
        self._rooms: Cache[str] = Cache(max_heads)  # each group's mailbox, once for all members
        self._loading: dict[str, asyncio.Task[Entry]] = {}
        self._stale: set[str] = set()  # users whose load under way is worth nothing
        self._loading_heads: dict[str, _HeadLoad] = {}

    @property
    def users(self) -> int:
        """How many users are held."""
        return len(self._entries)

    @property
    def heads_held(self) -> int:
        """How many heads are held."""
        return len(self._heads)

    def apply(self, batch: Batch) -> None:
        """Drop what is no longer so; move heads on."""
        knows_heads = len(self._heads) > 0 or bool(self._loading_heads)
        for change in batch.changes:
            if isinstance(change, Altered):
                self._entries.drop(own(change.user_id))
                if change.user_id in self._loading:
                    self._stale.add(change.user_id)
            elif knows_heads:
                message = change.message
                timestamp = int(message.timestamp)
                self._move(change.mailbox, message.seq, timestamp)
                if change.sent_seq:
                    self._move(sent(message.sender_id), change.sent_seq, timestamp)

    def reset(self, position: int, latest: int | None = None) -> None:
        """Forget everything, loads under way too."""
        self._entries.clear()
        self._heads.clear()
        self._rooms.clear()
        self._stale.update(self._loading)
        self._loading_heads = {}

    def find(self, user_id: str) -> Entry | None:
        """A user's entry, if it is held."""
        return self._entries.use(own(user_id))

    async def entry(self, user_id: str) -> Entry:
        """A user's entry. Raises Unknown; StoreUnavailable."""
        return self.find(user_id) or await self.reload(user_id)

    async def reload(self, user_id: str) -> Entry:
        """A user's entry, as the store has it now. Raises Unknown; StoreUnavailable."""
        task = self._loading.get(user_id)
        if task is None:
            task = self._loading[user_id] = asyncio.create_task(self._load(user_id))
            task.add_done_callback(_look_at)
        return await asyncio.shield(task)

    async def confirm_ended(self, entry: Entry, keys: frozenset[int]) -> Entry:
        """The user's entry, loaded anew because it lacks these memberships, and what is lacking still remembered.

        So a client that keeps an old cursor costs one look into the store, not one a poll. Raises StoreUnavailable.
        """
        under_way = self._loading.get(entry.user_id)
        if under_way is not None:  # it may have looked before there was what the cursor names
            await asyncio.wait([under_way])
        loaded = await self.reload(entry.user_id)
        lacking = keys - {m.key for m in loaded.profile.memberships}
        known = entry.ended | lacking if len(entry.ended) < _ENDED_MAX else lacking  # a stay that ended stays so
        confirmed = msgspec.structs.replace(loaded, ended=known)
        mailbox = entry.mailboxes[-1]
        if self._entries.find(mailbox) is loaded:
            self._entries.replace(mailbox, confirmed)
        return confirmed

    def find_head(self, mailbox: str) -> Head | None:
        """A mailbox's head, if it is held."""
        return self._heads.find(mailbox)

    async def heads(self, mailboxes: Sequence[str]) -> Mapping[str, Head]:
        """Heads as new as the moment of the call, at least. Raises StoreUnavailable."""
        found: dict[str, Head] = {}
        missing: list[str] = []
        for mailbox in mailboxes:
            head = self._heads.use(mailbox)
            if head is None:
                missing.append(mailbox)
            else:
                found[mailbox] = head
        if missing:
            found |= await self.load_heads(missing)
        return found

    async def load_heads(self, mailboxes: Sequence[str]) -> dict[str, Head]:
        """Heads as the store has them now; concurrent loads of one head are one load. Raises StoreUnavailable."""
        missing = [mailbox for mailbox in mailboxes if mailbox not in self._loading_heads]
        if missing:
            load = _HeadLoad()
            self._loading_heads.update(dict.fromkeys(missing, load))
            load.task = asyncio.create_task(self._load_heads(load, missing))
            load.task.add_done_callback(_look_at)
        loads = {mailbox: self._loading_heads[mailbox] for mailbox in mailboxes}
        return {mailbox: (await asyncio.shield(load.task))[mailbox] for mailbox, load in loads.items()}

    async def _load_heads(self, load: "_HeadLoad", mailboxes: Sequence[str]) -> dict[str, Head]:
        try:
            loaded = await self._store.heads(mailboxes)
        finally:
            is_current = self._loading_heads.get(mailboxes[0]) is load  # a reset lets go of the loads under way
            for mailbox in mailboxes if is_current else ():
                del self._loading_heads[mailbox]
        heads = {
            mailbox: _later(head, load.newer.get(mailbox)) for mailbox, head in zip(mailboxes, loaded, strict=True)
        }
        if is_current:
            for mailbox, head in heads.items():
                self._heads.put(mailbox, head)
        return heads

    def _move(self, mailbox: str, seq: int, timestamp: int) -> None:
        head = self._heads.find(mailbox)
        if head is not None and head.seq <= seq and (head.seq < seq or head.timestamp < timestamp):
            self._heads.replace(mailbox, Head(seq, timestamp, head.gone, head.gone_timestamp))
        load = self._loading_heads.get(mailbox)
        if load is not None:
            load.newer[mailbox] = _later(Head(seq, timestamp), load.newer.get(mailbox))

    async def _load(self, user_id: str) -> Entry:
        try:
            while True:
                self._stale.discard(user_id)
                profile = await self._store.find_profile(user_id)
                if user_id not in self._stale:
                    break
        finally:
            del self._loading[user_id]
            self._stale.discard(user_id)
        if profile is None:
            raise unknown_user(user_id)
        entry = entry_of(profile, self._share)
        self._entries.put(entry.mailboxes[-1], entry)
        return entry

    def _share(self, mailbox: str) -> str:
        held = self._rooms.use(mailbox)
        if held is None:
            self._rooms.put(mailbox, mailbox)
        return held or mailbox
