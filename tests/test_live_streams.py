"""Streams as Server-Sent Events: how they are opened, kept, refused and ended."""

import re
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests import sockets
from tests.api_client import Api, refused, spoken
from tests.readers import Events, reading
from tests.server import ServerProcess, until


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server whose streams beat often, on which a user may hold three."""
    flags = ("--heartbeat-s", "0.2", "--waits-per-user-max", "3", "--allowed-origins", "https://app.example.com")
    with ServerProcess.start(tmp_path_factory.mktemp("streams"), *flags) as process, Api(process.url) as opened:
        yield opened


@pytest.fixture
def ann(api: Api) -> str:
    return api.user("ann")


@pytest.fixture
def bob(api: Api) -> str:
    return api.user("bob")


def head(url: str, path: str, *headers: str, method: str = "GET") -> str:
    """The head of an answer that may go on."""
    where = urlsplit(url)
    with closing(socket.create_connection((where.hostname, where.port), timeout=20)) as wire:
        wire.sendall("\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", "")).encode())
        said = b""
        while b"\r\n\r\n" not in said:
            said += wire.recv(65536)
        return said.partition(b"\r\n\r\n")[0].decode().lower()


def test_what_a_poll_refuses_a_stream_refuses(api: Api, ann: str, bob: str) -> None:
    """Nobody's, with a cursor that is none or somebody else's: told so before any event, with status and code."""
    stream = f"/v1/messages/{ann}/stream"
    theirs = api.poll(bob)["cursor"]
    refused(api.get("/v1/messages/nobody/stream"), 404, "unknown_user")
    refused(api.get(stream, cursor="x"), 400, "bad_cursor")
    refused(api.get(stream, cursor=theirs), 400, "bad_cursor")
    refused(api.get(stream, sent="all"), 400, "bad_sent")
    refused(api.client.get(stream, headers={"Last-Event-ID": "x"}), 400, "bad_cursor")
    refused(api.client.get(f"{stream}?sent=include&sent=include"), 400, "malformed")
    refused(api.client.post(stream), 405, "method_not_allowed")
    assert api.counted("tidings_streams") == 0


def test_what_it_says_of_itself(api: Api, ann: str) -> None:
    """The type of an event stream, which nothing on the way may keep or hold back; HEAD tells the same and ends."""
    stream = f"/v1/messages/{ann}/stream"
    for said in (head(api.url, stream), head(api.url, stream, method="HEAD")):
        assert said.startswith("http/1.1 200 ")
        assert "\r\ncontent-type: text/event-stream" in said
        assert "\r\ncache-control: no-store" in said
        assert "\r\nx-accel-buffering: no" in said
    assert api.client.head(stream).status_code == 200
    until(lambda: api.counted("tidings_streams") == 0)


def test_foreign_pages_have_no_streams(api: Api, ann: str) -> None:
    """A page of an allowed origin may read a stream; one of another origin, or host, can't open it."""
    stream = f"/v1/messages/{ann}/stream"
    allowed = head(api.url, stream, "Origin: https://app.example.com")
    assert "\r\naccess-control-allow-origin: https://app.example.com" in allowed
    assert "\r\nvary: origin" in allowed
    assert "access-control-allow-origin" not in head(api.url, stream)
    for foreign in ("Origin: https://evil.example.com", "Origin: null", "Sec-Fetch-Site: cross-site"):
        assert head(api.url, stream, foreign).startswith("http/1.1 403 ")
    said = spoken(api.url, f"GET {stream} HTTP/1.1\r\nHost: evil.example.com\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 403 ")


def test_without_a_place_it_begins_now(api: Api, ann: str, bob: str) -> None:
    """Neither `Last-Event-ID` nor `cursor`: when to come back is said first, then a cursor, then what comes."""
    api.private(ann, bob, "before")
    with closing(opened(api.url, f"{bob}/stream")) as wire, wire.makefile("r", encoding="utf-8") as lines:
        fields = (line.strip() for line in lines if re.match("(retry|id|event|data): ", line))
        assert next(fields) == "retry: 1000"
        cursor = next(fields).removeprefix("id: ")
        assert [next(fields), next(fields)] == ["event: heartbeat", f'data: {{"cursor":"{cursor}"}}']
        api.private(ann, bob, "after")
        assert '"message":"after"' in next(field for field in fields if "before" in field or "after" in field)
        assert api.texts(bob, cursor=cursor) == ["after"]


