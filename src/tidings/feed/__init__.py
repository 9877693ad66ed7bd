"""The feed: what changed, told to every node in one order. It is news, not truth: what it forgets, the store has.

Every implementation keeps these promises; `tests/test_feed.py` holds each of them against every one.

- One order: each listener is given every change once, in the order of positions, whole batches at a time. Positions
  are the store's where it keeps its own news; elsewhere the feed numbers what is published.
- No silent gap: if changes may have been missed, `reset` is called instead, and what follows begins there.
- Told before answered: when `publish` returned, this node's listener has applied the batch, and every other node will
  (on one machine: before it answers its next read; elsewhere: before it next is fresh, a second later at the most).
  When it raised, the batch may be told later all the same.
- Freshness is proved: `is_fresh` is true only if this node's listener has applied every change that was acknowledged,
  by whichever node, before the call; on many machines, every change acknowledged a second before it, or by this node.
- Settled: no message that is told from now on has a timestamp that was `settled` by then, whatever clocks do. A feed
  that begins anew may say less than the one before it.
"""

from typing import Protocol

from tidings.errors import FeedUnavailable
from tidings.model import Batch


class Listener(Protocol):
    """Who is told: the directory and the tail. Both methods are synchronous and must not fail."""

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits here to be told; if not, news may come late, but before `is_fresh` says so."""

    def apply(self, batch: Batch) -> None:
        """Take all changes of a batch, whole."""

    def reset(self, position: int, latest: int | None = None) -> None:
        """Forget everything: the news begins anew after `position`.

        No message told up to there has a timestamp later than `latest`; None where timestamps follow positions.
        """


class Feed(Protocol):
    """The news; see the module's words for what every method promises."""

    @property
    def identity(self) -> int:
        """A number that changes whenever positions stop being comparable."""

    @property
    def position(self) -> int:
        """Up to here everything was given to the listener."""

    async def start(self, after: int, listener: Listener) -> None:
        """Reset the listener to `after`, give it everything since, and go on giving it what comes."""

    async def publish(self, batch: Batch) -> None:
        """Tell every node of a commit of ours. Raises Unavailable if the feed does not take it."""

    def tell(self, batch: Batch) -> bool:
        """`publish`, if that can be done on the spot; False if it must be waited for, and nothing was done."""

    def expect_news(self) -> None:
        """Called when `is_awaited` became true, before a look at what is there: what comes after is told at once."""

    def is_fresh(self) -> bool:
        """Whether the listener may be trusted now; microseconds, no waiting."""

    async def catch_up(self) -> None:
        """Make it so. Raises FeedUnavailable if it can't be, so that only the store can be asked; StoreUnavailable."""

    @property
    def is_alone(self) -> bool:
        """Whether no news reaches this node now, so that others should be asked before it."""

    @property
    def settled(self) -> int:
        """A time in Unix ms: no message that is told from now on has it, or an earlier one."""

    async def settle(self, timestamp: int, within_s: float) -> int:
        """Wait until `settled` is `timestamp` at least, but not longer than that; gives what it is then."""

    async def close(self) -> None:
        """Stop telling."""


def no_feed() -> FeedUnavailable:
    """The error of a feed that can't be reached, or does not answer."""
    return FeedUnavailable("feed_unavailable", "This node hears no news from the others.", retry_s=1)
