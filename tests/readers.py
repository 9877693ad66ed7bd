"""Readers of every transport, alike: given messages from a cursor on, each has the cursor after what it gave."""

import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Protocol

import httpx

from tests.api_client import Json
from tests.server import DEADLINE_S
from tests.sockets import opened, told, told_of

TRUST = httpx.create_ssl_context()  # made once: each takes 20 ms


class Reader(Protocol):
    """One who reads; `cursor` is what the last message was given with, or how far there was nothing."""

    cursor: str

    def next(self) -> Json:
        """The next message, waited for."""

    def close(self) -> None:
        """Read no more."""


class Polling:
    """Asks for one message at a time, and waits `wait_s` seconds for it if there is none."""

    wait_s = 0.0

    def __init__(self, url: str, user_id: str, cursor: str, *, sent: bool = False) -> None:
        self._client = httpx.Client(base_url=url, timeout=30, verify=TRUST)
        self._path = f"/v1/messages/{user_id}"
        self._params = {"limit": "1", "wait": str(self.wait_s), **({"sent": "include"} if sent else {})}
        self.cursor = cursor
        if cursor == "now":
            self._ask()

    def next(self) -> Json:
        for _ in range(10_000):
            messages = self._ask()
            if messages:
                return messages[0]
        raise AssertionError("nothing comes")

    def close(self) -> None:
        self._client.close()

    def _ask(self) -> list[Json]:
        answer = self._client.get(self._path, params={**self._params, "cursor": self.cursor})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        self.cursor = body["cursor"]
        messages: list[Json] = body["messages"] or []
        return messages


class LongPolling(Polling):
    """The same, waiting."""

    wait_s = 20.0


class Events:
    """What came over a stream, put into a queue by a thread; `cursor` is that of the last thing taken out of it."""

    def __init__(self, url: str, user_id: str, cursor: str, *, sent: bool = False, by_header: bool = True) -> None:
        self.cursor = ""
        self.retry = 0  # ms, as last said
        self._queue: queue.Queue[tuple[str, str, Json] | None] = queue.Queue()
        self._client = httpx.Client(base_url=url, timeout=DEADLINE_S, verify=TRUST)
        self._url = f"/v1/messages/{user_id}/stream"
        self._params = {"sent": "include"} if sent else {}
        self._headers = {}
        if by_header and cursor != "now":
            self._headers["Last-Event-ID"] = cursor
        else:
            self._params["cursor"] = cursor
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        if cursor == "now":
            self.event("heartbeat")

    def event(self, *kinds: str) -> tuple[str, str, Json]:
        """The next event of one of these kinds (any, if none is named): kind, id, data."""
        while True:
            event = self._queue.get(timeout=DEADLINE_S)
            assert event is not None, "the stream has ended"
            self.cursor = event[1] or self.cursor
            if not kinds or event[0] in kinds:
                return event

    def next(self) -> Json:
        return self.event("message")[2]

    def ended(self) -> list[tuple[str, str, Json]]:
        """Wait for the end of the stream; gives what came before it."""
        events = []
        while (event := self._queue.get(timeout=DEADLINE_S)) is not None:
            events.append(event)
        return events

    def close(self) -> None:
        with suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(DEADLINE_S)
        self._client.close()

    def _read(self) -> None:
        with (
            suppress(httpx.HTTPError),
            self._client.stream("GET", self._url, params=self._params, headers=self._headers) as response,
        ):
            assert response.status_code == 200, response.read()
            self._socket = response.extensions["network_stream"].get_extra_info("socket")
            for event in events_of(self._lines(response)):
                self._queue.put(event)
        self._queue.put(None)

    def _lines(self, response: httpx.Response) -> Iterator[str]:
        for line in response.iter_lines():
            if line.startswith("retry: "):
                self.retry = int(line.removeprefix("retry: "))
            yield line


def events_of(lines: Iterator[str]) -> Iterator[tuple[str, str, Json]]:
    """Events of a text/event-stream in the simple form that this server writes: type, id, data."""
    kind, number, data = "message", "", ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "id":
            number = value
        elif name == "data":
            data = value
        elif not line and data:
            yield kind, number, json.loads(data)
            kind, number, data = "message", "", ""


class Socket:
    """Over a WebSocket."""

    def __init__(self, url: str, user_id: str, cursor: str, *, sent: bool = False) -> None:
        self.cursor = cursor
        self._connecting = opened(url, user_id, cursor=cursor, **({"sent": "include"} if sent else {}))
        self._socket = self._connecting.__enter__()
        if cursor == "now":
            self.cursor = told_of(self._socket, "heartbeat")["cursor"]

    def next(self) -> Json:
        while True:
            said = told(self._socket)
            self.cursor = said.get("cursor", self.cursor)
            if said["type"] == "message":
                message: Json = said["message"]
                return message

    def close(self) -> None:
        self._connecting.__exit__(None, None, None)


READERS: dict[str, Callable[..., Reader]] = {
    "poll": Polling,
    "long-poll": LongPolling,
    "sse": Events,
    "websocket": Socket,
}


@contextmanager
def reading(transport: str, url: str, user_id: str, cursor: str = "now", *, sent: bool = False) -> Iterator[Reader]:
    """One reader, from a cursor on."""
    with closing(READERS[transport](url, user_id, cursor, sent=sent)) as reader:
        yield reader


def texts(reader: Reader, until: str) -> list[str]:
    """What is read, up to a text: so that what should not come is missing among what did."""
    said = [reader.next()["message"]]
    while said[-1] != until:
        said.append(reader.next()["message"])
    return said
