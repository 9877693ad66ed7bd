"""Requests behind one another on one connection, more than are answered: no memory is filled, and each is answered."""

import json
import re
import threading
from pathlib import Path

import pytest

from tests.api_client import Api
from tests.server import ServerProcess
from tests.sockets import Raw, frame, handshake

FLOOD = 30_000  # requests: 30 MB; kept as objects, four times as much
SENDS = 500  # among them


def peak_bytes(pid: int) -> int:
    """The most that a process had resident so far."""
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(kilobytes) * 1024


def get(path: str) -> bytes:
    """A request."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {'x' * 1_000}\r\n\r\n".encode()


SHOW = get("/healthz")


def send(sender: str, receiver: str, text: str) -> bytes:
    """A plain send."""
    body = json.dumps({"senderId": sender, "receiverId": receiver, "message": text})
    return (
        f"POST /v1/messages/send?type=private HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


@pytest.mark.parametrize("first", ["show", "send", "wait"])
def test_who_asks_faster_than_is_answered_fills_no_memory(tmp_path: Path, first: str) -> None:
    """A client writes and writes behind a call of each kind: all is answered, in order, in the memory of a few."""
    with ServerProcess.start(tmp_path) as server, Api(server.url) as api, Raw(server.url) as raw:
        ann, bob = api.user("ann"), api.user("bob")
        begun = {"show": SHOW, "send": send(ann, bob, "first"), "wait": get(f"/v1/messages/{bob}?wait=30")}[first]
        every = FLOOD // SENDS
        flood = [send(ann, ann, str(n // every)) if n % every == 0 else SHOW for n in range(FLOOD)]
        before = peak_bytes(server.pid)
        writer = threading.Thread(target=raw.say, args=(begun + b"".join(flood),), daemon=True)
        writer.start()
        if first == "wait":
            api.private(ann, bob, "awaited")
        assert len(raw.body(raw.head())) > 0
        answers = [raw.body(raw.head()) for _ in range(FLOOD)]
        writer.join()
        texts = [json.loads(answer)["message"] for answer in answers if b"messageId" in answer]
        assert texts == api.texts(ann) == [str(n) for n in range(SENDS)]
        assert answers.count(b'{"status":"ok"}') == FLOOD - SENDS
        assert peak_bytes(server.pid) - before < 20_000_000


def test_all_that_comes_behind_a_handshake_is_read(tmp_path: Path) -> None:
    """A client sends its handshake and a thousand messages at once: each of them is answered."""
    with ServerProcess.start(tmp_path) as server, Api(server.url) as api, Raw(server.url) as raw:
        ann = api.user("ann")
        said = [json.dumps({"type": "send", "ref": str(n), "receiverId": ann, "message": "hi"}) for n in range(1_000)]
        raw.say(handshake(ann) + b"".join(frame(text.encode()) for text in said))
        assert raw.head().startswith("HTTP/1.1 101 ")
        assert [answer["ref"] for answer in raw.answers(1_000)] == [str(n) for n in range(1_000)]
