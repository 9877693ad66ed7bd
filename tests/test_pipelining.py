"""Requests behind one another on one connection, more than are answered: no memory is filled, and each is answered."""

import json
import random
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api_client import Api
from tests.server import ServerProcess, memory, until
from tests.sockets import Raw, frame, handshake

FLOOD = 30_000  # requests: 30 MB; kept as objects, four times as much
SENDS = 500  # among them


def get(path: str) -> bytes:
    """A request."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {'x' * 1_000}\r\n\r\n".encode()


SHOW = get("/healthz")


def post(path: str, **body: str) -> bytes:
    """A request with a body."""
    content = json.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}"
    return f"{head}\r\n\r\n{content}".encode()


def send(sender: str, receiver: str, text: str) -> bytes:
    """A plain send."""
    return post("/v1/messages/send?type=private", senderId=sender, receiverId=receiver, message=text)


@pytest.mark.parametrize("first", ["show", "send", "wait"])
def test_who_asks_faster_than_is_answered_fills_no_memory(tmp_path: Path, first: str) -> None:
    """A client writes and writes behind a call of each kind: all is answered, in order, in the memory of a few."""
    with ServerProcess.start(tmp_path) as server, Api(server.url) as api, Raw(server.url) as raw:
        ann, bob = api.user("ann"), api.user("bob")
        begun = {"show": SHOW, "send": send(ann, bob, "first"), "wait": get(f"/v1/messages/{bob}?wait=30")}[first]
        every = FLOOD // SENDS
        flood = [send(ann, ann, str(n // every)) if n % every == 0 else SHOW for n in range(FLOOD)]
        before = memory(server.pid, "VmHWM")
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
        assert memory(server.pid, "VmHWM") - before < 20_000_000


@pytest.mark.parametrize("pause", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("behind", [1, 3_000])
def test_who_leaves_a_stream_is_seen_to_leave_whatever_they_asked_behind_it(
    tmp_path: Path, behind: int, pause: bool
) -> None:
    """A client opens a stream, asks for other things behind it, and ends: so does the stream, and it holds nothing."""
    with ServerProcess.start(tmp_path) as server, Api(server.url) as api, Raw(server.url) as raw:
        bob = api.user("bob")
        stream = get(f"/v1/messages/{bob}/stream?cursor=now")
        raw.say(stream if pause else stream + SHOW * behind)
        until(lambda: api.counted("tidings_streams") == 1)
        if pause:
            raw.say(SHOW * behind)
        raw.wire.shutdown(socket.SHUT_WR)
        until(lambda: api.counted("tidings_streams") == api.counted("tidings_waits") == 0)
        assert server.complaints == ""


def test_all_that_comes_behind_a_handshake_is_read(tmp_path: Path) -> None:
    """A client sends its handshake and a thousand messages at once: each of them is answered."""
    with ServerProcess.start(tmp_path) as server, Api(server.url) as api, Raw(server.url) as raw:
        ann = api.user("ann")
        said = [json.dumps({"type": "send", "ref": str(n), "receiverId": ann, "message": "hi"}) for n in range(1_000)]
        raw.say(handshake(ann) + b"".join(frame(text.encode()) for text in said))
        assert raw.head().startswith("HTTP/1.1 101 ")
        assert [answer["ref"] for answer in raw.answers(1_000)] == [str(n) for n in range(1_000)]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with ServerProcess.start(tmp_path_factory.mktemp("mixed"), "--workers", "2") as server, Api(server.url) as made:
        yield made
        assert server.complaints == ""


def in_chunks(whole: bytes, cut: int) -> bytes:
    """The same request, its body in two chunks."""
    head, _, body = whole.partition(b"\r\n\r\n")
    head = re.sub(rb"Content-Length: \d+", b"Transfer-Encoding: chunked", head)
    chunks = (b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (body[:cut], body[cut:], b""))
    return b"%b\r\n\r\n%b" % (head, b"".join(chunks))


def with_h2c(whole: bytes) -> bytes:
    """The same request, offering what is not spoken here."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
    return whole.replace(b"Content-Length", offer + b"Content-Length")


@pytest.mark.parametrize("seed", range(6))
def test_whatever_comes_in_whatever_pieces_is_answered_in_order(api: Api, seed: int) -> None:
    """Calls of every kind and length, written in pieces of any size, none waited for: each is answered in its place;
    what follows them may be a WebSocket."""
    rng = random.Random(seed)
    ann, bob = api.user("ann"), api.user("bob")
    hot = get(f"/v1/messages/{bob}?cursor={api.poll(bob, cursor='now')['cursor']}")
    wait = get(f"/v1/messages/{bob}?cursor={api.poll(bob, cursor='now')['cursor']}&wait=0.01")
    calls: list[tuple[bytes, str, str]] = []  # the request; what the answer must have
    for n in range(rng.choice((5, 100, 600))):
        create, text = post("/v1/users/create", username=f"{n}"), f"{n} " + "x" * rng.choice((0, 0, 3_000, 16_000))
        created = (f"{n}", "username")
        kinds = [(hot, "None", "messages"), (wait, "None", "messages"), (get(f"/v1/users/{ann}"), "ann", "username")]
        kinds += [(get("/nowhere"), "404", "status"), (send(ann, ann, text), text, "message"), (create, *created)]
        kinds += [(in_chunks(create, rng.randrange(1, 15)), *created), (with_h2c(create), *created)]
        calls.append(rng.choice(kinds))
    whole = b"".join(call for call, _, _ in calls)

    def write(raw: Raw) -> None:
        done = 0
        while done < len(whole):
            size = rng.choice((1, 7, 100, 4_096, 16_384, 70_000, 300_000))
            raw.say(whole[done : done + size])
            done += size

    with Raw(api.url) as raw:
        writer = threading.Thread(target=write, args=(raw,), daemon=True)
        writer.start()
        for _, expected, field in calls:
            assert str(json.loads(raw.body(raw.head()))[field]) == expected
        writer.join()
        said = json.dumps({"type": "send", "ref": "r", "receiverId": ann, "message": "hi"})
        raw.say(handshake(bob) + frame(said.encode()))
        assert raw.head().startswith("HTTP/1.1 101 ")
        assert raw.answers(1)[0]["message"]["message"] == "hi"
