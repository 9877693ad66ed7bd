"""What a feed tells: how soon another node knows, how many changes one applies, and in a directory that is full."""

import http.client
import time
from collections.abc import Mapping
from contextlib import suppress
from statistics import median

from bench.crowd import GROUPS_EACH, Fill, Look
from bench.fellows import Crowd, Insider
from bench.findings import Finding
from bench.insider import Hear, Join, Listen, Tell
from bench.processes import Failed, Server
from bench.scenes.memory import PAUSE_BUDGET_MS
from bench.seed import user_id
from bench.stage import Stage
from bench.world import Wire, make_users, poll_all_of

PER_S = 1_000.0
LAG_MS = 20.0
APPLIED = 50_000.0
LATE = 1.2  # times as long as it should take: then it was another pace
RECEIVERS = 500  # of what is told at a pace: nobody is sent two messages within a millisecond
CAUGHT_UP_S = 30.0
LOOK_S = 0.002


def feed_lag(stage: Stage) -> list[Finding]:
    """Stamped messages at a steady pace, from one node to another: from telling it until the other's tail has it."""
    shared = stage.backends()
    users = [user_id(n) for n in range(RECEIVERS)]
    with Insider(None) as mouth, Insider(None) as ear:
        for one in (mouth, ear):
            one.play(Join(shared.store, shared.feed))
        ear.play(Listen(users))
        count = round(PER_S * max(0.8, 2 * stage.pace.seconds))
        p50, p99, slowest, whole = [], [], [], []
        stage.talk.expect(stage.pace.live_rounds)
        for number in range(stage.pace.live_rounds + 1):
            done = mouth.play(Tell(users, count, PER_S, first=number * count))
            heard = ear.play(Hear(count)).heard
            late = sorted(1e3 * (at - due) for at, due in zip(heard, done.due, strict=True))
            lags = sorted(1e3 * (at - told) for at, told in zip(heard, done.told, strict=True))
            if done.seconds > LATE * count / PER_S:
                stage.talk.say(f"warning: {count} changes took {done.seconds:.1f} s to tell; counted from when due")
                lags = late
            if not number:
                continue  # to warm up
            p50.append(lags[len(lags) // 2])
            p99.append(lags[len(lags) * 99 // 100])
            slowest.append(lags[-1])
            whole.append(late[len(late) * 99 // 100])
            stage.talk.step(f"{count} changes at {PER_S:,.0f}/s: p50 {p50[-1]:.2f} ms, p99 {p99[-1]:.2f}")
    beside = (
        f"p50 {median(p50):.1f} ms, slowest {max(slowest):.0f} ms;"
        f" p99 from when its stamp was due {median(whole):.1f} ms"
    )
    name = f"feed lag at {PER_S:,.0f} changes/s, p99"
    return [Finding("nodes-lag", name, median(p99), "ms", p99, at_most=LAG_MS, beside=beside)]


def applied_changes(stage: Stage) -> list[Finding]:
    """A node stands still while others tell as much as the feed takes; then it applies all of that before it is ready.

    Its directory knows all receivers, and the heads of their mailboxes and copies.
    """
    shared = stage.backends()
    count, rates, by_clock, told_s = stage.pace.told, [], [], []
    with stage.node() as node, Insider(stage.cores.load) as mouth:
        mouth.play(Join(shared.store, shared.feed))
        users = make_users(node.url, 256 if stage.pace.name == "full" else 64)
        poll_all_of(node.url, users)
        wire = Wire(node.port)
        stage.talk.expect(stage.pace.live_rounds)
        for number in range(stage.pace.live_rounds):
            before = wire.counts()
            with node.standing_still():
                told_s.append(mouth.play(Tell(users, count, first=number * count)).seconds)
                time.sleep(max(0.0, 1.2 - told_s[-1]))  # until the node must know that it may have missed something
                cpu_s = node.cpu_s
                began = time.perf_counter()
            _wait_until_ready(node)
            by_clock.append(count / (time.perf_counter() - began))
            rates.append(count / (node.cpu_s - cpu_s))
            check_applied(before, wire.counts(), count)
            stage.talk.step(
                f"{count:,} changes, {rates[-1]:,.0f} for a second of CPU, {by_clock[-1]:,.0f}/s by the clock"
            )
    beside = f"{median(by_clock):,.0f}/s by the clock; {count:,} at a time, told at {count / median(told_s):,.0f}/s"
    name = "changes that a node applies for a second of CPU"
    return [Finding("nodes-apply", name, median(rates), "/s", rates, at_least=APPLIED, beside=beside)]


def _wait_until_ready(node: Server) -> None:
    """Until it has read back what it told after it went on, so everything before as well. Raises Failed."""
    deadline = time.monotonic() + CAUGHT_UP_S
    while time.monotonic() < deadline:
        with suppress(Failed, OSError, http.client.HTTPException):
            Wire(node.port).get("/readyz")
            return
        time.sleep(LOOK_S)
    raise Failed("a node that stood still is not ready again")


def check_applied(before: Mapping[str, float], now: Mapping[str, float], count: int) -> None:
    """All of it was applied, and none skipped, as /metrics counted before and now. Raises Failed."""
    gained = {name: now[name] - before.get(name, 0.0) for name in now}
    if gained["tidings_feed_position"] != count or gained["tidings_feed_resets_total"]:
        raise Failed(f"{count} changes were told, and the node is {gained['tidings_feed_position']:.0f} further on")


def full_directory(stage: Stage) -> list[Finding]:
    """Many users in two groups each, loaded one by one; then changes at a steady pace, and a whole collection."""
    shared = stage.backends()
    users = stage.pace.crowd
    told = [user_id(n) for n in range(RECEIVERS)]
    with Crowd(stage.cores.server) as crowd, Insider(stage.cores.load) as mouth:
        mouth.play(Join(shared.store, shared.feed))
        stage.talk.expect(2)
        filled = crowd.answer(Fill(shared.store, shared.feed, users))
        if filled.users != users:
            raise Failed(f"{users} users were loaded, and {filled.users} are in the directory")
        stage.talk.step(f"{users:,} users loaded, {users / filled.seconds:,.0f}/s")
        loading = crowd.answer(Look())
        count = round(PER_S * max(0.8, 5 * stage.pace.seconds))
        mouth.play(Tell(told, count, PER_S))
        listening = crowd.answer(Look())
        if listening.moved != count:
            raise Failed(f"{count} changes were told, and heads moved on by {listening.moved}")
        stage.talk.step(f"{count:,} changes told to it at {PER_S:,.0f}/s")
    looks = (loading, listening)
    longest = max(*(look.longest_ms for look in looks), *(look.whole_ms for look in looks))
    pauses = sum(look.pauses + 1 for look in looks)
    stated = f"{filled.size / 1e6:.0f} MB, each in {GROUPS_EACH} groups; loaded at {users / filled.seconds:,.0f}/s"
    beside = (
        f"longest of {pauses:,}; a collection of everything {max(look.whole_ms for look in looks):.1f} ms;"
        f" the loop was {listening.stall_ms:.1f} ms late at the most under {PER_S:,.0f} changes/s"
    )
    return [
        Finding(
            "nodes-memory", f"a user in a node's directory, of {users:,}", filled.size / users, "bytes", beside=stated
        ),
        Finding(
            "nodes-memory",
            f"longest pause of a node with {users:,} users",
            longest,
            "ms",
            at_most=PAUSE_BUDGET_MS,
            beside=beside,
        ),
    ]
