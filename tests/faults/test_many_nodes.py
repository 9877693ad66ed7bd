"""Three nodes on one store and one feed, of which one comes to harm: nothing is lost, doubled, disordered or leaked."""

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.faults.clock import LIBRARIES, MISSING, Clock, late
from tests.faults.crowd import Crowd
from tests.faults.following import Followers
from tests.faults.many import Many, run_s
from tests.faults.sockets import Hopper, SocketSender
from tidings.history import Allowance, Verdict

LAG_S = 1.0  # between nodes
SETTLING_S = 60.0  # by timestamp, nothing is shown while the feed is away, and ten seconds more

GoOn = Callable[[float], None]
Say = Callable[[str], None]
Fault = Callable[[Many, random.Random, GoOn], None]


def killed(many: Many, rng: random.Random, go_on: GoOn) -> None:
    """A node is killed and comes back a while later."""
    number = rng.randrange(3)
    many.kill(number)
    go_on(rng.uniform(0, 3))
    many.restart(number)


def ended(many: Many, rng: random.Random, go_on: GoOn) -> None:
    """A node is told to end, and comes back, as when another version is rolled out."""
    number = rng.randrange(3)
    many.end(number)
    go_on(rng.uniform(0, 3))
    many.restart(number)


def stopped_for(seconds: float) -> Fault:
    """A node stands still, and goes on as if nothing had been."""

    def stopped(many: Many, rng: random.Random, go_on: GoOn) -> None:
        with many.stopped(rng.randrange(3)):
            go_on(seconds)

    return stopped


def redis_killed(many: Many, rng: random.Random, go_on: GoOn) -> None:
    """The feed's server is killed, and comes back empty."""
    many.redis.kill()
    go_on(rng.uniform(0, 3))
    many.redis.start()


def redis_hung(many: Many, rng: random.Random, go_on: GoOn) -> None:
    """The feed's server stands still."""
    many.redis.stop()
    go_on(rng.uniform(0.5, 6))
    many.redis.go_on()


def cut_off_from_feed(many: Many, rng: random.Random, go_on: GoOn) -> None:
    """A node is cut off from the feed alone: its connections are reset, or nothing passes any more."""
    how = "is_cut" if rng.random() < 0.5 else "is_hung"
    with many.doors.faulty(many.feed_door(rng.randrange(3), **{how: True})):
        go_on(rng.uniform(0.5, 6))


def cut_off_from_store(many: Many, rng: random.Random, go_on: GoOn) -> None:
    """A node is cut off from the store alone, likewise."""
    how = "is_cut" if rng.random() < 0.5 else "is_hung"
    with many.doors.faulty(many.store_door(rng.randrange(3), **{how: True})):
        go_on(rng.uniform(0.5, 6))


def slow_store(many: Many, rng: random.Random, go_on: GoOn) -> None:
    """The store takes 700 ms to answer anybody."""
    with many.doors.faulty(*(many.store_door(number, delay_s=0.7) for number in range(3))):
        go_on(rng.uniform(4, 8))


def some_calls(what: str) -> Fault:
    """A fifth of all calls to the store."""

    def some(many: Many, rng: random.Random, go_on: GoOn) -> None:
        with many.doors.faulty(*(many.store_door(number, what=what, share=0.2) for number in range(3))):
            go_on(rng.uniform(4, 8))

    return some


ON_A_NODE = (killed, ended, stopped_for(3), stopped_for(1))
ON_THE_FEED = (redis_killed, redis_hung, cut_off_from_feed)
ON_THE_STORE = (cut_off_from_store, slow_store, some_calls("throttle"), some_calls("hush"), some_calls("lose"))


def two_at_once(many: Many, rng: random.Random, go_on: GoOn) -> None:
    """One of these while there is another."""
    first, second = rng.sample((ON_A_NODE, ON_THE_FEED, ON_THE_STORE), 2)

    def then(seconds: float) -> None:
        go_on(rng.uniform(0, seconds))
        rng.choice(second)(many, rng, go_on)

    rng.choice(first)(many, rng, then)


FAULTS: dict[str, Fault] = {
    "node killed": killed,
    "node ended": ended,
    "node stopped for 3 s": stopped_for(3),
    "node stopped for 30 s": stopped_for(30),
    "redis killed": redis_killed,
    "redis hung": redis_hung,
    "cut off from redis": cut_off_from_feed,
    "cut off from dynamodb": cut_off_from_store,
    "slow dynamodb": slow_store,
    "throttled": some_calls("throttle"),
    "answers lost": some_calls("hush"),
    "two at once": two_at_once,
}
HEARD = ("throttled", "answers lost", "two at once")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_three_nodes(tmp_path: Path, seed: int, say: Say, tell_fault: Callable[..., None], name: str) -> None:
    """Clients of every kind go from node to node while this is done to one, or to what they stand on."""
    with Many(tmp_path, hears=name in HEARD) as many:
        judge(many, FAULTS[name], name, tmp_path, seed, say, tell_fault)


