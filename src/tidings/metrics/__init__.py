"""What a process counts, for Prometheus; of all worker processes, whichever is asked.

A labelled prometheus counter costs 4 us, a tenth of a hot poll. So everything is counted in plain dictionaries, by
the thread of the event loop, and `flush` folds it into the registry: at each scrape, and once a second where other
processes may be scraped instead.
"""

import logging
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from tidings.log import tell
from tidings.metrics.tally import SECONDS, SIZES, FoldedHistogram, Tally

log = logging.getLogger("tidings.calls")

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST.encode()
POLLS = "/v1/messages/{userId}"
METHODS = frozenset(("GET", "HEAD", "POST"))

GENERATIONS = 3  # of the garbage collector

GAUGES = {
    "tidings_tail_messages": "Messages in the tail.",
    "tidings_tail_bytes": "Bytes of memory that the tail's messages take, estimated.",
    "tidings_directory_users": "Users in the directory.",
    "tidings_directory_heads": "Mailbox heads in the directory.",
    "tidings_waits": "Long-polls and streams held now.",
    "tidings_streams": "Of these, streams.",
    "tidings_writes_waiting": "Writes that wait for the store now.",
}


@dataclass(slots=True)
class Counts:
    """What was counted since the last flush."""

    no_news: Tally = field(default_factory=lambda: Tally([0] * (len(SECONDS) + 1)))
    requests: dict[tuple[str, str, str], int] = field(default_factory=dict)
    seconds: dict[str, Tally] = field(default_factory=dict)
    polls: dict[tuple[str, str], int] = field(default_factory=dict)
    store: dict[str, int] = field(default_factory=dict)
    checks: int = 0
    batches: Tally = field(default_factory=lambda: Tally([0] * (len(SIZES) + 1)))
    pauses: list[Tally] = field(default_factory=lambda: [Tally([0] * (len(SECONDS) + 1)) for _ in range(GENERATIONS)])


