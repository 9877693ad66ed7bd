"""What is measured: the hot poll and the durable send."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.bare import FILLER
from bench.contest import Contest, Side, Watch, alternate
from bench.load import Request
from bench.processes import Cores, Failed, Server, bare, tidings
from bench.world import Client, Writers, polls

POLL_BUDGET = 0.75
SEND_BUDGET = 0.4
SEND_P99_MS = 50.0


@dataclass(frozen=True)
class Pace:
    """How long a bench takes: rounds, and the seconds measured and warmed up in each."""

    rounds: int
    seconds: float
    warm_s: float

    def run(self, sides: list[Side], cores: Cores) -> None:
        """All sides in turn."""
        alternate(sides, cores, self.rounds, self.seconds, self.warm_s)


class OnlyHot(Watch):
    """Sees to it that memory answered every poll of a round, by what /metrics counted."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._before = client.counts()
        self.polls = 0

    def begin(self) -> None:
        """Note the counts."""
        self._before = self._client.counts()

    def end(self, answers: int) -> None:
        """Compare with the counts of now. Raises Failed."""
        gained = {name: value - self._before.get(name, 0.0) for name, value in self._client.counts().items()}
        asked = gained["tidings_store_calls_total"]
        if asked or gained["tidings_polls_total"] != answers or gained["hot"] != answers:
            raise Failed(f"{answers} hot polls: {asked:.0f} calls to the store, {gained['hot']:.0f} counted as hot")
        self.polls += answers


class Accepted(Watch):
    """Counts the sends that were answered 200."""

    def __init__(self, writers: Writers) -> None:
        self._writers = writers

    def end(self, answers: int) -> None:
        """Add a round's."""
        self._writers.accepted += answers


def hot_polls(data: Path, cores: Cores, pace: Pace) -> list[Contest]:
    """32 readers in two groups each ask, and nothing is new. Raises Failed if the store was asked, too."""
    with ExitStack() as stack:
        server = stack.enter_context(tidings(cores.server, data))
        client = Client(server.port)
        contests, watch = [], OnlyHot(client)
        for how, requests in zip(("cursor", "timestamp"), polls(client), strict=True):
            size = len(requests[0].expects)
            other = Side(
                f"bare GET, {size} bytes",
                stack.enter_context(bare(cores.server, "get", size)),
                [Request(request.head, FILLER.decode() * size) for request in requests],
            )
            ours = Side(f"hot poll by {how}", server, requests, watch)
            contests.append(Contest(ours.name, other, ours, POLL_BUDGET))
        pace.run([side for contest in contests for side in (contest.bare, contest.ours)], cores)
        print(f"checked: {watch.polls:,} hot polls, no call to the store (/metrics)\n")
    return contests


def durable_sends(data: Path, cores: Cores, pace: Pace) -> list[Contest]:
    """64 senders keep one send of 50 bytes each in flight, to receivers of their own, with sent copies."""
    with ExitStack() as stack:
        ways = []
        for name, flags in (("one process", ()), ("two processes", ("--workers", "2"))):
            server = stack.enter_context(tidings(cores.server, data / name.replace(" ", "-"), *flags))
            ways.append((name, server, Writers(Client(server.port))))
        size = ways[0][2].answer_size
        other = Side(
            f"bare POST, {size} bytes",
            stack.enter_context(bare(cores.server, "post", size)),
            [Request(request.head, FILLER.decode() * size) for request in ways[0][2].requests(keyed=False)],
        )
        contests = [
            _send(f"durable send, {name}", other, server, writers, keyed=keyed)
            for name, server, writers in ways
            for keyed in (False, True)
        ]
        pace.run([other, *(contest.ours for contest in contests)], cores)
        for name, _, writers in ways:
            print(f"checked: {writers.check():,} messages answered 200 by {name}, and read back without a hole")
    return contests


def _send(name: str, other: Side, server: Server, writers: Writers, *, keyed: bool) -> Contest:
    """With a key it is only stated."""
    ours = Side(name + (", with key" if keyed else ""), server, writers.requests(keyed=keyed), Accepted(writers))
    return Contest(ours.name, other, ours, None if keyed else SEND_BUDGET, None if keyed else SEND_P99_MS)
