"""SIGTERM under load: what was acknowledged is there, what was begun is answered whole, and the end comes in time."""

import asyncio
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.api_client import Api
from tests.bad_input import Wire
from tests.faults.crowd import Crowd
from tests.faults.flood import Outcomes, ask, request
from tests.faults.mortal import Mortal
from tests.server import ServerProcess, until

ROUNDS = 3
GRACE_S = 10.0
SENDERS, WAITERS = 40, 12


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_under_load(tmp_path: Path, seed: int, say: Callable[[str], None], workers: str) -> None:
    """Again and again, while clients send, read and wait: exit code 0, no answer cut, every wait let go, none lost."""
    rng, total = random.Random(seed), Outcomes()
    with (
        Mortal(tmp_path, "--workers", workers, "--grace-s", f"{GRACE_S:g}") as server,
        Crowd(server.url, seed) as crowd,
    ):
        for _ in range(ROUNDS):
            crowd.go_on(rng.randint(100, 800))
            with crowd.down("end"):
                ann, acknowledged = end_under_load(server, total)
                server.restart()
                with Api(server.url) as api:
                    assert len(api.texts(ann)) == acknowledged > SENDERS  # what took effect was told
        crowd.finish()
    say(f"{total.answers}, closed between answers: {total.closed}")
    counts = crowd.judged(tmp_path, f"SIGTERM, {workers} workers", server.errors, say)
    assert counts["messages acknowledged and never read"] == 0
    assert not total.cut
    assert not total.unanswered
    assert not total.hung
    assert {status for status, _ in total.answers} <= {200, 429, 503}, total
    assert total.answers[200, ""] > ROUNDS * SENDERS


def end_under_load(server: Mortal, total: Outcomes) -> tuple[str, int]:
    """Senders in full swing and long-polls held: SIGTERM. Gives to whom they sent, and how often they were told 200."""
    with Api(server.url) as api:
        ann = api.user("ann")
        waits = [Wire(server.url) for _ in range(WAITERS)]
        for wire in waits:
            wire.say(request("GET", f"/v1/messages/{api.user('bob')}?wait=60"))
        until(lambda: api.counted("tidings_waits") >= WAITERS)
        fields = {"senderId": ann, "receiverId": ann, "message": "m"}
        sent = request("POST", "/v1/messages/send?type=private", fields)
        sending = threading.Thread(target=lambda: asyncio.run(_ask_on(server.url, sent, total)))
        before = total.answers[200, ""]
        sending.start()
        until(lambda: total.answers[200, ""] > before + 2 * SENDERS)
    began = time.monotonic()
    server.process.signal(signal.SIGTERM)
    for wire in waits:
        with wire:
            said = wire.hear()
            assert (said.status, said.json["messages"]) == (200, None)
            assert said.json["cursor"]
            assert wire.ended()
    assert server.process.wait() == 0, server.process.errors
    assert time.monotonic() - began < GRACE_S, "the grace time was not needed: nothing was in the way"
    sending.join()
    return ann, total.answers[200, ""] - before


POLL, SHOW, SEND = "a poll without news", "a look at a user", "a send"


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("what", [POLL, SHOW, SEND])
def test_whoever_asks_without_a_pause_is_answered_to_the_last(tmp_path: Path, what: str, workers: str) -> None:
    """Forty ask again as soon as they are answered: at SIGTERM none has a request that is not, and all are told."""
    total = Outcomes()
    with ServerProcess.start(tmp_path, "--workers", workers) as server:
        with Api(server.url) as api:
            ann = api.user("ann")
            cursor = api.poll(ann)["cursor"]
        fields = {"senderId": ann, "receiverId": ann, "message": "m"}
        sent = {
            POLL: request("GET", f"/v1/messages/{ann}?cursor={cursor}"),
            SHOW: request("GET", f"/v1/users/{ann}"),
            SEND: request("POST", "/v1/messages/send?type=private", fields),
        }[what]
        asking = threading.Thread(target=lambda: asyncio.run(_ask_on(server.url, sent, total)))
        asking.start()
        until(lambda: total.answers[200, ""] > 10 * SENDERS)
        assert server.terminate() == 0
        asking.join()
        assert server.complaints == ""
    assert total.answers.keys() == {(200, "")}
    assert (total.unanswered, total.cut, total.hung) == (0, [], 0)


async def _ask_on(url: str, sent: bytes, total: Outcomes) -> None:
    await asyncio.gather(*(ask(url, lambda: sent, total) for _ in range(SENDERS)))
