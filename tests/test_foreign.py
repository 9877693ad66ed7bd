"""Clients that others wrote: npm's eventsource and ws, and curl, behind a proxy that cuts what they get anywhere."""

import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Protocol

import pytest

from tests.api_client import Api, Json
from tests.proxy import Cut, Proxy
from tests.readers import events_of
from tests.server import DEADLINE_S, ServerProcess

FOREIGN = Path(__file__).parent / "foreign"
BACKLOG = 5  # messages that wait already when readers come
MESSAGES_MAX = 1_000

without_npm = pytest.mark.skipif(
    not (shutil.which("node") and (FOREIGN / "node_modules").is_dir()),
    reason="there is no node, or its packages are missing: make foreign",
)
without_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")

# Each is where one connection of one reader ends. A stream: in the head of the answer; in a chunk's size and its end;
# in the id, the type and the data of an event; between the two line feeds that end it; between events.
STREAM_CUTS = [
    *(Cut(offset=n, by_reset=n == 150) for n in (0, 1, 150)),
    *(Cut(b"\r\n\r\n", 1, n) for n in (0, 1, 2, 4, 12, 20, 22)),
    *(Cut(b"\nid: ", 2, n, by_reset=n == 30) for n in (-5, -3, 0, 1, 30, 79)),
    *(Cut(b"event: message\n", nth, n) for nth in (1, 3) for n in (-15, -1, 0, 3, 6, 40)),
    *(Cut(b'"message":"', 2, n, by_reset=n == 2) for n in (0, 2, 4)),
    *(Cut(b"}\n\n", nth, n) for nth in (1, 2, 4) for n in (-3, -2, -1, 0, 1, 2, 3, 5, 7)),
    *(Cut(b"event: heartbeat\n", 1, n) for n in (-20, 0, 9)),
    *(Cut(offset=401 + 97 * n) for n in range(9)),
]
# A socket: in the answer to the handshake, in the header of a frame, in the cursor, in the text, between frames.
SOCKET_CUTS = [
    *(Cut(offset=n, by_reset=n == 60) for n in (0, 1, 60)),
    *(Cut(b"\r\n\r\n", 1, n) for n in (-2, 0, 1, 2, 3, 4, 5)),
    *(Cut(b'"type":"message"', nth, n, by_reset=n == 9) for nth in (1, 2, 4) for n in (-15, 0, 9, 30, 120)),
    *(Cut(b"}}", nth, n) for nth in (1, 2, 3) for n in (-2, -1, 0, 1, 2, 3, 4, 5)),
    *(Cut(offset=301 + 89 * n) for n in range(9)),
]
READERS = 12  # at a time, each with a share of the cuts: reconnecting takes a second


class Foreign(Protocol):
    """Programs that follow; what each printed is put into a queue, as (which of them, message, cursor)."""

    heard: "queue.Queue[tuple[int, Json, str]]"

    def close(self) -> None:
        """End them."""


