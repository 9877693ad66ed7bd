"""Polls without news: their price beside a bare app and Go, however much is stored, however old, with two workers."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from statistics import median

from bench import golang
from bench.bare import FILLER
from bench.contest import Side, alternate, by_cost, by_rate, silence
from bench.findings import Finding
from bench.load import Request
from bench.processes import Failed, Server
from bench.scenes.spread import poll_all, spread
from bench.seed import WEEK_MS, Story, user_id
from bench.stage import Stage
from bench.world import Gained, Wire, by_cursor, by_timestamp

POLL_BUDGET = 0.75
FLAT_BUDGET = 1.1  # flat: what is left is the noise of two servers beside each other
GROUP_BUDGET_US = 1.0
WORKERS_BUDGET = 1.15
EVEN_BUDGET = 0.4  # of the connections, for the less used of two

READERS = [user_id(n) for n in range(32)]  # each in two groups
JOINERS = [user_id(n) for n in range(32, 64)]  # each in all of them
FEW_GROUPS, MANY_GROUPS = 2, 250
SMALL = Story(users=64, groups=MANY_GROUPS, groups_each=FEW_GROUPS, joiners=32, messages=1_000)
OLD = Story(users=64, groups=MANY_GROUPS, groups_each=FEW_GROUPS, joiners=32, messages=10_000, ended_ms=WEEK_MS)


def large(stage: Stage) -> Story:
    """The same people, with many messages."""
    return Story(SMALL.users, SMALL.groups, SMALL.groups_each, SMALL.joiners, stage.pace.stored)


def hot_polls(stage: Stage) -> list[Finding]:
    """32 readers in two groups ask by their last cursor, and by their last timestamp."""
    with ExitStack() as stack:
        server = stack.enter_context(stage.tidings(stage.store(SMALL)))
        client = Wire(server.port)
        ours = _ways(server, client, READERS)
        others = [_bare(stage, stack, side) for side in ours]
        gos = _go(stage, stack, ours)
        gained = Gained(client)
        alternate(stage, [side for sides in zip(others, ours, *([gos] if gos else []), strict=True) for side in sides])
        found = [by_rate("poll", mine, other, at_least=POLL_BUDGET) for mine, other in zip(ours, others, strict=True)]
        found += [_beside_go(mine, go) for mine, go in zip(ours, gos, strict=False)]
        counts = gained.after(sum(side.answers for side in ours))
        return [*found, _no_store_calls("poll", "hot polls", counts), silence("poll", "polls", ours)]


def _ways(
    server: Server, client: Wire, readers: Sequence[str], name: str = "hot poll", ended_ms: int = 0
) -> list[Side]:
    """The same readers' polls by cursor and by timestamp."""
    now_ms = time.time_ns() // 1_000_000
    return [
        Side(f"{name} by cursor", server, by_cursor(client, readers)),
        Side(f"{name} by timestamp", server, by_timestamp(client, readers, now_ms - ended_ms)),
    ]


def _filled(side: Side) -> list[Request]:
    """The same requests, answered with as many bytes that mean nothing."""
    return [Request(request.head, FILLER.decode() * len(request.expects)) for request in side.requests]


def _bare(stage: Stage, stack: ExitStack, side: Side) -> Side:
    size = len(side.requests[0].expects)
    server = stack.enter_context(stage.bare("get", size))
    return Side(f"bare GET, {size} bytes", server, _filled(side))


def _go(stage: Stage, stack: ExitStack, sides: Sequence[Side]) -> list[Side]:
    """Go's bare servers of the same answers; none where Go is not, which is said."""
    try:
        program = golang.build(stage.room, stage.pace.go_build_s)
    except Failed as error:
        stage.talk.say(f"without Go's net/http: {error}")
        return []
    gos = []
    for side in sides:
        size = len(side.requests[0].expects)
        server = stack.enter_context(golang.serve(stage.cores.server, program, size))
        gos.append(Side(f"Go net/http, {size} bytes", server, _filled(side)))
    return gos


def _beside_go(ours: Side, go: Side) -> Finding:
    """By CPU time, since the load may be too slow for Go; stated only (the budget of 0.7 is for later)."""
    rounds = [theirs / mine for mine, theirs in zip(ours.costs_us, go.costs_us, strict=True)]
    beside = f"{ours.cpu_us:.1f} us CPU, Go {go.cpu_us:.1f}; Go {go.rate:,.0f}/s" + (
        " (limited by the load)" if go.is_load_bound else ""
    )
    name = f"{ours.name}, of Go's net/http by CPU"
    return Finding("poll", name, median(rounds), "x", rounds, beside=beside, facts={"ours": ours.facts, "go": go.facts})


def _no_store_calls(scene: str, what: str, counts: Mapping[str, float]) -> Finding:
    """What /metrics counted must be polls that memory answered, all of them, and nothing asked of the store."""
    polls, asked = counts["tidings_polls_total"], counts["tidings_store_calls_total"]
    if counts["hot"] != polls and not asked:
        raise Failed(f"of {polls:.0f} polls {counts['hot']:.0f} were hot, but the store was never asked")
    return Finding(scene, f"store calls in {what}", asked, "", at_most=0, beside=f"{polls:,.0f} polls, by /metrics")


