"""Hundreds of streams of every kind, while the server is killed and connections are cut: the judge finds nothing."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.crowd import Crowd
from tests.faults.following import Followers
from tests.faults.mortal import Mortal
from tests.followed import WAYS
from tests.proxy import Proxy

PAIRS = 63  # for each of four: 504 followers
KILLS = 4
CUTS = 6  # between two kills


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_five_hundred_followers(tmp_path: Path, seed: int, say: Callable[[str], None], workers: str) -> None:
    """Followers by WebSocket, by events and by polls are cut, killed with their server, and die: each message once."""
    rng = random.Random(seed)
    with (
        Mortal(tmp_path, "--workers", workers, "--waits-per-user-max", "1000") as server,
        Crowd(server.url, seed, pace_s=0.3) as crowd,
        Proxy(server.url) as proxy,
        Followers(crowd, seed, pairs=PAIRS, url=proxy.url) as followers,
    ):
        for _ in range(KILLS):
            for _ in range(CUTS):
                crowd.go_on(rng.randint(200, 2000))
                proxy.cut(by_reset=rng.random() < 0.5, most=rng.choice((1, 10, None)))
            with crowd.down("kill"):
                server.kill()
                server.restart()
        crowd.finish()
        followers.finish()
    everyone = followers.everyone
    given, deaths = sum(follower.given for follower in everyone), sum(follower.deaths for follower in everyone)
    lives = Counter(way for follower in everyone for way in follower.ways)
    say(f"{len(everyone)} followers, by {dict(lives)}: {given} messages given, {deaths} deaths")
    say(f"{sum(follower.outlasted for follower in everyone)} failures outlasted, {proxy.connections} behind the proxy")
    counts = crowd.judged(tmp_path, f"soak, {workers} worker(s)", server.errors, say)
    assert counts["kills"] == KILLS
    assert counts["messages acknowledged and never read"] == 0
    assert len(everyone) >= 500
    assert lives.keys() == {*WAYS}
    assert given >= 10_000
