"""Telling what somebody else left untold: in a mailbox, n is announced before n+1.

A node may have stored a message and died before it told it, or its caller went away meanwhile. Who appends behind such
a message tells it first; so readers by timestamp are shown it while it is not behind them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from tidings.cache import Cache
from tidings.errors import TidingsError
from tidings.model import Batch, Head, Posted
from tidings.store.dynamodb import items
from tidings.store.dynamodb.mailboxes import Mailboxes

log = logging.getLogger("tidings.store")

Publish = Callable[[Batch], Awaitable[None]]
HasTold = Callable[[str, int, int], bool]

_WAIT_S, _LOOK_S = 0.02, 0.004  # another node tells what it stored after 2 ms or so
_MOST = 100  # messages told for others at a time
_HANDED_MAX = 200_000  # mailboxes, 0.2 KB each


class Announcer:
    """One node's; `join` gives it the feed and what this node was told, without which it does nothing."""

    def __init__(self, boxes: Mailboxes) -> None:
        self._boxes = boxes
        self._handed: Cache[int] = Cache(_HANDED_MAX)  # by mailbox: the last seq that this node tells itself
        self._telling: set[asyncio.Task[None]] = set()
        self._publish: Publish | None = None
        self._has_told: HasTold = lambda mailbox, seq, timestamp: True

    def join(self, publish: Publish, has_told: HasTold) -> None:
        """`has_told` says whether the feed told a message, or may have, by its mailbox, seq and timestamp."""
        self._publish = publish
        self._has_told = has_told

    def hand_over(self, posted: Posted) -> None:
        """Somebody here tells this one."""
        self._handed.put(posted.mailbox, posted.message.seq)

    def tell(self, posts: Sequence[Posted]) -> None:
        """Tell these, since nobody else here does; in the background, behind what was told before."""
        if self._publish is None or not posts:
            return
        task = asyncio.get_running_loop().create_task(self._tell(self._publish, Batch(0, 0, tuple(posts))))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def tell_behind(self, heads: Mapping[str, Head], due: float) -> None:
        """Before the messages behind these heads are told: tell what up to there was not, once it had its time."""
        loop = asyncio.get_running_loop()
        patience = min(due, loop.time() + _WAIT_S)
        untold = self._untold(heads)
        while untold and loop.time() < patience:
            await asyncio.sleep(_LOOK_S)
            untold = self._untold(untold)
        for mailbox, head in untold.items():
            try:
                found = await self._boxes.last_items(mailbox, head.seq, _MOST, due)
            except TidingsError as error:  # they are stored, and told when they are next met
                log.warning("what others stored could not be told for them: %s", error)
                continue
            posts = [items.posted(item, mailbox) for item in found]
            self.tell([p for p in posts if not self._has_told(mailbox, p.message.seq, int(p.message.timestamp))])

    async def close(self) -> None:
        """Wait for what is being told."""
        if self._telling:
            await asyncio.wait(self._telling)

    def _untold(self, heads: Mapping[str, Head]) -> dict[str, Head]:
        return {
            mailbox: head
            for mailbox, head in heads.items()
            if head.seq
            and self._handed.find(mailbox) != head.seq
            and not self._has_told(mailbox, head.seq, head.timestamp)
        }

    async def _tell(self, publish: Publish, batch: Batch) -> None:
        try:
            await publish(batch)
        except TidingsError as error:  # the feed has it, and tells it when it can
            log.warning("what was stored is not told yet: %s", error)
