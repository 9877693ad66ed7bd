"""What is measured, scene by scene; each has its budgets from the design, and fails at a wrong answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.findings import Finding
from bench.scenes.live import live_delivery
from bench.scenes.memory import users_in_memory
from bench.scenes.polls import flat, hot_polls, old_polls, two_workers
from bench.scenes.reading import long_mailbox
from bench.scenes.rest import idle, starts
from bench.scenes.sends import durable_sends
from bench.stage import Stage


@dataclass(frozen=True)
class Scene:
    """A scene's title, and how it is played."""

    title: str
    play: Callable[[Stage], Sequence[Finding]]


SCENES = {
    "poll": Scene("polls without news, beside a bare app and Go", hot_polls),
    "old": Scene("polls with cursors and timestamps of last week", old_polls),
    "flat": Scene("what a poll costs with many messages stored, and with many groups", flat),
    "send": Scene("durable sends, beside a bare POST", durable_sends),
    "workers": Scene("two workers: what a poll costs, and who gets it", two_workers),
    "cold": Scene("a long mailbox, read whole from the store", long_mailbox),
    "start": Scene("ready with many messages stored", starts),
    "idle": Scene("what doing nothing costs", idle),
    "live": Scene("open streams: from send to receipt, deliveries, and what idle ones take", live_delivery),
    "memory": Scene("many users polled once: memory, garbage collection", users_in_memory),
}
