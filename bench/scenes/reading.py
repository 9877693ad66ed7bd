"""A long mailbox, read whole: how fast it comes out of the store, and what memory that takes."""

import subprocess
import sys
from statistics import median

import msgspec

from bench.findings import Finding
from bench.processes import Failed, Server, pinned
from bench.reader import Whole
from bench.seed import Story, user_id
from bench.stage import Stage
from bench.world import Wire

RATE_BUDGET = 100_000.0
MEMORY_BUDGET_MB = 50.0
ROUNDS = 3


def long_mailbox(stage: Stage) -> list[Finding]:
    """One user's mailbox with many messages, asked for without a limit; every seq is looked at."""
    story = Story(users=2, messages=stage.pace.stored, mailboxes=1)
    reader, rounds = user_id(0), []
    with stage.tidings(stage.store(story)) as server:
        Wire(server.port).get(f"/v1/messages/{user_id(1)}")
        server.forget_peak()
        before = server.memory("VmRSS")
        stage.talk.expect(ROUNDS)
        for _ in range(ROUNDS):
            whole = _read(stage, server, f"/v1/messages/{reader}", story.messages)
            rounds.append(story.messages / whole.seconds)
            stage.talk.step(f"{rounds[-1]:,.0f} messages/s")
        extra = server.memory("VmHWM") - before
    count = f"{story.messages:,}"
    rate = Finding(
        "cold",
        f"cold read of {count} messages",
        median(rounds),
        "/s",
        rounds,
        at_least=RATE_BUDGET,
        beside=f"{whole.size / story.messages:.0f} bytes each",
    )
    beside = f"highest of {ROUNDS} reads; {before / 1e6:.0f} MB before"
    memory = Finding(
        "cold", f"extra memory for it, {count}", extra / 1e6, "MB", at_most=MEMORY_BUDGET_MB, beside=beside
    )
    return [rate, memory]


def _read(stage: Stage, server: Server, path: str, messages: int) -> Whole:
    """Raises Failed unless all came, in order."""
    with pinned(stage.cores.load):
        command = [sys.executable, "-m", "bench.reader", str(server.port), path]
        done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise Failed(done.stderr.decode().strip()[-300:])
    whole = msgspec.json.decode(done.stdout, type=Whole)
    if whole.messages != messages:
        raise Failed(f"{messages} messages are stored, and {whole.messages} were read")
    return whole
