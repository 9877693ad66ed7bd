"""The people of a bench: made over HTTP, their requests written out, and their mailboxes read back in the end."""

import http.client
import json
import re
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import msgspec

from bench.load import KEY, Request
from bench.processes import Failed

READERS = 32
ROOMS = 16
GROUPS_EACH = 2
WRITERS = 64
TEXT = "Fifty bytes of tidings, neither good nor bad, yet!"
ACCEPTED = '"messageId":"message-'

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? ([0-9.e+]+)$", re.MULTILINE)


class Read(msgspec.Struct):
    """What is looked at in a message that was read."""

    seq: int
    timestamp: str


class Mail(msgspec.Struct):
    """An answer to a poll."""

    messages: list[Read] | None
    cursor: str = ""


class Client:
    """A client of one server, for setting up and reading back; it connects anew for each call."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str) -> bytes:
        """The body of a 200. Raises Failed for any other status."""
        return self._call("GET", path, None)

    def post(self, path: str, **body: str) -> Any:
        """The JSON of a 200. Raises Failed for any other status."""
        return json.loads(self._call("POST", path, json.dumps(body)))

    def counts(self) -> Mapping[str, float]:
        """/metrics: the sum over all series of a name, and the hot polls alone as `hot`."""
        sums: dict[str, float] = {"hot": 0.0}
        for name, labels, value in _SAMPLE.findall(self.get("/metrics").decode()):
            sums[name] = sums.get(name, 0.0) + float(value)
            if name == "tidings_polls_total" and 'kind="hot"' in labels:
                sums["hot"] += float(value)
        return sums

    def _call(self, method: str, path: str, body: str | None) -> bytes:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port)) as connection:
            connection.request(method, path, body)
            answer = connection.getresponse()
            content = answer.read()
        if answer.status != 200:
            raise Failed(f"{method} {path} was answered {answer.status}: {content[:300]!r}")
        return content


def polls(client: Client) -> tuple[list[Request], list[Request]]:
    """Readers in two groups each, who have read all: their polls by cursor and by timestamp, with the exact answers."""
    readers = [client.post("/v1/users/create", username=f"reader {n}")["userId"] for n in range(READERS)]
    rooms = [client.post("/v1/groups/create", groupName=f"room {n}")["groupId"] for n in range(ROOMS)]
    for n, reader in enumerate(readers):
        for offset in range(GROUPS_EACH):
            room = rooms[(n + offset) % ROOMS]
            client.post(f"/v1/groups/{room}?op=add", userId=reader)
            client.post("/v1/messages/send?type=group", senderId=reader, groupId=room, message=TEXT)
        client.post("/v1/messages/send?type=private", senderId=reader, receiverId=reader, message=TEXT)
    return [_by_cursor(client, reader) for reader in readers], [_by_timestamp(client, reader) for reader in readers]


def _by_cursor(client: Client, reader: str) -> Request:
    mail = msgspec.json.decode(client.get(f"/v1/messages/{reader}"), type=Mail)
    path = f"/v1/messages/{reader}?cursor={mail.cursor}"
    return Request(_get(path), client.get(path).decode())


def _by_timestamp(client: Client, reader: str) -> Request:
    mail = msgspec.json.decode(client.get(f"/v1/messages/{reader}"), type=Mail)
    latest = max(int(message.timestamp) for message in mail.messages or ())
    path = f"/v1/messages/{reader}?timestamp={latest}"
    return Request(_get(path), client.get(path).decode())


class Writers:
    """Senders, each with a receiver of their own; `accepted` counts what was answered 200, over all rounds."""

    def __init__(self, client: Client) -> None:
        self.client = client
        names = [f"{kind} {n}" for n in range(WRITERS) for kind in ("writer", "receiver")]
        ids = [client.post("/v1/users/create", username=name)["userId"] for name in names]
        self._pairs = list(zip(ids[::2], ids[1::2], strict=True))
        sender, receiver = self._pairs[0]
        sample = client.post("/v1/messages/send?type=private", senderId=sender, receiverId=receiver, message=TEXT)
        self.answer_size = len(msgspec.json.encode(sample))
        self.accepted = 1

    def requests(self, *, keyed: bool) -> list[Request]:
        """A send from each to each one's receiver; `keyed`: with another Idempotency-Key each time."""
        header = f"idempotency-key: {KEY.decode()}\r\n" if keyed else ""
        return [Request(_post(sender, receiver, header), ACCEPTED, is_whole=False) for sender, receiver in self._pairs]

    def check(self) -> int:
        """Read everything back: each mailbox without a hole, and as many as were accepted. Raises Failed."""
        stored = 0
        for _, receiver in self._pairs:
            mail = msgspec.json.decode(self.client.get(f"/v1/messages/{receiver}"), type=Mail)
            seqs = [message.seq for message in mail.messages or ()]
            if seqs != list(range(1, len(seqs) + 1)):
                raise Failed("a mailbox has a hole")
            stored += len(seqs)
        if stored != self.accepted:
            raise Failed(f"{self.accepted} sends were answered 200, but {stored} messages are stored")
        return stored


def _get(path: str) -> str:
    return f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


def _post(sender: str, receiver: str, header: str) -> str:
    body = json.dumps({"senderId": sender, "receiverId": receiver, "message": TEXT})
    return (
        "POST /v1/messages/send?type=private HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"{header}content-length: {len(body)}\r\n\r\n{body}"
    )
