"""What is measured, scene by scene; each has its budgets from the design, and fails at a wrong answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.findings import Finding
from bench.scenes.live import live_delivery
from bench.scenes.memory import users_in_memory
from bench.scenes.news import applied_changes, feed_lag, full_directory
from bench.scenes.nodes import busy_mailbox, hot_polls_of_a_node, sends_beside_calls
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
    "nodes-poll": Scene("a node's polls without news, beside a server on SQLite", hot_polls_of_a_node),
    "nodes-send": Scene("a node's sends, beside their calls to the tables", sends_beside_calls),
    "nodes-lag": Scene("how soon another node knows", feed_lag),
    "nodes-apply": Scene("how many changes a node applies", applied_changes),
    "nodes-append": Scene("one mailbox, written to by two nodes", busy_mailbox),
    "nodes-memory": Scene("a node's directory, full", full_directory),
}
