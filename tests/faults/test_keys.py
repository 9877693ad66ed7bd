"""Idempotency keys under stress: one key from twenty clients at once, and across a kill, takes effect once."""

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.calls import Answer, Line, NotSent, Target, line_to
from tests.faults.mortal import Mortal
from tests.faults.recorder import Recorder
from tests.server import ServerProcess, until

CLIENTS = 20
KILLS = 8


@pytest.fixture(params=["1", "2"], ids=["one process", "two workers"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A server of one process or two workers."""
    with ServerProcess.start(tmp_path, "--workers", request.param) as server:
        yield server.url


def at_once(url: str, call: Callable[[Line], Answer]) -> list[Answer]:
    """What so many clients are answered who make one call at the same moment, each over a connection of its own."""
    gate = threading.Barrier(CLIENTS)
    answers: list[Answer] = []

    def client(number: int) -> None:
        with line_to(url, seed=number) as line:
            line.get("/healthz")
            gate.wait()
            answers.append(call(line))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == CLIENTS
    return answers


def test_one_key_from_twenty_clients(url: str) -> None:
    """Signing up, making a room, joining, sending and blocking, each twenty times at once: one effect, one answer."""

    def once(path: str, body: dict[str, str], key: str) -> dict[str, str]:
        answers = at_once(url, lambda line: line.post(path, body, key))
        assert {answer.status for answer in answers} == {200}, answers
        assert all(answer.data == answers[0].data for answer in answers), answers
        return answers[0].data

    ann = once("/v1/users/create", {"username": "ann"}, "a")["userId"]
    bob = once("/v1/users/create", {"username": "bob"}, "b")["userId"]
    room = once("/v1/groups/create", {"groupName": "attic"}, "g")["groupId"]
    once(f"/v1/groups/{room}?op=add", {"userId": ann}, "add")
    private = once("/v1/messages/send?type=private", {"senderId": ann, "receiverId": bob, "message": "hello"}, "p")
    loud = once("/v1/messages/send?type=group", {"senderId": ann, "groupId": room, "message": "hello"}, "r")
    once(f"/v1/users/{bob}?op=block", {"blockedUserId": ann}, "block")
    again = once("/v1/messages/send?type=private", {"senderId": ann, "receiverId": bob, "message": "hello"}, "p")
    assert again == private, "what succeeded before the block is answered alike after it"
    once(f"/v1/users/{bob}?op=unblock", {"blockedUserId": ann}, "unblock")
    once(f"/v1/groups/{room}?op=remove", {"userId": ann}, "remove")
    once(f"/v1/groups/{room}?op=add", {"userId": ann}, "add again")
    with line_to(url) as line:
        assert line.get(f"/v1/messages/{bob}").data["messages"] == [private]
        assert line.get(f"/v1/messages/{ann}").data["messages"] == [loud]


def test_one_key_for_different_contents_at_once(url: str) -> None:
    """Twenty clients use one key for twenty texts: one is taken, the others are told that the key is taken."""
    with line_to(url) as line:
        ann, bob = (line.post("/v1/users/create", {"username": n}).data["userId"] for n in ("ann", "bob"))
        texts = iter([f"text {n}" for n in range(CLIENTS)])

        def send(line: Line) -> Answer:
            body = {"senderId": ann, "receiverId": bob, "message": next(texts)}
            return line.post("/v1/messages/send?type=private", body, "k")

        answers = at_once(url, send)
        taken = [answer for answer in answers if answer.status == 200]
        assert len(taken) == 1
        assert {answer.code for answer in answers} == {"", "idempotency_key_reused"}
        assert line.get(f"/v1/messages/{bob}").data["messages"] == [taken[0].data]


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_key_across_a_kill(tmp_path: Path, seed: int, say: Callable[[str], None], workers: str) -> None:
    """The server is killed between a call and its repeat, or in the middle of twenty: each key takes effect once."""
    rng = random.Random(seed)
    recorder = Recorder()
    with Mortal(tmp_path, "--workers", workers) as server:
        target = Target(server.url, threading.Event())
        line = Line(target, rng)
        ann, bob = (line.post("/v1/users/create", {"username": n}).data["userId"] for n in ("ann", "bob"))

        def client(number: int, turn: int) -> None:
            with line_to(target.url, seed=number) as mine:
                text = f"turn {turn}, intent {number % 5}"
                for _ in range(3):
                    try:
                        recorder.send(mine, ann, bob, text, True, text)
                    except NotSent:
                        return

        for turn in range(KILLS):
            threads = [threading.Thread(target=client, args=(number, turn)) for number in range(CLIENTS)]
            goal = len(recorder.events) + rng.randint(0, 3 * CLIENTS - 5)
            for thread in threads:
                thread.start()
            until(lambda goal=goal: len(recorder.events) >= goal)  # type: ignore[misc]
            server.kill()
            recorder.fault("kill")
            for thread in threads:
                thread.join()
            server.restart()
            line.renew()
            for number in range(5):
                text = f"turn {turn}, intent {number}"
                assert recorder.send(line, ann, bob, text, True, text).outcome == "ok"
        given = recorder.read(line, bob, "all").messages
        recorder.read(line, ann, "all", sent=True)
        line.renew()
    verdict = recorder.judge(tmp_path / "history.jsonl")
    say(f"keys, {workers} worker(s): {verdict.summary()}")
    assert len(given) == 5 * KILLS
    assert verdict.counts["sends acknowledged"] > 5 * KILLS
