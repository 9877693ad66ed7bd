"""One reading: from where in each mailbox, up to which position, and the pages that it gives.

A reading is of one moment: `until` is the position this node had applied when it began, and nothing later is given,
however many pages it takes. So a page is a consistent cut over all mailboxes, hot or cold, and a cursor minted from it
stands for exactly that. (A store without positions may give later ones as well, without a hole: the cursor's vector
says so, and only its hint stands for the moment.)

Who reads by timestamp is shown nothing that was not settled at that moment: all that comes later has a later timestamp.
"""

from collections.abc import Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import NamedTuple

import msgspec

from tidings import cursor as cursors
from tidings.cursor import Hint, Marks
from tidings.directory import Directory, Entry, Straight
from tidings.errors import AnotherHistory
from tidings.model import Found, Head, Message, Start, own, room, sent
from tidings.service.node import Node

SETTLE_S = 0.5  # how long a reader by timestamp waits for messages with earlier ones, if they are still on their way


class Page(msgspec.Struct, frozen=True):
    """Messages in the order of (timestamp, mailbox); whether there are more, and whether some are kept no more."""

    messages: Sequence[Message]
    more: bool
    expired: bool
    why_cold: str


class _Look(NamedTuple):
    """What was found next, in order; mailboxes of which some is kept no more, and up to which seq."""

    merged: Sequence[Found]
    expired: Sequence[tuple[str, int]]
    why_cold: str


class Moment(NamedTuple):
    """A position, and the identity of the feed that it is of."""

    position: int
    identity: int


def moment_of(node: Node) -> Moment:
    """What this node has applied."""
    return Moment(node.tail.position, node.feed.identity)