@pytest.mark.slow
@pytest.mark.skipif(not LIBRARIES, reason=MISSING)
def test_the_clock_of_a_node(tmp_path: Path, seed: int, say: Say, tell_fault: Callable[..., None]) -> None:
    """A node's clock is an hour off, and jumps: no promise depends on it."""
    clock = Clock(tmp_path / "clock")
    clock.set(3600)

    def jumps(many: Many, rng: random.Random, go_on: GoOn) -> None:
        clock.set(rng.choice((-3600, 3600, 0, -7200, 5, -5)))
        go_on(rng.uniform(0.5, 2))

    with Many(tmp_path, clock=clock) as many:
        judge(many, jumps, "clock jumps", tmp_path, seed, say, tell_fault)


@pytest.mark.slow
def test_the_clock_of_redis(tmp_path: Path, seed: int, say: Say, tell_fault: Callable[..., None]) -> None:
    """The feed's server comes back empty with a clock an hour behind, and again with a right one."""
    behind = False

    def restarts(many: Many, rng: random.Random, go_on: GoOn) -> None:
        nonlocal behind
        behind = not behind
        many.redis.kill()
        many.redis.start(late(tmp_path, -3600 if behind else 0))
        told = int(many.redis.call("TIME")[0])
        assert (time.time() - told > 3000) is behind, "the server has that clock"
        go_on(rng.uniform(1, 3))

    with Many(tmp_path) as many:
        judge(many, restarts, "redis restarted, its clock behind", tmp_path, seed, say, tell_fault)


def read_to_the_end(many: Many, crowd: Crowd, hoppers: Sequence[Hopper]) -> None:
    """All chains, now that nobody sends; and newcomers at every node, a new one among them."""
    for follower in crowd.followers:
        follower.read_on()
    for hopper in hoppers:
        hopper.read_on()
    with many.newcomer() as newcomer:
        for url in (newcomer.url, *many.urls):
            for once in ("once", "again"):
                crowd.read_all(url, f"{url} {once}")
    crowd.compare()


def judge(
    many: Many, fault: Fault, name: str, kept: Path, seed: int, say: Say, tell_fault: Callable[..., None]
) -> None:
    """Let the crowd loose, do this to the nodes again and again, and judge what everybody saw."""
    rng = random.Random(seed)
    hot_s: list[float] = []
    with (
        Crowd(many.target, seed, pace_s=0.4, fresh=0.3) as crowd,
        Followers(crowd, seed) as followers,
    ):
        quiet = crowd.line.post("/v1/users/create", {"username": "dave"}).data["userId"]
        users, rooms, urls = crowd.users, [*crowd.rooms.values()], many.urls
        senders = [
            SocketSender(crowd.scene, f"{who} on a socket", str(seed), user, [*users.values()], rooms, urls)
            for who, user in users.items()
        ]
        hoppers = [
            Hopper(crowd.scene, f"{who} hops {n}", str(seed), user, urls, sent=n % 2 == 1)
            for who, user in users.items()
            for n in range(2)
        ]
        with crowd.joined(*senders, *hoppers):
            begin = time.monotonic()
            while time.monotonic() - begin < run_s(60) and not crowd.recorder.wrong:
                crowd.go_on_for(rng.uniform(0.5, 2))
                crowd.recorder.fault(name)
                fault(many, rng, crowd.go_on_for)
                hot_s.append(many.until_hot(quiet))
        lasted_s = time.monotonic() - begin
        crowd.stop()
        many.until_quiet(users)
        until = time.monotonic_ns()
        read_to_the_end(many, crowd, hoppers)
        followers.finish()
    allowed = Allowance(int(LAG_S * 1e9), int(SETTLING_S * 1e9), until, many.stamps_anew)
    crowd.recorder.events.append(allowed)
    say(f"{len(hot_s)} rounds in {lasted_s:.0f} s; hot again after {max(hot_s):.1f} s at most")
    say(f"{allowed.anew} stamps anew; {sum(hopper.given for hopper in hoppers)} messages given to who hops")

    def tell(verdict: Verdict) -> None:
        counts = verdict.counts
        calls = counts["sends"], counts["sends unknown"], counts["reads"]
        tell_fault(name, len(hot_s), f"{lasted_s:.0f}", *calls, len(verdict.anomalies), f"{max(hot_s):.1f}")

    counts = crowd.judged(kept, name, many.errors, say, tell)
    assert counts["messages acknowledged and never read"] == 0
    assert counts["sends acknowledged"] >= 100
    assert counts["reads"] >= 500
