"""`Client.follow()` reads for everybody while the server is killed: each message once, as the judge has it."""

import random
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest

from tests.faults.crowd import Crowd
from tests.faults.following import Followers
from tests.faults.mortal import Mortal
from tests.followed import WAYS

KILLS = 8


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_followers_while_the_server_is_killed(
    tmp_path: Path, seed: int, say: Callable[[str], None], workers: str
) -> None:
    """Everybody is followed over SIGKILLs, comings and goings of members, and deaths of the follower: nothing twice."""
    rng = random.Random(seed)
    with (
        Mortal(tmp_path, "--workers", workers) as server,
        Crowd(server.url, seed) as crowd,
        Followers(crowd, seed) as followers,
    ):
        for _ in range(KILLS):
            crowd.go_on(rng.randint(100, 1500))
            with crowd.down("kill"):
                server.kill()
                server.restart()
        crowd.finish()
        followers.finish()
    everyone = followers.everyone
    given = sum(follower.given for follower in everyone)
    outlasted, deaths = sum(follower.outlasted for follower in everyone), sum(follower.deaths for follower in everyone)
    say(f"{len(everyone)} followers: {given} messages given, {outlasted} failures outlasted, {deaths} deaths")
    counts = crowd.judged(tmp_path, f"following, {workers} worker(s)", server.errors, say)
    assert counts["kills"] == KILLS
    assert counts["messages acknowledged and never read"] == 0
    assert given >= 1000
    assert outlasted >= KILLS
    assert deaths
    assert {*chain.from_iterable(follower.ways for follower in everyone)} == {*WAYS}