@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_heartbeats_keep_a_cursor_hot(tmp_path: Path, transport: str) -> None:
    """Bob's stream is idle while others write more than is remembered: with the cursor of its next heartbeat he polls
    without the store, which with the one before he would need."""
    flags = ("--heartbeat-s", "0.2", "--tail-max-bytes", "1", "--directory-max-heads", "1")
    with ServerProcess.start(tmp_path, *flags) as server, Api(server.url) as api, ExitStack() as stack:
        ann, bob = api.user("ann"), api.user("bob")
        events = stack.enter_context(closing(Events(api.url, bob, "now")))
        socket_ = stack.enter_context(sockets.opened(api.url, bob))

        def beat() -> str:
            if transport == "sse":
                return events.event("heartbeat")[1]
            return str(sockets.told_of(socket_, "heartbeat")["cursor"])

        first = beat()
        for n in range(20):
            api.private(ann, ann, str(n))

        def calls(cursor: str) -> float:
            api.poll(ann)  # whose mailbox is remembered instead of Bob's
            before = api.counted("tidings_store_calls_total")
            assert api.poll(bob, cursor=cursor)["messages"] is None
            return api.counted("tidings_store_calls_total") - before

        assert calls(first) > 0
        until(lambda: calls(beat()) == 0)  # behind those that were under way


def test_last_event_id_goes_before_the_address(api: Api, ann: str, bob: str) -> None:
    """A browser connects again to the same address: where it was counts, not where that began."""
    began = api.poll(bob)["cursor"]
    for text in ("one", "two"):
        api.private(ann, bob, text)
    with closing(Events(api.url, bob, began)) as stream:
        assert stream.next()["message"] == "one"
        cursor = stream.cursor
    client = httpx.Client(base_url=api.url, timeout=20)
    path = f"/v1/messages/{bob}/stream?cursor={began}"
    with client, client.stream("GET", path, headers={"Last-Event-ID": cursor}) as response:
        lines = response.iter_lines()
        assert '"message":"two"' in next(line for line in lines if line.startswith("data: {"))


def test_streams_of_a_user_are_few(api: Api, ann: str, bob: str) -> None:
    """A fourth stream of Bob's is refused, a long-poll as well; Ann's is not; when one has ended, another is taken."""
    with ExitStack() as stack:
        held = [stack.enter_context(closing(Events(api.url, bob, "now"))) for _ in range(3)]
        refused(api.get(f"/v1/messages/{bob}/stream"), 429, "too_many_waits")
        refused(api.get(f"/v1/messages/{bob}", wait=5, cursor=held[0].cursor), 429, "too_many_waits")
        stack.enter_context(closing(Events(api.url, ann, "now")))
        held[0].close()
        until(lambda: api.counted("tidings_streams") == 3)
        with closing(Events(api.url, bob, "now")) as another:
            api.private(ann, bob, "hi")
            assert another.next()["message"] == "hi"


