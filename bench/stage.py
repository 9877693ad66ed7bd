"""What every scene is given: two cores, a load, room for data, stores made once a run, and how long to measure."""

import subprocess
import sys
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench.backends import Backends, backends
from bench.load import Measured, Plan, Request
from bench.processes import Cores, Failed, Lacking, Load, Server, bare, pinned, tidings, tidings_on
from bench.seed import Story
from bench.talk import Talk


@dataclass(frozen=True)
class Pace:
    """How thorough a bench is: rounds of each side and their seconds, and the sizes of what is measured but once."""

    name: str
    rounds: int
    seconds: float
    warm_s: float
    stored: int  # messages in a large store, or a long mailbox
    users: int  # polled once
    live_rounds: int  # of each way to send to open streams, each of a second or so
    starts: int
    idle_s: float
    go_build_s: float
    appending_s: float
    calls: int  # one after the other, in a round of sends to a node
    told: int  # changes in a round, as many as a feed takes
    crowd: int  # users in a node's directory


# Many short rounds, because on a shared machine noise comes and goes within seconds.
FULL = Pace("full", 9, 1.0, 0.2, 1_000_000, 200_000, 5, 5, 15.0, 180.0, 3.0, 100, 20_000, 1_000_000)
# Under a minute in all. So many messages are stored that a reader who holds all of them is over the budget.
QUICK = Pace("quick", 3, 0.15, 0.03, 200_000, 5_000, 1, 1, 2.0, 15.0, 0.7, 10, 5_000, 20_000)


@dataclass
class Stage:
    """Where scenes are played."""

    cores: Cores
    pace: Pace
    load: Load
    talk: Talk
    room: Path
    held: ExitStack  # what is kept for later scenes
    dynamodb: str = ""  # the URL of a server; "" for one of our own
    others: list[float] = field(default_factory=list)  # the part of both cores that others took, round by round
    _stores: dict[Story, Path] = field(default_factory=dict)
    _backends: Backends | Lacking | None = None

    def tidings(self, data: Path, *flags: str) -> AbstractContextManager[Server]:
        """A Tidings server with its data in a directory."""
        return tidings(self.cores.server, data, *flags)

    def tidings_anywhere(self, data: Path, *flags: str) -> AbstractContextManager[Server]:
        """The same on any core, for what is not a contest."""
        return tidings(None, data, *flags)

    def backends(self) -> Backends:
        """What nodes share; started once a run. Raises Lacking, at each call, if the machine has no such servers."""
        if self._backends is None:
            try:
                self._backends = self.held.enter_context(
                    backends(self.room / "backends", self.cores.backends, self.dynamodb)
                )
            except Lacking as lacking:
                self._backends = lacking
        if isinstance(self._backends, Lacking):
            raise self._backends
        return self._backends

    def node(self, *flags: str) -> AbstractContextManager[Server]:
        """A node of a cluster, on the server's core. Raises Lacking."""
        shared = self.backends()
        return tidings_on(self.cores.server, shared.store, *shared.flags, *flags)

    def node_anywhere(self, *flags: str) -> AbstractContextManager[Server]:
        """The same on any core. Raises Lacking."""
        shared = self.backends()
        return tidings_on(None, shared.store, *shared.flags, *flags)

    def bare(self, kind: str, size: int) -> AbstractContextManager[Server]:
        """A bare ASGI app that answers so many bytes."""
        return bare(self.cores.server, kind, size)

    def store(self, story: Story) -> Path:
        """A data directory whose store tells a story; made once a run, by a process of its own. Raises Failed."""
        if story not in self._stores:
            data = self.room / f"store-{len(self._stores)}"
            data.mkdir()
            if story.messages > 10_000 or story.users > 10_000:
                self.talk.say(f"storing {story.messages:,} messages and {story.users:,} users")
            with pinned(self.cores.load):
                done = subprocess.run(
                    [sys.executable, "-m", "bench.seed", str(data / "tidings.db")],
                    input=msgspec.json.encode(story),
                    capture_output=True,
                    check=False,
                )
            if done.returncode:
                raise Failed(f"the store could not be made: {done.stderr.decode().strip()[-300:]}")
            self._stores[story] = data
        return self._stores[story]

    def new_room(self, name: str) -> Path:
        """A data directory of its own."""
        return self.room / name

    def measure(self, server: Server, requests: list[Request]) -> Measured:
        """One round of one server. Raises Failed at the first wrong answer."""
        cores = [self.cores.server, self.cores.load]
        plan = Plan(server.port, requests, server.pids, cores, self.pace.seconds, self.pace.warm_s)
        measured = self.load.run(plan)
        self.others.append(measured.others_s / measured.seconds / len(cores))
        return measured

    def ask_all(self, server: Server, requests: list[Request], asks: int, first_number: int | None = None) -> Measured:
        """So many requests, over as many connections as there are `requests`. Raises Failed."""
        cores = [self.cores.server, self.cores.load]
        return self.load.run(Plan(server.port, requests, server.pids, cores, asks=asks, first_number=first_number))