class Reading:
    """Where a reader stands in each mailbox; `next` gives a page and moves on."""

    def __init__(
        self,
        node: Node,
        sight: Directory | Straight,
        entry: Entry,
        starts: dict[str, Start],
        moment: Moment,
        *,
        with_sent: bool,
        settled: int | None = None,
    ) -> None:
        self._node = node
        self._sight = sight
        self._entry = entry
        self._starts = starts
        self._with_sent = with_sent
        self._sent_kept: int | None = None
        self.until, self._identity = moment
        self._settled = settled  # at that moment, if whoever reads may go on by the timestamp of the last message
        self._fit = node.settings.page_max  # messages that a page has room for, as far as is known
        self.why_cold = ""  # what had to be asked for before the first page
        self.is_whole = True  # every mailbox of the entry is spoken for
        self._has_waited = False  # for messages on their way

    def keep_sent(self, seq: int | None) -> None:
        """Carry along how far the sent copies were given, in a reading that does not ask for them."""
        self._sent_kept = seq

    async def follow(self) -> None:
        """Go on with what the reader may see now: stays that ended are dropped, new ones are for the next call.

        Raises Unknown, StoreUnavailable.
        """
        self._sight = await self._node.sight()
        entry = await self._sight.entry(self._entry.user_id)
        now = {m.key for m in entry.profile.memberships}
        for m in self._entry.profile.memberships:
            if m.key not in now:
                self._starts.pop(room(m.group_id), None)
        self.is_whole = self.is_whole and entry.digest == self._entry.digest

    async def next(self, limit: int) -> Page:
        """The next page of about `limit` messages; but by cursor, it never ends between equal timestamps.

        Where texts are long, it ends earlier: after --page-max-chars of them, or one message.
        """
        limit = min(limit, self._fit * 2)  # no more is read than the last page had room for, twice
        look = await self._look(limit)
        if self._settled is not None and look.merged and look.merged[-1].timestamp > self._settled:
            look = await self._look_settled(look, limit)
        merged = look.merged
        end = self._end(merged, limit)
        self._fit = end if end < len(merged) else self._fit
        for mailbox, gone in look.expired:  # said once: from here on the reader stands where the kept ones begin
            self._starts[mailbox] = Start(mailbox, gone)
        for found in merged[:end]:
            self._starts[found.mailbox] = Start(found.mailbox, found.message.seq)
        messages = [found.message for found in merged[:end]]
        return Page(messages, len(merged) > end, bool(look.expired), look.why_cold)

    async def _look(self, limit: int) -> "_Look":
        """What comes next, and a little more, so that it is seen where a page can end."""
        sight = self._sight
        is_known = all(sight.find_head(mailbox) is not None for mailbox in self._starts)
        heads = await sight.heads(list(self._starts))
        wanted = limit + 1 + (len(self._starts) if self._settled is not None else 0)
        news = {mailbox: s for mailbox, s in self._starts.items() if _has_news(s, heads[mailbox])}
        hot, cold = self._hot(news, heads, wanted)
        if cold:
            hot.append(await self._node.store.read(cold, wanted, self.until))
            before = len(self._starts)
            await self.follow()  # what was read may be later than the look at the memberships
            if len(self._starts) < before:  # a stay has ended: its messages took the room of others
                return await self._look(limit)
            if self._node.store.forgets:  # some of it may have left by itself since its head was looked at
                heads = {**heads, **await self._sight.load_heads([start.mailbox for start in cold])}
        why_cold = self.why_cold or ("messages" if cold else "" if is_known else "head")
        merged = hot[0] if len(hot) == 1 else list(islice(merge(*hot, key=_by_time), wanted))
        expired = [
            (mailbox, heads[mailbox].gone) for mailbox, s in self._starts.items() if _is_expired(s, heads[mailbox])
        ]
        return _Look(merged, expired, why_cold)

    async def _look_settled(self, look: "_Look", limit: int) -> "_Look":
        """Look again once what was found is settled: what came before it in time may have come in only now.

        What is not settled after a while is for the next question.
        """
        node, last = self._node, look.merged[-1].timestamp
        if not self._has_waited:
            self._has_waited = True  # once a reading: so it ends
            await node.feed.settle(last, SETTLE_S)
            self._settled, (self.until, self._identity) = node.feed.settled, moment_of(node)  # nothing runs in between
            look = await self._look(limit)
        settled = self._settled or 0
        return _Look([one for one in look.merged if one.timestamp <= settled], look.expired, look.why_cold)

    def marks(self) -> Marks:
        """Where the reader stands now, to be moved on message by message."""
        entry, user_id = self._entry, self._entry.user_id
        stays = zip(entry.mailboxes, entry.profile.memberships, strict=False)
        return Marks(
            user_id,
            (self._node.store.generation, self._identity),
            {mailbox: start.seq for mailbox, start in self._starts.items()},
            mailboxes=(own(user_id), sent(user_id) if self._with_sent else None),
            groups={mailbox: m.key for mailbox, m in stays if mailbox in self._starts},
            sent_kept=self._sent_kept,
        )

    @property
    def is_current(self) -> bool:
        """Whether this node has applied nothing since the reading's moment."""
        return (self.until, self._identity) == moment_of(self._node)

    @property
    def mailboxes(self) -> tuple[str, ...]:
        """What is read."""
        return tuple(self._starts)

    @property
    def digest(self) -> int:
        """What a hint stands for, once everything was given."""
        entry = self._entry
        if not self.is_whole or not self._is_trusted:
            return 0
        return entry.digest_with_sent if self._with_sent else entry.digest

    def cursor(self, more: bool) -> str:
        """Where the reader stands now; with a hint if nothing of theirs is left up to `until`."""
        return self.marks().mint(self.until, 0 if more else self.digest)

    def _hot(
        self, starts: Mapping[str, Start], heads: Mapping[str, Head], limit: int
    ) -> tuple[list[list[Found]], list[Start]]:
        """What the tail has, and the starts that it can't go on from, or not up to the head.

        It has an old message alone, without what came after it, if that was told once more.
        """
        if not self._is_trusted:
            return [], list(starts.values())
        tail = self._node.tail
        hot: list[list[Found]] = []
        cold: list[Start] = []
        for mailbox, start in starts.items():
            if start.time is None:
                found = tail.after_seq(mailbox, start.seq, self.until, limit)
            else:
                found = tail.after_time(mailbox, start.time, self.until, limit)
            if found is None or _is_short(found, heads[mailbox], limit):
                cold.append(start)
            else:
                hot.append(found)
        return hot, cold

    @property
    def _is_trusted(self) -> bool:
        """Whether this node knows everything acknowledged, and not the store alone."""
        return self._sight is self._node.directory

    def _end(self, merged: Sequence[Found], limit: int) -> int:
        room = self._node.settings.page_max_chars
        end = 0
        while end < min(limit, len(merged)) and (room := room - len(merged[end].message.message)) >= 0:
            end += 1
        end = max(end, min(1, len(merged)))
        if self._settled is not None:
            while 0 < end < len(merged) and merged[end].timestamp == merged[end - 1].timestamp:
                end += 1
        return end


