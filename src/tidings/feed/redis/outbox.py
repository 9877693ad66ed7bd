"""What a node has to tell the feed: news that waits to be taken and read back, and stamps to be opened and closed."""

import asyncio
from collections import deque
from collections.abc import Sequence

import msgspec

from tidings.feed import no_feed
from tidings.feed.redis.bounds import Bounds
from tidings.feed.redis.wire import Offer, Stamped, Told, pack_changes, stamped
from tidings.model import Batch, Posted


class Held(msgspec.Struct, eq=False):
    """A batch on its way; `done` when this node's listener has applied it."""

    batch: Batch
    number: int
    packed: bytes
    posted: Sequence[Stamped]
    count: int
    done: "asyncio.Future[None]"
    position: int = 0  # of its last change, once it was taken


class Load(msgspec.Struct):
    """The part of a turn that comes from here."""

    batches: list[Held]
    opens: list[tuple[str, "asyncio.Future[int]"]]
    drops: list[str]

    def offers(self) -> list[Offer]:
        """The batches as the script is offered them."""
        return [Offer(held.number, held.count, held.posted) for held in self.batches]


class Outbox:
    """Batches keep their numbers and order until they were taken, however often they are offered."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._numbers = 0
        self._waiting: deque[Held] = deque()
        self._taken: deque[Held] = deque()  # and not read back
        self._by_batch: dict[int | str, Held] = {}  # by identity: those who share a commit share its telling
        self._bytes = 0
        self._has_lost = False
        self._opens: deque[tuple[str, asyncio.Future[int]]] = deque()
        self._drops: deque[str] = deque(maxlen=bounds.opens_max)  # those that fall out expire

    @property
    def has_more(self) -> bool:
        """Whether there are batches that the last turn did not take."""
        return bool(self._waiting) or self._has_lost

    @property
    def held(self) -> int:
        """How many batches were not read back yet."""
        return len(self._by_batch)

    def put(self, batch: Batch) -> "asyncio.Future[None]":
        """Tell this batch, now or as soon as it can be done. Raises FeedUnavailable if no more can be held.

        Then the news is lost: what every node remembers will be forgotten instead. A message that is held is told once,
        however often it is put: by who repeats a send while the feed is away.
        """
        held = self._by_batch.get(_key(batch))
        if held is None:
            packed = pack_changes(batch)
            if len(self._by_batch) >= self._bounds.held_max or self._bytes + len(packed) > self._bounds.held_bytes_max:
                self._has_lost = True
                raise no_feed()
            held = self._add(batch, packed, len(batch.changes))
        return held.done

    def open(self, name: str) -> "asyncio.Future[int]":
        """Have a stamp opened. Raises FeedUnavailable if too many wait for one."""
        if len(self._opens) >= self._bounds.opens_max:
            raise no_feed()
        opening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._opens.append((name, opening))
        return opening

    def drop(self, name: str) -> None:
        """Have a stamp closed without news."""
        self._drops.append(name)

    def load(self) -> Load:
        """What the next turn is to bring. It must be given to `settle` or `unload`."""
        if self._has_lost and not self._waiting:
            self._has_lost = False
            self._add(Batch(0, 0, ()), b"", 1)
        batches: list[Held] = []
        size = 0
        for held in self._waiting:
            size += len(held.packed)
            if batches and (len(batches) == self._bounds.turn_max or size > self._bounds.turn_bytes_max):
                break
            batches.append(held)
        opens: list[tuple[str, asyncio.Future[int]]] = []
        for name, opening in self._opens:
            if opening.done():
                self.drop(name)  # who asked has gone, and an earlier turn may have opened it
            else:
                opens.append((name, opening))
        self._opens.clear()
        drops = list(self._drops)
        self._drops.clear()
        return Load(batches, opens, drops)

    def settle(self, load: Load, told: Told) -> None:
        """The turn was done."""
        for held, position in zip(load.batches, told.positions, strict=True):
            self._waiting.popleft()
            held.position = position
            self._taken.append(held)
        for (name, opening), stamp in zip(load.opens, told.stamps, strict=True):
            if not stamp:
                self._opens.append((name, opening))  # until the floor is raised, or its caller gives up
            elif opening.done():
                self.drop(name)  # who asked has gone
            else:
                opening.set_result(stamp)

    def unload(self, load: Load) -> None:
        """It is unknown whether the turn was done: it is asked again, which changes nothing that was done."""
        self._drops.extend(load.drops)
        self._opens.extendleft(reversed(load.opens))

    def applied(self, position: int) -> None:
        """The listener has applied the feed up to here."""
        while self._taken and self._taken[0].position <= position:
            held = self._taken.popleft()
            del self._by_batch[_key(held.batch)]
            self._bytes -= len(held.packed)
            if not held.done.done():
                held.done.set_result(None)

    def begin_anew(self) -> None:
        """The feed is another one: what it took was not read back, and may have been lost with it."""
        self._waiting.extendleft(reversed(self._taken))
        self._taken.clear()

    async def drain(self, within_s: float) -> None:
        """Wait until all that waits now was told, but not longer than that."""
        waiting = [held.done for held in self._by_batch.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=within_s)

    def _add(self, batch: Batch, packed: bytes, count: int) -> Held:
        self._numbers += 1
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        held = Held(batch, self._numbers, packed, stamped(batch), count, done)
        self._by_batch[_key(batch)] = held
        self._bytes += len(packed)
        self._waiting.append(held)
        return held


def _key(batch: Batch) -> int | str:
    """What a batch is known by: a message alone by its id, since nothing about it ever changes."""
    if len(batch.changes) == 1 and isinstance(posted := batch.changes[0], Posted):
        return posted.message.message_id
    return id(batch)
