"""Clients that do not read what they are given: what they cost is bounded, they are cut, and leave nothing."""

import json
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from tests.api_client import Api
from tests.readers import reading, texts
from tests.seats import held_by
from tests.server import ServerProcess, memory, until
from tests.sockets import CLOSE, PING, Raw, frame, handshake
from tests.sockets import TEXT as TEXT_FRAME

BUFFER = 4096  # for which the kernel has room at the reader's end
TEXT = "x" * 16_000
MANY = 500  # such texts: more than the kernels of both ends take, 2.5 MB here
TAIL = 8_000_000 * 1.6  # what so many take in the tail
QUEUE = 2_000_000  # bytes: what a stream may keep for its reader, a page of long texts
ROUNDS = 3
READERS = 20

STREAMS: dict[str, Callable[[str, str], bytes]] = {
    "sse": lambda user, cursor: (
        f"GET /v1/messages/{user}/stream?cursor={cursor} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    ),
    "websocket": lambda user, cursor: handshake(user, query=f"?cursor={cursor}"),
}
every_stream = pytest.mark.parametrize("transport", STREAMS)


def stalled(url: str, transport: str, user: str, cursor: str) -> socket.socket:
    """A stream whose answer has begun, and is read no further."""
    raw = Raw(url, receive_buffer=BUFFER)
    raw.say(STREAMS[transport](user, cursor))
    assert raw.wire.recv(9) == b"HTTP/1.1 "
    return raw.wire


@every_stream
def test_a_reader_that_does_not_read(tmp_path: Path, transport: str) -> None:
    """Eve opens streams and never reads: they are cut with a word in the log, memory stays, and nothing is missed."""
    # Long enough for all to be sent before the kernel, which waits twice as long, finds that nothing is taken.
    with ServerProcess.start(tmp_path, "--keep-alive-s", "4") as server, Api(server.url) as api, ExitStack() as stack:
        ann, eve = api.user("ann"), api.user("eve")
        cursor = api.poll(eve)["cursor"]
        for _ in range(5):
            stack.enter_context(closing(stalled(server.url, transport, eve, cursor)))
        until(lambda: api.counted("tidings_streams") == 5)
        before = memory(server.pid)
        for n in range(MANY):
            api.private(ann, eve, f"{n} {TEXT}")
        until(lambda: api.counted("tidings_streams") == 0, within_s=60)
        grown = memory(server.pid) - before
        assert grown < TAIL + 5 * QUEUE, f"{grown:,} bytes"
        server.wait_for_error("broke off: the client stopped reading")
        with reading(transport, server.url, eve, cursor) as reader:
            last = f"{MANY - 1} {TEXT}"
            assert [text.split()[0] for text in texts(reader, last)] == [str(n) for n in range(MANY)]


def test_who_reads_again_in_time_is_told_why(tmp_path: Path) -> None:
    """Eve reads on when she was given up, and finds behind what was written for her the code, and to come back at once;
    from the last cursor she goes on."""
    with ServerProcess.start(tmp_path, "--keep-alive-s", "1") as server, Api(server.url) as api:
        ann, eve = api.user("ann"), api.user("eve")
        cursor = api.poll(eve)["cursor"]
        for n in range(MANY):
            api.private(ann, eve, f"{n} {TEXT}")
        with Raw.shaken(server.url, eve, query=f"?cursor={cursor}", receive_buffer=BUFFER) as raw:
            server.wait_for_error("live broke off: the client stopped reading")
            said = [raw.frame()]
            while said[-1][0] != CLOSE:
                said.append(raw.frame())
        assert said[-1][1] == struct.pack("!H", 4408) + b'{"code":"slow_reader","retry":true,"after":0.0}'
        given = [json.loads(payload) for opcode, payload in said if opcode == TEXT_FRAME]
        with reading("websocket", server.url, eve, given[-1]["cursor"]) as reader:
            rest = texts(reader, f"{MANY - 1} {TEXT}")
        got = [told["message"]["message"] for told in given] + rest
        assert [text.split()[0] for text in got] == [str(n) for n in range(MANY)]


def test_who_reads_events_again_in_time_is_told_why(tmp_path: Path) -> None:
    """The same for events: the last one has the code, and that Eve may come back."""
    with ServerProcess.start(tmp_path, "--keep-alive-s", "1") as server, Api(server.url) as api:
        ann, eve = api.user("ann"), api.user("eve")
        cursor = api.poll(eve)["cursor"]
        for n in range(MANY):
            api.private(ann, eve, f"{n} {TEXT}")
        with closing(stalled(server.url, "sse", eve, cursor)) as wire, wire.makefile("rb") as lines:
            server.wait_for_error("stream broke off: the client stopped reading")
            fields = [line for line in lines if line.startswith((b"event: ", b"data: "))]
        assert fields[-2] == b"event: closed\n"
        told = json.loads(fields[-1].removeprefix(b"data: "))
        assert (told["code"], told["retry"]) == ("slow_reader", True)


@every_stream
def test_what_a_slow_reader_took_is_given_back(tmp_path: Path, transport: str) -> None:
    """Eve comes with twenty streams that she never reads, is cut, and comes again: it takes the memory of before."""
    flags = ("--keep-alive-s", "1", "--waits-per-user-max", "100")
    with ServerProcess.start(tmp_path, *flags) as server, Api(server.url) as api:
        ann, eve = api.user("ann"), api.user("eve")
        cursor = api.poll(eve)["cursor"]
        for n in range(MANY):
            api.private(ann, eve, f"{n} {TEXT}")
        own = held_by(server, server.pid)
        before, most = memory(server.pid), list[int]()
        for _ in range(ROUNDS):
            with ExitStack() as stack:
                for _ in range(READERS):
                    stack.enter_context(closing(stalled(server.url, transport, eve, cursor)))
                until(lambda: api.counted("tidings_streams") == 0)
                until(lambda: held_by(server, server.pid) <= own)
            most.append(memory(server.pid, "VmHWM") - before)
        assert READERS * 200_000 < most[0] < READERS * QUEUE, f"{most} bytes"  # something was kept for them
        # Not what is resident afterwards: whether malloc returns what was freed depends on what lies behind it.
        assert most[-1] - most[0] < most[0] / 2, f"{most} bytes"


FLOODS: dict[str, bytes] = {
    "sends": json.dumps({"type": "send", "receiverId": "{ann}", "message": "hi"}).encode(),
    "what asks for nothing": b"{}",
    "pings": bytes(100),
}
FLOOD = 24_000_000  # bytes: twice what the kernels of both ends keep for a server that reads no more


@pytest.mark.parametrize("flood", [pytest.param("sends", marks=pytest.mark.slow), "what asks for nothing", "pings"])
def test_a_client_that_does_not_read_its_answers(tmp_path: Path, flood: str) -> None:
    """Eve sends without end and reads no answer: soon no more is read from her, memory stays, and she is cut."""
    flags = ("--keep-alive-s", "2", "--tail-max-bytes", "0")
    with ServerProcess.start(tmp_path, *flags) as server, Api(server.url) as api:
        said = FLOODS[flood].replace(b"{ann}", api.user("ann").encode())
        frames = frame(said, PING if flood == "pings" else TEXT_FRAME) * 500
        with Raw.shaken(server.url, api.user("eve"), receive_buffer=BUFFER) as raw:
            seen = [memory(server.pid)]
            left = FLOOD // len(frames)
            with suppress(OSError):  # she is read no more, or cut by now
                while left := left - 1:
                    raw.say(frames)
                    seen.append(memory(server.pid))
            assert left
        assert max(seen) - seen[0] < QUEUE, f"{max(seen) - seen[0]:,} bytes"
        until(lambda: api.counted("tidings_streams") == api.counted("tidings_waits") == 0)
        server.wait_for_error("live broke off: the client stopped reading")