class Node:
    """One Node process that follows all the URLs."""

    def __init__(self, script: str, urls: Sequence[str]) -> None:
        self.heard: queue.Queue[tuple[int, Json, str]] = queue.Queue()
        command = ["node", str(FOREIGN / script), *urls]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._thread = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._thread.start()

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            told = json.loads(line)
            # What failed is shown where a message is compared.
            self.heard.put((told["reader"], told.get("message") or told, told.get("cursor", "")))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join(DEADLINE_S)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Curl:
    """A curl for each URL, started again from the last id whenever it ends."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.heard: queue.Queue[tuple[int, Json, str]] = queue.Queue()
        self._is_closed = threading.Event()
        self._running: list[subprocess.Popen[str] | None] = [None] * len(urls)
        self._threads = [threading.Thread(target=self._follow, args=pair, daemon=True) for pair in enumerate(urls)]
        for thread in self._threads:
            thread.start()

    def _follow(self, reader: int, url: str) -> None:
        cursor = ""
        while not self._is_closed.wait(0.05):
            command = ["curl", "--silent", "--no-buffer", *(("-H", f"Last-Event-ID: {cursor}") if cursor else ()), url]
            with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
                self._running[reader] = process
                if self._is_closed.is_set():
                    process.kill()
                assert process.stdout is not None
                for kind, number, data in events_of(whole(process.stdout)):
                    cursor = number or cursor
                    if kind == "message":
                        self.heard.put((reader, data, cursor))

    def close(self) -> None:
        self._is_closed.set()
        for process in self._running:
            if process is not None:
                process.kill()
        for thread in self._threads:
            thread.join(DEADLINE_S)


def whole(lines: IO[str]) -> Iterator[str]:
    """Lines without their ends; the rest of one that was cut is none."""
    return (line.removesuffix("\n") for line in lines if line.endswith("\n"))


def eventsource(urls: Sequence[str]) -> Foreign:
    return Node("eventsource.mjs", urls)


def ws(urls: Sequence[str]) -> Foreign:
    return Node("ws.mjs", urls)


Start = Callable[[Sequence[str]], Foreign]
CLIENTS = [
    pytest.param(eventsource, "stream", STREAM_CUTS, marks=without_npm, id="eventsource"),
    pytest.param(ws, "live", SOCKET_CUTS, marks=without_npm, id="ws"),
    pytest.param(Curl, "stream", STREAM_CUTS, marks=without_curl, id="curl"),
]


@pytest.fixture
def api(two_workers: ServerProcess) -> Iterator[Api]:
    with Api(two_workers.url) as opened:
        yield opened


@contextmanager
def followed(
    api: Api, client: Start, path: str, cuts: Sequence[Cut], readers: Sequence[str]
) -> Iterator[tuple[Foreign, list[Proxy]]]:
    """Readers' streams, each through a proxy of its own that has a share of the cuts."""
    with ExitStack() as stack:
        proxies = [stack.enter_context(Proxy(api.url, cuts[n :: len(readers)])) for n in range(len(readers))]
        urls = [
            f"{proxy.url}/v1/messages/{reader}/{path}?cursor={api.poll(reader)['cursor']}"
            for proxy, reader in zip(proxies, readers, strict=True)
        ]
        foreign = client(urls)
        stack.callback(foreign.close)
        yield foreign, proxies


@pytest.mark.parametrize(("client", "path", "cuts"), CLIENTS)
def test_cut_anywhere_each_message_comes_once(api: Api, client: Start, path: str, cuts: list[Cut]) -> None:
    """Readers are cut at every kind of place, again and again, while Ann talks: each has all she said, in order."""
    ann = api.user("ann")
    readers = [api.user(f"bob {n}") for n in range(READERS)]
    hikers = api.group("hikers", ann, *readers)
    api.groupwide(ann, hikers, "before")
    sent: list[Json] = []
    got: list[list[Json]] = [[] for _ in readers]
    with followed(api, client, path, cuts, readers) as (foreign, proxies):

        def take() -> None:
            reader, message, cursor = foreign.heard.get(timeout=DEADLINE_S)
            assert message == sent[len(got[reader])], f"reader {reader}, {len(got[reader])} before"
            assert cursor
            got[reader].append(message)

        while any(proxy.cuts_left for proxy in proxies) and len(sent) < MESSAGES_MAX:
            sent.append(api.groupwide(ann, hikers, f"word {len(sent)}"))
            if len(sent) > BACKLOG:
                while sum(len(messages) == len(sent) for messages in got) < READERS / 3:
                    take()
        assert [proxy.cuts_left for proxy in proxies] == [0] * READERS
        sent.append(api.groupwide(ann, hikers, "the last word"))
        while any(len(messages) < len(sent) for messages in got):
            take()
        assert foreign.heard.empty()
        assert all(proxy.connections > len(cuts[n::READERS]) for n, proxy in enumerate(proxies))
