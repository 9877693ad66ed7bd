"""Sends over WebSockets, and readers that hop between transports, while the server is killed: nothing is wrong."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.crowd import Crowd
from tests.faults.mortal import Mortal
from tests.faults.sockets import Hopper, SocketSender
from tests.faults.test_workers import TINY, kill_one, stop_one
from tests.proxy import Proxy

TURNS = 12


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags", [("--workers", "1"), ("--workers", "2"), ("--workers", "2", *TINY)], ids=["one", "two", "tiny"]
)
def test_sockets_under_kills_and_cuts(
    tmp_path: Path, seed: int, say: Callable[[str], None], flags: tuple[str, ...]
) -> None:
    """Each message that was acknowledged on a socket is kept once, and given once to each reader, whatever breaks;
    nothing is given to who has left a group, by any transport."""
    rng = random.Random(seed)
    with (
        Mortal(tmp_path, *flags, "--waits-per-user-max", "1000", "--heartbeat-s", "0.3") as server,
        Proxy(server.url) as proxy,
        Crowd(server.url, seed, pace_s=0.1, fresh=0.2) as crowd,
    ):
        urls, users, rooms = (server.url, proxy.url), crowd.users, [*crowd.rooms.values()]
        senders = [
            SocketSender(crowd.scene, f"{name} on a socket", str(seed), user, [*users.values()], rooms, urls)
            for name, user in users.items()
        ]
        hoppers = [
            Hopper(crowd.scene, f"{name} hops {n}", str(seed), user, urls, sent=n % 2 == 1)
            for name, user in users.items()
            for n in range(4)
        ]
        with crowd.joined(*senders, *hoppers):
            for _ in range(TURNS):
                crowd.go_on(rng.randint(200, 2500))
                rng.choice((_cut, _cut, _kill, _end, _trip))(server, crowd, proxy, rng)
        crowd.finish()
        for hopper in hoppers:
            hopper.read_on()
    counts = crowd.judged(tmp_path, f"sockets, {flags}", server.errors, say)
    acknowledged, given = sum(sender.acknowledged for sender in senders), sum(hopper.given for hopper in hoppers)
    say(f"{acknowledged} sends acknowledged on sockets, {given} messages given to who hops")
    assert counts["messages acknowledged and never read"] == 0
    assert acknowledged >= 500
    assert given >= 5_000
    assert {way for hopper in hoppers for way in hopper.ways} == {"poll", "sse", "websocket"}


def _cut(server: Mortal, crowd: Crowd, proxy: Proxy, rng: random.Random) -> None:
    proxy.cut(by_reset=rng.random() < 0.5, most=rng.choice((1, 5, None)))


def _kill(server: Mortal, crowd: Crowd, proxy: Proxy, rng: random.Random) -> None:
    with crowd.down("kill"):
        server.kill()
        server.restart()


def _end(server: Mortal, crowd: Crowd, proxy: Proxy, rng: random.Random) -> None:
    with crowd.down("end"):
        server.end()
        server.restart()


def _trip(server: Mortal, crowd: Crowd, proxy: Proxy, rng: random.Random) -> None:
    """One of two workers is killed or stopped for a while."""
    if server.process.worker_pids():
        rng.choice((kill_one, stop_one))(server, crowd, rng)
