"""Reading a long mailbox whole: streamed page by page, and cut off, never cut short, when something fails."""

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.api_client import Api, Json
from tests.bad_input import connected, sockets
from tests.cluster import api_of, nodes
from tests.server import ServerProcess, until

LENGTH = 300
COLD = ("--page-max", "50", "--tail-window-s", "0")  # every read is a read of the store


@pytest.fixture(scope="module", params=[ServerProcess.start, nodes], ids=["one machine", "two nodes"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server with small pages, so that a few hundred messages are many; and two nodes like it."""
    with request.param(tmp_path_factory.mktemp("streaming"), *COLD) as serving, api_of(serving) as opened:
        yield opened


@pytest.fixture(scope="module")
def ann(api: Api) -> str:
    """Ann, with a long mailbox and messages in a group."""
    ann = api.user("ann")
    group = api.group("hikers", ann)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: fill(api, ann, group, n), range(LENGTH)))
    return ann


def fill(api: Api, ann: str, group: str, n: int) -> Json:
    return api.private(ann, ann, f"{n}") if n % 3 else api.groupwide(ann, group, f"{n}")


def test_a_long_mailbox_comes_as_one_document(api: Api, ann: str) -> None:
    """Messages of many pages, each once, oldest first; then the cursor, and after it there is no news."""
    answer = api.get(f"/v1/messages/{ann}")
    assert answer.headers["transfer-encoding"] == "chunked"
    whole = answer.json()
    assert list(whole) == ["messages", "cursor"]
    assert sorted(int(message["message"]) for message in whole["messages"]) == list(range(LENGTH))
    stamps = [int(message["timestamp"]) for message in whole["messages"]]
    assert stamps == sorted(stamps)
    assert api.poll(ann, cursor=whole["cursor"])["messages"] is None


def test_it_is_the_same_as_its_pages(api: Api, ann: str) -> None:
    """Streamed whole, read by limit and cursor, and by timestamp: the same messages in the same order."""
    whole = api.poll(ann)["messages"]
    by_cursor, answer = [], api.poll(ann, limit=37)
    by_cursor += answer["messages"]
    while answer.get("more"):
        answer = api.poll(ann, limit=37, cursor=answer["cursor"])
        by_cursor += answer["messages"]
    assert by_cursor == whole
    assert api.poll(ann, timestamp=1) == {"messages": whole}
    later = api.poll(ann, timestamp=whole[99]["timestamp"])
    assert later == {"messages": [m for m in whole if int(m["timestamp"]) > int(whole[99]["timestamp"])]}


def test_a_wait_without_limit_streams_what_there_is(api: Api, ann: str) -> None:
    """News is there, so nothing waits, and everything comes."""
    assert len(api.poll(ann, wait=30)["messages"]) == LENGTH


def test_head_of_a_long_mailbox_has_no_body(api: Api, ann: str) -> None:
    """HEAD is answered, and the connection goes on."""
    for _ in range(2):
        assert api.client.head(f"/v1/messages/{ann}").content == b""
    assert api.get("/healthz").status_code == 200


def test_a_removal_ends_what_is_read_of_the_group_between_two_pages(api: Api) -> None:
    """Ann reads megabytes of a group, slowly, and is removed meanwhile: what was not sent yet never comes."""
    ann, length = api.user("ann"), 800
    group = api.group("hikers", ann)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: api.groupwide(ann, group, "x" * 16_000), range(length)))
    api.private(ann, ann, "the end")
    small = httpx.HTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 262_144)])
    with httpx.Client(base_url=api.url, transport=small) as slow, slow.stream("GET", f"/v1/messages/{ann}") as answer:
        pieces = answer.iter_raw()
        got = [next(pieces)]
        api.remove(group, ann)
        got.extend(pieces)
    whole = json.loads(b"".join(got))
    assert [message["seq"] for message in whole["messages"][:-1]] == list(range(1, len(whole["messages"])))
    assert 16 < len(whole["messages"]) < length  # a page has room for 16
    assert whole["messages"][-1]["message"] == "the end"
    assert api.poll(ann, cursor=whole["cursor"])["messages"] is None


def broken(api: Api) -> float:
    found = re.search(
        r'^tidings_requests_total\{.*status="(?:broken|gone)"\} (\S+)$', api.get("/metrics").text, re.MULTILINE
    )
    return float(found[1]) if found else 0.0


def test_a_reader_who_stops_reading_is_cut(tmp_path: Path) -> None:
    """A client asks for megabytes and reads none: after the idle time its connection is given up."""
    with ServerProcess.start(tmp_path, *COLD, "--keep-alive-s", "1") as process, Api(process.url) as api:
        ann, where = api.user("ann"), urlsplit(api.url)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: api.private(ann, ann, "x" * 16_000), range(800)))
        before = sockets(process.pid)
        with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(f"GET /v1/messages/{ann} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            until(lambda: broken(api) == 1)
            until(lambda: sockets(process.pid) <= before, what="the connection is still held")


def test_a_client_who_asks_and_never_reads_is_cut(tmp_path: Path) -> None:
    """Polls one behind the other, whose answers nobody takes, hold the connection no longer than an idle one."""
    with ServerProcess.start(tmp_path, "--keep-alive-s", "1") as process, Api(process.url) as api:
        poll = f"GET /v1/messages/{api.user('ann')}?cursor=now HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        before = sockets(process.pid)
        with connected(process.url) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:  # until neither side's buffers take any more
                    connection.send(poll * 100)
            until(lambda: sockets(process.pid) <= before, what="the connection is still held")


def test_a_failure_half_way_is_no_short_answer(tmp_path: Path) -> None:
    """A page of the store is damaged: what lies before it comes, and then the connection breaks, within the JSON."""
    marker = "the damaged page "
    indexed = ("--index-lag-max", "0")  # else all of it lay in the log's end, which is read at once
    with ServerProcess.start(tmp_path, *COLD, *indexed) as process, Api(process.url) as api:
        ann = api.user("ann")
        for n in range(LENGTH):
            api.private(ann, ann, marker * 20 if n == LENGTH // 3 else "x" * 300)
        assert process.terminate() == 0
    damage(tmp_path / "tidings.db", marker.encode())
    with ServerProcess.start(tmp_path, *COLD) as process, httpx.Client(base_url=process.url) as client:
        got: list[bytes] = []
        with client.stream("GET", f"/v1/messages/{ann}") as answer:
            assert answer.status_code == 200
            with pytest.raises(httpx.RemoteProtocolError):
                got.extend(answer.iter_raw())
        assert got[0].startswith(b'{"messages":[{"senderId"')
        with pytest.raises(json.JSONDecodeError):
            json.loads(b"".join(got))
        process.wait_for_error(r"GET /v1/messages/\{userId\} broke off: store_corrupt")
        assert "Traceback" not in process.errors
        assert client.get("/healthz").status_code == 200


def damage(path: Path, marker: bytes) -> None:
    """Wipe the pages of a database file that hold these bytes."""
    content = bytearray(path.read_bytes())
    size = int.from_bytes(content[16:18], "big")  # https://sqlite.org/fileformat.html, 1.3.2
    places = [found.start() for found in re.finditer(re.escape(marker), content)]
    assert places
    for place in places:
        start = place - place % size
        content[start : start + size] = bytes(size)
    path.write_bytes(content)
