"""What is read of the stream, given to the listener: in one order, without a gap, or it is told to begin anew."""

import logging
from collections.abc import Callable, Sequence

import msgspec

from tidings.feed import Listener
from tidings.feed.redis.wire import Entry, Place, unpack_changes
from tidings.model import Batch, Change

log = logging.getLogger("tidings.feed")


class Following:
    """One listener's place in the feed with this id."""

    def __init__(self, listener: Listener, on_reset: Callable[[str], None]) -> None:
        self._listener = listener
        self._on_reset = on_reset
        self.place = Place(0, 0)

    def begin_at(self, place: Place, latest: int, why: str) -> None:
        """The listener forgets everything: the news begins anew after this place, `latest` being the feed's time."""
        self.place = place
        self._on_reset(why)
        self._listener.reset(place.number, latest)

    def take(self, entries: Sequence[Entry]) -> None:
        """Entries as they come, all of this feed: their changes in one batch, whole."""
        changes: list[Change] = []
        for entry in entries:
            after = entry.place.number - entry.header.count
            if after != self.place.number + len(changes):
                changes = []
                self.begin_at(Place(after, 0), entry.header.clock, "gap")  # the stream was trimmed before it was read
            try:
                changes += unpack_changes(entry) if entry.header.count else ()
            except (msgspec.MsgspecError, ValueError):
                changes = []
                if entry.packed:
                    log.exception("news that can't be read; beginning anew")
                self.begin_at(Place(entry.place.number, 0), entry.header.clock, "lost")
        if entries:
            after, self.place = self.place.number, entries[-1].place
            if changes:
                self._give(Batch(after, self.place.number, changes), entries[-1].header.clock)

    def _give(self, batch: Batch, latest: int) -> None:
        try:
            self._listener.apply(batch)
        except Exception:  # a fault of ours: rather forget everything than go on with a part
            log.exception("the news could not be taken; beginning anew")
            self.begin_at(self.place, latest, "fault")
