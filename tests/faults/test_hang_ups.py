"""Clients that hang up before they are answered leave nothing behind: no place taken, no news unseen."""

import random
from pathlib import Path

import pytest

from tests.faults.calls import Line, line_to
from tests.server import ServerProcess, until


@pytest.mark.parametrize("workers", ["1", "2"])
def test_long_polls_that_hang_up(tmp_path: Path, workers: str) -> None:
    """Bob's phone hangs up on forty long-polls, more than a user may hold: the next one is taken all the same."""
    flags = ("--workers", workers, "--waits-per-user-max", "3", "--waits-max", "5")
    with ServerProcess.start(tmp_path, *flags) as server, line_to(server.url, fresh=0.5) as line:
        _, bob = _sign_up(line)
        for _ in range(40):
            line.hang_up(f"/v1/messages/{bob}?wait=60")
        until(lambda: all(line.get(f"/v1/messages/{bob}", wait=0.01).status == 200 for _ in range(8)))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sends_that_hang_up(tmp_path: Path, workers: str) -> None:
    """Ann hangs up on many sends; what was taken of them is in order, and what she sends then comes right after."""
    with ServerProcess.start(tmp_path, "--workers", workers) as server, line_to(server.url, fresh=0.5) as line:
        ann, bob = _sign_up(line)
        for number in range(60):
            body = f'{{"senderId":"{ann}","receiverId":"{bob}","message":"cut {number}"}}'
            line.hang_up("/v1/messages/send?type=private", body.encode())
            if random.Random(number).random() < 0.5:
                answer = line.post(
                    "/v1/messages/send?type=private", {"senderId": ann, "receiverId": bob, "message": f"{number}"}
                )
                assert answer.status == 200
                for _ in range(3):
                    seen = line.get(f"/v1/messages/{bob}", timestamp=int(answer.data["timestamp"]) - 1).data["messages"]
                    assert answer.data in seen
        messages = line.get(f"/v1/messages/{bob}").data["messages"]
        assert [message["seq"] for message in messages] == list(range(1, len(messages) + 1))
        assert len({message["message"] for message in messages}) == len(messages)


def _sign_up(line: Line) -> tuple[str, str]:
    ann, bob = (line.post("/v1/users/create", {"username": name}).data["userId"] for name in ("ann", "bob"))
    return ann, bob