async def read_vector(
    node: Node, sight: Directory | Straight, hint: Hint, entry: Entry, with_sent: bool, moment: Moment
) -> Reading:
    """A reading that goes on where a cursor's vector says. Raises AnotherHistory, Malformed."""
    vector = cursors.unpack_vector(hint.raw)
    user_id = entry.user_id
    if hint.generation != node.store.generation or not await node.store.knows(hint.run, hint.position):
        raise _another_history()
    memberships = entry.profile.memberships
    unknown = frozenset(vector.groups.keys() - {m.key for m in memberships} - entry.ended)
    # What the cursor says of a stay is dropped on the store's word only; and a stay of which it says nothing has begun
    # since, or (where many nodes write) has ended, which another node knew: on the store's word, too.
    is_lacking = not node.settings.is_embedded and any(m.key not in vector.groups for m in memberships)
    if unknown or is_lacking:
        entry = await sight.confirm_ended(entry, unknown)
        memberships = entry.profile.memberships
    seqs = {own(user_id): vector.own}
    for m in memberships:
        seqs[room(m.group_id)] = vector.groups.get(m.key, m.joined_seq)
    if with_sent:
        seqs[sent(user_id)] = vector.sent or 0
    await _check_heads(node, sight, seqs)
    starts = {mailbox: Start(mailbox, seq) for mailbox, seq in seqs.items()}
    reading = Reading(node, sight, entry, starts, moment, with_sent=with_sent)
    reading.keep_sent(vector.sent)
    return reading


def is_all_given(node: Node, hint: Hint, entry: Entry, with_sent: bool) -> bool:
    """Whether memory can tell, without a hint, that nothing is new: every n of the vector is its mailbox's known head.

    That holds up to the position applied, however old the cursor; whatever is in doubt is for `read_vector`. Raises
    Malformed, StoreUnavailable.
    """
    if hint.generation != node.store.generation or not node.store.surely_knows(hint.run, hint.position):
        return False
    vector = cursors.unpack_vector(hint.raw)
    keys = [m.key for m in entry.profile.memberships]
    if vector.groups.keys() != set(keys) or (with_sent and vector.sent is None):
        return False
    given = [*(vector.groups[key] for key in keys), vector.own, vector.sent]
    find_head = node.directory.find_head
    for mailbox, seq in zip(entry.mailboxes_with_sent if with_sent else entry.mailboxes, given, strict=False):
        head = find_head(mailbox)
        if head is None or head.seq != seq:  # a seq above the head may be of another history
            return False
    return True


async def _check_heads(node: Node, sight: Directory | Straight, seqs: Mapping[str, int]) -> None:
    """A seq that was never given out belongs to another history; the store is asked before that is believed."""
    heads = await sight.heads(list(seqs))
    beyond = [mailbox for mailbox, seq in seqs.items() if seq > heads[mailbox].seq]
    if beyond:
        loaded = await node.store.heads(beyond)
        if any(seqs[mailbox] > head.seq for mailbox, head in zip(beyond, loaded, strict=True)):
            raise _another_history()


def _another_history() -> AnotherHistory:
    return AnotherHistory(
        "cursor_of_another_history",
        "The store does not continue the history that this cursor was given in; start over without a cursor.",
    )


def _is_short(found: Sequence[Found], head: Head, limit: int) -> bool:
    """Whether there is more than what was found, though there was room."""
    return len(found) < limit and (not found or found[-1].message.seq < head.seq)


def _has_news(start: Start, head: Head) -> bool:
    return head.seq > start.seq if start.time is None else head.timestamp > start.time


def _is_expired(start: Start, head: Head) -> bool:
    return head.gone > start.seq if start.time is None else head.gone_timestamp > start.time


def _by_time(found: Found) -> tuple[int, str]:
    return found.timestamp, found.mailbox
