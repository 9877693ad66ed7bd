"""A server that nobody asks: how soon it is ready with many messages stored, and what it costs to keep it."""

import time
from contextlib import ExitStack
from statistics import median

from bench.findings import Finding
from bench.scenes.polls import READERS, SMALL, large
from bench.stage import Stage
from bench.world import Wire, poll_once

READY_BUDGET_S = 1.0
IDLE_BUDGET = 0.5  # percent of a core


def starts(stage: Stage) -> list[Finding]:
    """From the command to the first answer, with messages as recent as a tail takes in at its start.

    Two workers may use two cores, as they would.
    """
    story = large(stage)
    data = stage.store(story)
    found = []
    stage.talk.expect(2 * stage.pace.starts)
    for workers in (1, 2):
        rounds = []
        for _ in range(stage.pace.starts):
            began = time.perf_counter()
            serving = stage.tidings if workers == 1 else stage.tidings_anywhere
            with serving(data, "--workers", str(workers)) as server:
                Wire(server.port).get("/readyz")
                rounds.append(time.perf_counter() - began)
            stage.talk.step(f"ready in {rounds[-1]:.2f} s with --workers {workers}")
        name = f"ready with {story.messages:,} messages stored, {_workers(workers)}"
        beside = f"slowest of {len(rounds)}: {max(rounds):.2f} s"
        found.append(Finding("start", name, median(rounds), "s", rounds, at_most=READY_BUDGET_S, beside=beside))
    return found


def idle(stage: Stage) -> list[Finding]:
    """One worker and two, all their processes together, after some polls, each on a store of its own."""
    story = large(stage)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(stage.tidings(stage.store(told), "--workers", str(workers)))
            for workers, told in ((1, story), (2, SMALL))
        ]
        for server in servers:
            poll_once(server.url, READERS)
        time.sleep(1.0)  # what came of that is over
        stage.talk.expect(1)
        began, before = time.perf_counter(), [server.cpu_s for server in servers]
        time.sleep(stage.pace.idle_s)
        seconds = time.perf_counter() - began
        spent = [server.cpu_s - then for server, then in zip(servers, before, strict=True)]
    stage.talk.step(f"{seconds:.0f} s of nothing")
    return [
        Finding(
            "idle",
            f"idle, {_workers(workers)}: of a core",
            100 * cpu / seconds,
            "%",
            at_most=IDLE_BUDGET,
            beside=f"{1000 * cpu:.1f} ms CPU in {seconds:.0f} s",
        )
        for workers, cpu in zip((1, 2), spent, strict=True)
    ]


def _workers(count: int) -> str:
    return "one worker" if count == 1 else "two workers"
