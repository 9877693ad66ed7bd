"""The audience of the bench, which counts what streams give: it hears a real server, and what is wrong it tells."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from bench.audience import Heard, Leave, Open, Say
from bench.load import KEY
from bench.processes import Audience, Failed
from bench.scenes.live import TRANSPORTS, Transport, post
from bench.world import ACCEPTED
from tests.scene import scene
from tests.server import ServerProcess
from tidings import Client

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n{"messageId":"message-1"}'


@contextmanager
def broadcasting(*events: bytes, status: bytes = b"200 OK") -> Iterator[int]:
    """A server with one stream: a message that is posted is followed by these events, with its number; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        stream, _ = listener.accept()
        with stream, suppress(OSError):  # the other side may end first, whatever it found
            stream.recv(65536)
            stream.sendall(b"HTTP/1.1 %b\r\n\r\nevent: heartbeat\n\n" % status)
            sender, _ = listener.accept()
            with sender:
                while posted := sender.recv(65536):
                    sender.sendall(ANSWER)
                    for event in events:
                        said = event.replace(b"?", posted[-16:])
                        stream.sendall(said[:-9])  # a right event may come in parts
                        stream.sendall(said[-9:])
                    if not events:
                        stream.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(20)


HEARD = b'data: {"message":"?"}\n\n'


@pytest.mark.parametrize(
    ("events", "status", "complaint"),
    [
        ((HEARD, HEARD), b"200 OK", "too often"),
        ((b'data: {"message":"00000000000000ff"}\n\n',), b"200 OK", "was not sent"),
        ((), b"200 OK", "closed a stream"),
        ((HEARD,), b"503 Service Unavailable", "503"),
    ],
)
def test_a_wrong_stream_ends_an_act(events: tuple[bytes, ...], status: bytes, complaint: str) -> None:
    """A message that comes twice or from nowhere, and a stream that is refused or ends: told, and no figure is made."""
    with Audience(min(os.sched_getaffinity(0))) as audience:
        with broadcasting(HEARD) as port:
            heard = _heard(audience, port)
        with broadcasting(*events, status=status) as port, pytest.raises(Failed, match=complaint):
            _heard(audience, port)
    assert (heard.sent, heard.deliveries) == (3, 3)


@pytest.mark.parametrize("transport", TRANSPORTS, ids=lambda transport: transport.name)
@scene
async def test_an_audience_hears_a_server(server: ServerProcess, transport: Transport) -> None:
    """Over each transport, Ann's messages to a group come to all three streams, each once."""
    port = int(server.url.rpartition(":")[2])
    async with Client(server.url) as tidings:
        ann, *others = [(await tidings.create_user(name)).user_id for name in ("ann", "bob", "carol", "eve")]
        group = (await tidings.create_group("hikers")).group_id
        for user in (ann, *others):
            await tidings.add_member(group, user)
    heads = [transport.head(user) for user in others]
    with Audience(min(os.sched_getaffinity(0))) as audience:
        audience.play(Open(port, heads, transport.status, transport.ping, transport.pong))
        for per_s in (0.0, 500.0):
            heard = audience.play(Say(port, [post("group", ann, "groupId", group)], ACCEPTED, 20, 3, [], [0], per_s))
            assert (heard.sent, heard.deliveries) == (20, 60)
            assert 0 < heard.p50_ms <= heard.p99_ms <= heard.max_ms
        audience.play(Leave())


def _heard(audience: Audience, port: int) -> Heard:
    """Three messages, to one stream."""
    audience.play(Open(port, ["GET / HTTP/1.1\r\n\r\n"], "HTTP/1.1 200 "))
    heard = audience.play(Say(port, [f"POST / HTTP/1.1\r\n\r\n{KEY.decode()}"], "message-1", 3, 1, [], [0]))
    audience.play(Leave())
    return heard
