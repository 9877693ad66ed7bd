"""Plain sends are answered without ASGI: on the wire they must be told from others by nothing but their speed.

A header given twice (`X-Twice`) sends the same call by the routes.
"""

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.api_client import Api, spoken
from tests.server import DEADLINE_S, ServerProcess, until
from tests.test_bounds import holding_the_file
from tests.test_hot_polls import answers
from tests.test_protocol import connect, until_closed

SEND = "/v1/messages/send?type=private"
LAST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
BY_ROUTE = ("X-Twice: 1", "X-Twice: 2")


@pytest.fixture(scope="module")
def api(server: ServerProcess) -> Iterator[Api]:
    with Api(server.url) as opened:
        yield opened


@pytest.fixture
def ann(api: Api) -> str:
    return api.user("ann")


@pytest.fixture
def bob(api: Api) -> str:
    return api.user("bob")


def post(body: bytes, *headers: str, path: str = SEND, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def private(sender: str, receiver: str, text: str) -> bytes:
    return json.dumps({"senderId": sender, "receiverId": receiver, "message": text}).encode()


def counted(api: Api, status: str) -> float:
    wanted = f'tidings_requests_total{{method="POST",route="/v1/messages/send",status="{status}"}}'
    lines = api.get("/metrics").text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith(wanted))


def test_sends_behind_one_another_are_answered_in_order(api: Api, ann: str, bob: str) -> None:
    """Three sends and a look at a user in one packet: each answer comes in its place, each message in its order."""
    first, second, third = (post(private(ann, bob, text)) for text in ("one", "two", "three"))
    show = f"GET /v1/users/{ann} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    received = answers(spoken(api.url, first + second + show + third + LAST, until_closed=True))
    assert [status for status, _, _ in received] == [200] * 5
    bodies = [json.loads(body) for _, _, body in received]
    assert [body.get("message") for body in bodies] == ["one", "two", None, "three", None]
    assert [bodies[index]["seq"] for index in (0, 1, 3)] == [1, 2, 3]
    assert api.texts(bob) == ["one", "two", "three"]


def test_a_body_may_come_in_pieces(api: Api, ann: str, bob: str) -> None:
    """A head in two parts and a body byte by byte, the server busy with others in between: one message."""
    whole = post(private(ann, bob, "in pieces"))
    middle = whole.index(b"\r\n\r\n")
    with closing(socket.create_connection(("127.0.0.1", int(api.url.rpartition(":")[2])), DEADLINE_S)) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in (whole[:middle], whole[middle : middle + 10], *(bytes([byte]) for byte in whole[middle + 10 :])):
            wire.sendall(piece)
            if len(piece) > 1:
                api.get("/")  # by its answer the server has taken the piece
        wire.sendall(LAST)
        (status, _, body), _ = answers(until_closed(wire))
    assert (status, json.loads(body)["message"]) == (200, "in pieces")
    assert api.texts(bob) == ["in pieces"]


REFUSED = [
    (b"{", ()),
    (b"", ()),
    (b"[]", ()),
    (b'{"senderId": 1, "receiverId": "x", "message": "m"}', ()),
    (b'{"senderId": "x", "message": "m"}', ()),
    (b'{"senderId": "x", "receiverId": "y", "message": ""}', ()),
    (b'{"senderId": "x", "receiverId": "y", "recipientId": "z", "message": "m"}', ()),
    (b'{"senderId": "x", "receiverId": "nobody", "message": "m"}', ()),
    (b'{"senderId": "x", "receiverId": "nobody", "message": "' + b"x" * 16_385 + b'"}', ()),
    (b'{"senderId": "x", "receiverId": "nobody", "message": "\xff"}', ()),
    (b'{"senderId": "x", "receiverId": "nobody", "message": "m"}', ("Idempotency-Key: no blanks",)),
    (b'{"senderId": "x", "receiverId": "nobody", "message": "m"}', ("Origin: https://evil.example",)),
    (b'{"senderId": "x", "receiverId": "nobody", "message": "m"}', ("Sec-Fetch-Site: cross-site",)),
    (b'{"message": "' + b"x" * 65_536 + b'"}', ()),
]


@pytest.mark.parametrize(("body", "headers"), REFUSED, ids=range(len(REFUSED)))
@pytest.mark.parametrize("kind", ["private", "group", "other"])
def test_a_refusal_is_the_routes_own(api: Api, body: bytes, headers: tuple[str, ...], kind: str) -> None:
    """Everything that can be wrong with a send: status, headers and body are those of the same call by the routes."""
    path = f"/v1/messages/send?type={kind}"
    ((status, told, said), *_) = answers(spoken(api.url, post(body, *headers, path=path) + LAST, until_closed=True))
    sent = post(body, *headers, *BY_ROUTE, path=path)
    ((other_status, other_told, other_said), *_) = answers(spoken(api.url, sent + LAST, until_closed=True))
    assert status in (400, 403, 404, 413)
    assert (status, said) == (other_status, other_said)
    assert list({**told, "date": ""}.items()) == list({**other_told, "date": ""}.items())


def test_an_answer_is_the_routes_own(api: Api, ann: str, bob: str) -> None:
    """The same send twice under one key, once plainly and once by the routes: one answer, one message; each counted."""
    before = counted(api, "200")
    sent = [post(private(ann, bob, "once"), "Idempotency-Key: k", *more) for more in ((), BY_ROUTE, ())]
    received = answers(spoken(api.url, b"".join(sent) + LAST, until_closed=True))[:3]
    assert {(status, body) for status, _, body in received} == {(200, received[0][2])}
    assert len({tuple({**headers, "date": ""}.items()) for _, headers, _ in received}) == 1
    assert api.texts(bob) == ["once"]
    assert counted(api, "200") == before + 3


