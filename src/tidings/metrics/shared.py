"""What a node of many counts besides: its calls to the tables, and its part in the feed.

Each takes a millisecond, so the library's own counters, at 4 us, are quick enough.
"""

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from tidings.metrics import Metrics
from tidings.metrics.tally import SECONDS


class SharedMetrics:
    """The meter of a store on DynamoDB, and of a feed on Redis."""

    def __init__(self, metrics: Metrics) -> None:
        made = metrics.registry
        self.store_call = metrics.store_call
        self.batch = metrics.batch
        self._capacity = Counter(
            "tidings_store_capacity_units", "Capacity units that DynamoDB counted.", ["kind"], registry=made
        )
        self._operations = Counter(
            "tidings_store_operations",
            "Calls to DynamoDB, each try of one: for a request, or the node's own.",
            ["operation", "why"],
            registry=made,
        )
        self._retries = Counter("tidings_store_retries", "Repeats among them, by why.", ["why"], registry=made)
        self._conflicts = Counter(
            "tidings_store_conflicts", "Puts that found another node's message in their place.", registry=made
        )
        self._lags = Histogram(
            "tidings_feed_lag_seconds",
            "From asking the feed to take something until it was read back.",
            buckets=SECONDS,
            registry=made,
        )
        self._turns = Counter(
            "tidings_feed_turns",
            "What was asked of the feed, by why.",
            ["why"],
            registry=made,
        )
        self._resets = Counter(
            "tidings_feed_resets", "Times that what is remembered was forgotten, by why.", ["why"], registry=made
        )
        self._lost = Counter("tidings_feed_lost", "Links to the feed that broke.", registry=made)
        self._anew = Counter(
            "tidings_stamps_anew", "Messages told under a later timestamp than they are stored with.", registry=made
        )
        self._settling = Counter(
            "tidings_settling_waits", "Readers by timestamp who waited for messages on their way.", registry=made
        )
        self._age = Gauge(
            "tidings_feed_proof_age_seconds",
            "How old the proof is that nothing told was missed; over 1, polls are cold.",
            registry=made,
        )
        self._position = Gauge("tidings_feed_position", "The last change that this node has applied.", registry=made)
        self._held = Gauge("tidings_feed_held", "Commits of this node that the feed may not have taken.", registry=made)

    def watch(self, age_s: Callable[[], float], position: Callable[[], int], held: Callable[[], int]) -> None:
        """Show these at each scrape: the age of the proof of freshness, the position, what is held."""
        self._age.set_function(age_s)
        self._position.set_function(position)
        self._held.set_function(held)

    def capacity(self, kind: str, units: float) -> None:
        """Count what a call took: capacity units of `kind`, read or write."""
        self._capacity.labels(kind).inc(units)

    def operation(self, name: str, is_own: bool) -> None:
        """Count a call, each try of it; `is_own`: no request is behind it."""
        self._operations.labels(name, "own" if is_own else "request").inc()

    def retry(self, why: str) -> None:
        """Count that a call will be tried again: it was `busy`, or its answer was `lost`."""
        self._retries.labels(why).inc()

    def conflict(self) -> None:
        """Count a put that found another node's message in its place."""
        self._conflicts.inc()

    def feed_lag(self, seconds: float) -> None:
        """Count how long it took from asking the feed to take something until it was read back."""
        self._lags.observe(seconds)

    def feed_turn(self, why: str) -> None:
        """Count something asked of the feed: `request`, `proof`, `beat`, `link`."""
        self._turns.labels(why).inc()

    def feed_reset(self, why: str) -> None:
        """Count that the listener began anew: `start`, `identity`, `gap`, `lost`, `fault`."""
        self._resets.labels(why).inc()

    def feed_lost(self) -> None:
        """Count a link that broke."""
        self._lost.inc()

    def stamps_anew(self, count: int) -> None:
        """Count messages that are told under a later timestamp than they are stored with."""
        self._anew.inc(count)

    def settling_wait(self) -> None:
        """Count a reader by timestamp who waits for messages on their way."""
        self._settling.inc()
