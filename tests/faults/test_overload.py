"""Ten times what the server bears: refused early, memory bounded, others served meanwhile, and over by itself."""

import asyncio
import random
import resource
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.api_client import Api
from tests.bad_input import connected, sockets
from tests.faults.crowd import Crowd
from tests.faults.flood import Outcomes, flood, request, resident_mb
from tests.faults.mortal import Mortal
from tests.server import ServerProcess, until

CONNECTIONS = 500
NEAR = ("--writes-waiting-max", "50", "--mailbox-waiting-max", "20")
CROWD = 10  # of a crowd send or change something, each one call at a time
GROWN_MB = 150.0  # 500 connections with their buffers, and some 10,000 messages in the tail


@pytest.fixture(autouse=True, scope="module")
def many_files() -> Iterator[None]:
    """As many descriptors as we may have."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def another_caller(url: str) -> Iterator[list[int]]:
    """Eve, who polls without news all the while, over a connection of hers: the statuses of her answers."""
    over, statuses = threading.Event(), list[int]()
    with Api(url) as api:
        eve = api.user("eve")
        cursor = api.poll(eve)["cursor"]

        def poll() -> None:
            while not over.is_set():
                statuses.append(api.get(f"/v1/messages/{eve}", cursor=cursor).status_code)

        polling = threading.Thread(target=poll)
        polling.start()
        try:
            yield statuses
        finally:
            over.set()
            polling.join()
    assert set(statuses) == {200}
    assert len(statuses) >= 10


def overload(url: str, pids: Sequence[int], calls: int, make: Callable[[], bytes]) -> Outcomes:
    """The flood, while Eve goes on; what holds whatever is asked."""
    outcomes, before = Outcomes(), resident_mb(list(pids))
    with another_caller(url):
        asyncio.run(flood(url, CONNECTIONS, calls, make, outcomes))
    assert not outcomes.hung
    assert not outcomes.cut
    assert {status for status, _ in outcomes.answers} <= {200, 429, 503}, outcomes
    assert sum(outcomes.retry_after.values()) == outcomes.refused
    assert sum(outcomes.answers.values()) >= calls - CONNECTIONS
    assert resident_mb(list(pids)) - before < GROWN_MB * len(pids)
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "limits"), [("1", NEAR), ("2", NEAR), ("1", ())], ids=["1", "2", "1, as set"])
def test_more_sends_than_it_bears(
    tmp_path: Path, seed: int, say: Callable[[str], None], workers: str, limits: tuple[str, ...]
) -> None:
    """500 connections send without a pause; a crowd of others sends and reads with a history that must hold."""
    rng = random.Random(seed)
    with (
        Mortal(tmp_path, "--workers", workers, *limits) as server,
        Crowd(server.url, seed) as crowd,
        Api(server.url) as api,
    ):
        cast = [api.user("ann") for _ in range(8)]
        pids = server.process.worker_pids() or [server.process.pid]

        def make() -> bytes:
            fields = {"senderId": rng.choice(cast), "receiverId": rng.choice(cast), "message": "m" * 100}
            return request("POST", "/v1/messages/send?type=private", fields)

        outcomes = overload(server.url, pids, 3_000, make)
        until(lambda: api.counted("tidings_writes_waiting") <= CROWD)
        api.private(cast[0], cast[1], "after it all")
        crowd.finish()
        until(lambda: api.counted("tidings_writes_waiting") == 0)
    say(f"{outcomes.answers} {outcomes.retry_after}")
    crowd.judged(tmp_path, "overload", server.errors, say)
    assert outcomes.answers[200, ""]
    if limits:
        assert outcomes.refused
        assert len(outcomes.retry_after) > 1
        assert min(outcomes.retry_after.values()) > outcomes.refused / 20, "those refused together come back together"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (("--cold-reads-max", "1", "--cold-reads-waiting-max", "20"), "overloaded"),
        (("--cold-reads-max", "1", "--read-wait-s", "0.4"), "store_unavailable"),
    ],
    ids=["too many wait", "they wait too long"],
)
def test_all_readers_are_cold_at_once(
    tmp_path: Path, say: Callable[[str], None], limits: tuple[str, ...], code: str
) -> None:
    """500 readers of what is in nobody's memory: some are served, the rest are told to come back, and then are."""
    with ServerProcess.start(tmp_path, "--tail-max-bytes", "0", *limits) as server, Api(server.url) as api:
        ann = api.user("ann")
        for n in range(300):
            api.private(ann, ann, f"{n:03}" + "x" * 800)
        outcomes = overload(server.url, [server.pid], 1_500, lambda: request("GET", f"/v1/messages/{ann}?limit=1000"))
        say(f"{outcomes.answers} {outcomes.retry_after}")
        assert outcomes.answers[200, ""]
        assert outcomes.answers[503, code]
        until(lambda: api.get(f"/v1/messages/{ann}", limit=1000).status_code == 200)
        assert len(api.texts(ann)) == 300
        assert "Traceback" not in server.errors  # that calls are slow and reads given up is told, and was meant to be


@pytest.mark.slow
def test_more_connections_than_descriptors(tmp_path: Path) -> None:
    """A server out of descriptors serves those whom it has, and all others once there is room again."""
    with ServerProcess.start(tmp_path, prefix=("prlimit", "--nofile=80:80")) as server:
        with another_caller(server.url) as statuses, ExitStack() as held:
            for _ in range(200):
                held.enter_context(connected(server.url))
            before = len(statuses)
            until(lambda: len(statuses) > before + 100)
        with Api(server.url) as api:
            assert api.get("/readyz").status_code == 200


@pytest.mark.slow
def test_readers_who_do_not_read(tmp_path: Path) -> None:
    """Fifty ask for megabytes and take nothing: each holds its page and no more, and is cut; no one waits for them."""
    with ServerProcess.start(tmp_path, "--keep-alive-s", "3") as server, Api(server.url) as api:
        ann = api.user("ann")
        for _ in range(600):
            api.private(ann, ann, "x" * 16_000)
        before = resident_mb([server.pid])
        with another_caller(server.url), ExitStack() as held:
            for _ in range(50):
                held.enter_context(_stalled(server.url, ann))
            until(lambda: sockets(server.pid) > 50)
            until(lambda: sockets(server.pid) < 50, 60, "stalled readers are still held")
            assert resident_mb([server.pid]) - before < 100


def _stalled(url: str, user: str) -> socket.socket:
    connection = connected(url)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sendall(request("GET", f"/v1/messages/{user}"))
    return connection