def old_polls(stage: Stage) -> list[Finding]:
    """Nothing happened for a week; the cursors are those of an earlier start of the server."""
    data = stage.store(OLD)
    with stage.tidings(data) as server:
        cursors = [request.head for request in by_cursor(Wire(server.port), READERS)]
    with stage.tidings(data) as server:
        client = Wire(server.port)
        paths = [head.split()[1] for head in cursors]
        answers = [client.get(path).decode() for path in paths]  # which loads their readers, once
        if not all(answer.startswith('{"messages":null,') for answer in answers):
            raise Failed("there should be no news for an old cursor")
        past_ms = time.time_ns() // 1_000_000 - WEEK_MS
        sides = [
            Side("poll by a cursor of last week", server, list(map(Request, cursors, answers))),
            Side("poll by a timestamp of last week", server, by_timestamp(client, READERS, past_ms)),
        ]
        gained = Gained(client)
        alternate(stage, sides)
        counts = gained.after(sum(side.answers for side in sides))
        stated = [
            Finding("old", side.name, side.rate, "/s", side.rates, beside=f"{side.cpu_us:.1f} us CPU", facts=side.facts)
            for side in sides
        ]
        return [*stated, _no_store_calls("old", "polls with cursors and timestamps of last week", counts)]


def flat(stage: Stage) -> list[Finding]:
    """The same polls beside each other: of few messages and many, in few groups and many."""
    story = large(stage)
    few, many = f"{SMALL.messages:,}", f"{story.messages:,}"
    with ExitStack() as stack:
        small = stack.enter_context(stage.tidings(stage.store(SMALL)))
        big = stack.enter_context(stage.tidings(stage.store(story)))
        client = Wire(small.port)
        base = _ways(small, client, READERS, f"{few} messages, 2 groups,")
        stored = _ways(big, Wire(big.port), READERS, f"{many} messages,")
        joined = _ways(small, client, JOINERS, f"{MANY_GROUPS} groups,")
        gained = Gained(client)
        alternate(stage, [side for sides in zip(base, stored, joined, strict=True) for side in sides])
        counts = gained.after(sum(side.answers for side in (*base, *joined)))
        found = []
        for way, a, b in zip(("cursor", "timestamp"), base, stored, strict=True):
            name = f"hot poll by {way}, {many} stored to {few}, CPU"
            found.append(by_cost("flat", name, b, a, at_most=FLAT_BUDGET))
        found += [_a_group(way, a, b) for way, a, b in zip(("cursor", "timestamp"), base, joined, strict=True)]
        return [*found, _no_store_calls("flat", f"hot polls of {FEW_GROUPS} and {MANY_GROUPS} groups", counts)]


def _a_group(way: str, few: Side, many: Side) -> Finding:
    """What each further group costs a poll."""
    groups = MANY_GROUPS - FEW_GROUPS
    rounds = [(b - a) / groups for a, b in zip(few.costs_us, many.costs_us, strict=True)]
    return Finding(
        "flat",
        f"a group in a hot poll by {way}, 2 to {MANY_GROUPS}",
        median(rounds),
        "us",
        rounds,
        at_most=GROUP_BUDGET_US,
        beside=f"{few.cpu_us:.1f} us CPU with 2, {many.cpu_us:.1f} with {MANY_GROUPS}",
        facts={"few": few.facts, "many": many.facts},
    )


def two_workers(stage: Stage) -> list[Finding]:
    """The same polls of one worker and of two; the cores are shared with the load, so CPU time tells."""
    with ExitStack() as stack:
        one = stack.enter_context(stage.tidings(stage.store(SMALL)))
        two = stack.enter_context(stage.tidings(stage.store(OLD), "--workers", "2"))
        client = Wire(two.port, workers=2)
        alone = _ways(one, Wire(one.port), READERS, "one worker,")
        both = _ways(two, client, READERS, "two workers,")
        _meet(two, both)
        gained = Gained(client)
        alternate(stage, [side for sides in zip(alone, both, strict=True) for side in sides])
        counts = gained.after(sum(side.answers for side in both))
        found = [
            by_cost("workers", f"hot poll by {way}, two workers to one, CPU", b, a, at_most=WORKERS_BUDGET)
            for way, a, b in zip(("cursor", "timestamp"), alone, both, strict=True)
        ]
        polls, checks = counts["tidings_polls_total"], counts["tidings_freshness_checks_total"]
        looks = Finding(
            "workers",
            "freshness checks, two workers",
            checks / polls,
            "a poll",
            beside="looks at the last commit, in shared memory",
        )
        calls = _no_store_calls("workers", "hot polls of two workers", counts)
        return [*found, calls, looks, *spread(two, both[0].requests, EVEN_BUDGET)]


def _meet(server: Server, sides: Sequence[Side]) -> None:
    """Let each worker load the readers first: all polls, over so many connections that each has some."""
    with ExitStack() as stack:
        for _ in range(32):
            for side in sides:
                poll_all(stack, server.port, side.requests)