def test_an_answer_has_the_date_of_its_time(api: Api, ann: str, bob: str) -> None:
    """Sends and hot polls go on, and the Date of their answers goes on with them."""
    cursor = api.poll(ann)["cursor"]
    poll = f"GET /v1/messages/{ann}?cursor={cursor} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    def dates() -> list[str]:
        received = answers(spoken(api.url, post(private(ann, bob, "hello")) + poll + LAST, until_closed=True))
        return [headers["date"] for _, headers, _ in received[:2]]

    before = dates()
    until(lambda: all(now != then for now, then in zip(dates(), before, strict=True)))


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_find_no_send(api: Api, ann: str, bob: str, method: str) -> None:
    """A send by another method is 405, with Allow, and nothing is sent."""
    said = spoken(api.url, post(private(ann, bob, "no"), "Connection: close", method=method), until_closed=True)
    assert said.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nallow: POST\r\n" in said
    assert api.poll(bob)["messages"] is None


def test_who_asks_first_is_told_to_go_on(api: Api, ann: str, bob: str) -> None:
    """A client that waits for 100 Continue before its body gets it, then its answer."""
    head, _, body = post(private(ann, bob, "expected"), "Expect: 100-continue").partition(b"\r\n\r\n")
    with closing(socket.create_connection(("127.0.0.1", int(api.url.rpartition(":")[2])), DEADLINE_S)) as wire:
        wire.sendall(head + b"\r\n\r\n")
        assert wire.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.sendall(body + LAST)
        assert answers(until_closed(wire))[0][0] == 200
    assert api.texts(bob) == ["expected"]


def test_the_last_request_of_a_connection_is_answered_alike(api: Api, ann: str, bob: str) -> None:
    """A send that announces the connection's end, or an old client's, gets the same answer."""
    closing_one = post(private(ann, bob, "one"), "Connection: close")
    old = post(private(ann, bob, "two")).replace(b"HTTP/1.1", b"HTTP/1.0")
    for seq, sent in enumerate((closing_one, old), 1):
        ((status, headers, body),) = answers(spoken(api.url, sent, until_closed=True))
        assert (status, json.loads(body)["seq"], headers["connection"]) == (200, seq, "close")


def test_half_a_body_is_no_send(api: Api, ann: str, bob: str) -> None:
    """A client that leaves within the body sent nothing, though what came is JSON; it is counted as gone."""
    before = counted(api, "gone")
    body = private(ann, bob, "half")
    spoken(api.url, post(body).replace(b"Content-Length: ", b"Content-Length: 1") + body, and_close=True)
    until(lambda: counted(api, "gone") == before + 1)
    assert api.poll(bob)["messages"] is None


def test_a_client_that_leaves_before_the_answer_has_sent(tmp_path: Path) -> None:
    """A send is under way when its client hangs up: the message arrives, others are answered, nothing is logged."""
    with ServerProcess.start(tmp_path) as server, Api(server.url) as api:
        ann, bob = api.user("ann"), api.user("bob")
        with holding_the_file(tmp_path):
            with connect(server) as wire:
                wire.sendall(post(private(ann, bob, "gone")))
                until(lambda: api.counted("tidings_writes_waiting") == 1)
            until(lambda: counted(api, "200") == 0)
        until(lambda: api.texts(bob) == ["gone"])
        api.private(ann, bob, "after")
        assert api.texts(bob) == ["gone", "after"]
        assert server.complaints == ""


def test_a_send_in_flight_at_sigterm_is_answered(tmp_path: Path) -> None:
    """SIGTERM while sends wait for the file: both are answered 200 once it is free, the last words of clean ends."""
    with ServerProcess.start(tmp_path, "--keep-alive-s", "60", "--grace-s", "60") as server:
        with Api(server.url) as api, connect(server) as one, connect(server) as two:
            ann, bob = api.user("ann"), api.user("bob")
            with holding_the_file(tmp_path):
                one.sendall(post(private(ann, bob, "one")))
                whole = post(private(ann, bob, "two"))
                two.sendall(whole[:-5])  # its head is taken, its body not whole
                until(lambda: api.counted("tidings_writes_waiting") == 1)
                server.signal(signal.SIGTERM)
                until(lambda: refuses_connections(server))
                two.sendall(whole[-5:])
            for wire, text in ((one, "one"), (two, "two")):
                ((status, headers, body),) = answers(until_closed(wire))
                assert (status, headers["connection"], json.loads(body)["message"]) == (200, "close", text)
        assert server.wait() == 0
        assert server.complaints == ""
    with ServerProcess.start(tmp_path) as server, Api(server.url) as api:
        assert api.texts(bob) == ["one", "two"]


def refuses_connections(server: ServerProcess) -> bool:
    try:
        connect(server).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("begun", [b"", post(private("user-a", "user-b", "slow"))[:-3]], ids=["idle", "half"])
def test_a_connection_that_sent_before_is_closed_when_idle(tmp_path: Path, begun: bytes) -> None:
    """After a plain send the connection is kept for the idle time, not for ever, whether or not another one begins."""
    with ServerProcess.start(tmp_path, "--keep-alive-s", "1") as server, Api(server.url) as api:
        ann, bob = api.user("ann"), api.user("bob")
        with connect(server) as wire:
            wire.sendall(post(private(ann, bob, "hello")) + begun)
            assert answers(until_closed(wire))[0][0] == 200