class Metrics:
    """One process's counts. `multiprocess_dir` is where workers leave theirs, None for a process alone.

    With a directory, PROMETHEUS_MULTIPROC_DIR must have named it before prometheus_client was imported.
    Calls that take over `slow_s` seconds are logged.
    """

    def __init__(self, multiprocess_dir: str | None = None, slow_s: float = math.inf) -> None:
        # They are a second series for each one, which nobody reads.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._multiprocess_dir = multiprocess_dir
        self._slow_s = slow_s
        self._now = Counts()
        self._observed: list[Callable[[], Mapping[str, float]]] = []
        self.registry = made = CollectorRegistry()
        self._requests = Counter("tidings_requests", "Calls.", ["route", "method", "status"], registry=made)
        self._seconds = FoldedHistogram(
            "tidings_request_seconds",
            "From a call to its answer's last byte.",
            ["route"],
            buckets=SECONDS,
            registry=made,
        )
        self._polls = Counter("tidings_polls", "Polls: from memory (hot) or not, why.", ["kind", "why"], registry=made)
        self._store_calls = Counter("tidings_store_calls", "Calls to the store.", ["call"], registry=made)
        self._checks = Counter("tidings_freshness_checks", "Looks whether other processes committed.", registry=made)
        self._batches = FoldedHistogram(
            "tidings_commit_batch_size", "Writes in a commit.", buckets=SIZES, registry=made
        )
        pauses = FoldedHistogram(
            "tidings_gc_pause_seconds",
            "Pauses of the garbage collector, by the generation it looked through.",
            ["generation"],
            buckets=SECONDS,
            registry=made,
        )
        self._pauses = [pauses.labels(str(generation)) for generation in range(GENERATIONS)]
        self._no_news_calls = self._requests.labels(POLLS, "GET", "200")
        self._no_news_polls = self._polls.labels("hot", "no_news")
        self._no_news_seconds = self._seconds.labels(POLLS)
        self._gauges = {
            name: Gauge(name, text, multiprocess_mode="livesum", registry=made) for name, text in GAUGES.items()
        }

    def answered(self, route: str, method: str, status: str, seconds: float, waited_s: float = 0.0) -> None:
        """Count a call by its route's template (never its path), method and status; a method not ours is `other`.

        One that took long, beyond the `waited_s` that it was asked to wait for news, is logged as well.
        """
        counted = (route, method if method in METHODS else "other", status)
        requests = self._now.requests
        requests[counted] = requests.get(counted, 0) + 1
        tally = self._now.seconds.get(route)
        if tally is None:
            tally = self._now.seconds[route] = Tally([0] * (len(SECONDS) + 1))
        tally.buckets[bisect_left(SECONDS, seconds)] += 1
        tally.total += seconds
        if seconds - waited_s > self._slow_s:
            text = "slow: %(method)s %(route)s took %(seconds).3f s (%(status)s)"
            shown = {"route": route, "method": counted[1], "status": status, "seconds": round(seconds, 3)}
            tell(log, logging.WARNING, "slow_call", text, **shown, asked_to_wait_s=waited_s)

    def no_news(self, seconds: float) -> None:
        """Count a hot poll without news that was answered before routing: the call, its time, and the poll."""
        tally = self._now.no_news
        tally.buckets[bisect_left(SECONDS, seconds)] += 1
        tally.total += seconds

    def hot(self, why: str) -> None:
        """Count a poll that memory answered: `no_news`, `tail`."""
        self._poll(("hot", why))

    def cold(self, why: str) -> None:
        """Count a poll that asked the store, by what it had to ask for: `user`, `head`, `messages`, ..."""
        self._poll(("cold", why))

    def _poll(self, counted: tuple[str, str]) -> None:
        polls = self._now.polls
        polls[counted] = polls.get(counted, 0) + 1

    def store_call(self, name: str) -> None:
        """Count a call to the store."""
        calls = self._now.store
        calls[name] = calls.get(name, 0) + 1

    def freshness_check(self) -> None:
        """Count a look at whether another process committed."""
        self._now.checks += 1

    def batch(self, size: int) -> None:
        """Count a commit of so many writes."""
        tally = self._now.batches
        tally.buckets[bisect_left(SIZES, size)] += 1
        tally.total += size

    def pause(self, generation: int, seconds: float) -> None:
        """Count a pause of the garbage collector; called in whatever thread it came over."""
        tally = self._now.pauses[generation]
        tally.buckets[bisect_left(SECONDS, seconds)] += 1
        tally.total += seconds

    def observe_with(self, gauges: Callable[[], Mapping[str, float]]) -> None:
        """Ask `gauges` for values, by the names of GAUGES, at each flush."""
        self._observed.append(gauges)

    def flush(self) -> None:
        """Fold what was counted into the registry."""
        now, self._now = self._now, Counts()
        hot = sum(now.no_news.buckets)
        self._no_news_calls.inc(hot)
        self._no_news_polls.inc(hot)
        self._no_news_seconds.fold(now.no_news)
        for counted, count in now.requests.items():
            self._requests.labels(*counted).inc(count)
        for route, tally in now.seconds.items():
            self._seconds.labels(route).fold(tally)
        for counted_poll, count in now.polls.items():
            self._polls.labels(*counted_poll).inc(count)
        for name, count in now.store.items():
            self._store_calls.labels(name).inc(count)
        self._checks.inc(now.checks)
        self._batches.fold(now.batches)
        for histogram, pauses in zip(self._pauses, now.pauses, strict=True):
            histogram.fold(pauses)
        for gauges in self._observed:
            for name, value in gauges().items():
                self._gauges[name].set(value)

    def scrape(self) -> bytes:
        """Everything in Prometheus' text format, of all workers."""
        self.flush()
        registry = self.registry
        if self._multiprocess_dir is not None:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, self._multiprocess_dir)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def forget_worker(multiprocess_dir: str, pid: int) -> None:
    """Drop the gauges of a worker that ended; its counts stay, so that no total goes back."""
    mark_process_dead(pid, multiprocess_dir)  # type: ignore[no-untyped-call]