def test_readers_that_take_nothing_hold_up_no_end(tmp_path: Path) -> None:
    """At SIGTERM some streams can't be told, since nobody reads them: the server ends within its time all the same."""
    flags = ("--grace-s", "5", "--waits-per-user-max", "100")
    with ServerProcess.start(tmp_path, *flags) as server, Api(server.url) as api, ExitStack() as stack:
        ann, eve = api.user("ann"), api.user("eve")
        cursor = api.poll(eve)["cursor"]
        for n in range(300):
            api.private(ann, eve, f"{n} " + "x" * 16_000)
        for _ in range(3):
            stack.enter_context(closing(opened(api.url, f"{eve}/stream?cursor={cursor}")))
            raw = stack.enter_context(sockets.Raw(api.url))
            raw.say(sockets.handshake(eve, query=f"?cursor={cursor}"))
        until(lambda: api.counted("tidings_streams") == 6)
        told = Events(api.url, ann, "now")
        assert server.terminate() == 0  # 1, and a word in the log, were it late
        assert told.ended()[-1][2]["code"] == "shutting_down"
        told.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stopping_server_sends_its_readers_away(tmp_path: Path, workers: str) -> None:
    """At SIGTERM each stream is told to come back, not all at once, and ends well; what comes later is resumed to."""
    with ServerProcess.start(tmp_path, "--workers", workers) as server, Api(server.url) as api:
        ann, bob = api.user("ann"), api.user("bob")
        streams = [Events(server.url, user, "now") for user in (ann, bob) * 5]
        api.private(ann, bob, "before")
        for stream in streams[1::2]:
            assert stream.next()["message"] == "before"
        assert server.terminate() == 0
        for stream in streams:
            kind, _, data = stream.ended()[-1]
            assert (kind, data["code"], data["retry"]) == ("closed", "shutting_down", True)
            stream.close()
        assert len({stream.retry for stream in streams}) > 1
        assert server.complaints == ""
    with ServerProcess.start(tmp_path, "--workers", workers) as server, Api(server.url) as api:
        api.private(ann, bob, "after")
        with reading("sse", server.url, bob, streams[1].cursor) as reader:
            assert reader.next()["message"] == "after"


def test_a_cursor_of_another_history_is_told(tmp_path: Path) -> None:
    """The store is put back to an older copy by hand: a stream from a later cursor is refused with 410."""
    with ServerProcess.start(tmp_path) as server, Api(server.url) as api:
        ann = api.user("ann")
        assert server.terminate() == 0
    before = (tmp_path / "tidings.db").read_bytes()
    with ServerProcess.start(tmp_path) as server, Api(server.url) as api:
        api.private(ann, ann, "note")
        cursor = api.poll(ann)["cursor"]
        assert server.terminate() == 0
    (tmp_path / "tidings.db").write_bytes(before)
    with ServerProcess.start(tmp_path) as server, Api(server.url) as api:
        refused(api.get(f"/v1/messages/{ann}/stream", cursor=cursor), 410, "cursor_of_another_history")
        with sockets.opened(api.url, ann, cursor=cursor) as socket_:
            assert sockets.closing(socket_) == (
                4410,
                {"code": "cursor_of_another_history", "retry": False, "after": 0},
            )


def test_who_leaves_at_any_moment_leaves_nothing(api: Api, ann: str) -> None:
    """Streams are asked for and left, some before they began: none goes on, and none counts as held."""
    where = f"{ann}/stream"
    for n in range(150):
        wire = opened(api.url, where)
        for _ in range(n % 4):
            wire.recv(10)
        if n % 2:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        wire.close()
    until(lambda: api.counted("tidings_streams") == api.counted("tidings_waits") == 0)
    api.private(ann, ann, "note")


def test_a_thousand_come_back_at_once(tmp_path: Path) -> None:
    """A thousand readers connect again together, each with something missed: none is refused, all is given."""
    with ServerProcess.start(tmp_path, "--workers", "2") as server, Api(server.url) as api:
        ann = api.user("ann")
        readers = [api.user(f"reader {n}") for n in range(100)]
        group = api.group("all", ann, *readers)
        cursors = {user: api.poll(user, cursor="now")["cursor"] for user in readers}
        api.groupwide(ann, group, "missed")

        with ExitStack() as stack:
            wires = [
                stack.enter_context(closing(opened(server.url, f"{reader}/stream?cursor={cursors[reader]}")))
                for reader in readers * 10
            ]
            for wire in wires:
                received = b""
                while b'"message":"missed"' not in received:
                    received += wire.recv(65536)
                assert received.startswith(b"HTTP/1.1 200 ")
            until(lambda: api.counted("tidings_streams") == len(wires) == 1_000)
        until(lambda: api.counted("tidings_streams") == 0)
        assert server.complaints == ""


def opened(url: str, what: str) -> socket.socket:
    """A connection on which a stream was asked for, and nothing read yet."""
    where = urlsplit(url)
    wire = socket.create_connection((where.hostname, where.port), 20)
    wire.sendall(f"GET /v1/messages/{what} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return wire
