"""The people of a bench, over HTTP: their requests written out, and their mailboxes read back in the end."""

import asyncio
import http.client
import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import closing

import msgspec

import tidings
from bench.load import KEY, Request
from bench.processes import Failed
from bench.seed import TEXT
from tidings.model import Message

WRITERS = 64
PAGE = 1_000  # read back so many at a time
CALLS = 16  # under way at a time, to set up and to read back: enough that sends share commits
ACCEPTED = '"messageId":"message-'
FLUSH_S = 1.2  # workers leave their counts for each other's /metrics once a second
SETTLED_S = 10.0

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? ([0-9.e+-]+|\+Inf)$", re.MULTILINE)


class Mail(msgspec.Struct):
    """Whether an answer to a poll has messages."""

    messages: list[msgspec.Raw] | None


class Wire:
    """Asks one server for its very bytes, which the load is to expect, and for /metrics, which no client has.

    It connects anew for each call.
    """

    def __init__(self, port: int, workers: int = 1) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.workers = workers

    def get(self, path: str) -> bytes:
        """The body of a 200. Raises Failed for any other status."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            content = answer.read()
        if answer.status != 200:
            raise Failed(f"GET {path} was answered {answer.status}: {content[:300]!r}")
        return content

    def samples(self) -> list[tuple[str, str, float]]:
        """/metrics: name, labels and value of each series."""
        found = _SAMPLE.findall(self.get("/metrics").decode())
        return [(name, labels, float(value)) for name, labels, value in found]

    def counts(self) -> Mapping[str, float]:
        """/metrics: the sum over all series of a name, and the hot polls alone as `hot`."""
        sums: dict[str, float] = {"hot": 0.0}
        for name, labels, value in self.samples():
            sums[name] = sums.get(name, 0.0) + value
            if name == "tidings_polls_total" and 'kind="hot"' in labels:
                sums["hot"] += value
        return sums


class Gained:
    """What /metrics of a server counted since a moment."""

    def __init__(self, client: Wire) -> None:
        self._client = client
        self._before = client.counts() if client.workers == 1 else self._settled()

    def _settled(self) -> Mapping[str, float]:
        """The counts, once those of all workers are there."""
        now = self._client.counts()
        while True:
            time.sleep(FLUSH_S)
            before, now = now, self._client.counts()
            if now["tidings_polls_total"] == before["tidings_polls_total"]:
                return now

    def after(self, polls: int) -> Mapping[str, float]:
        """The counts gained, once so many polls are among them. Raises Failed if they never are."""
        deadline = time.monotonic() + SETTLED_S
        while True:
            now = self._client.counts()
            gained = {name: value - self._before.get(name, 0.0) for name, value in now.items()}
            if gained["tidings_polls_total"] == polls:
                return gained
            if gained["tidings_polls_total"] > polls or time.monotonic() > deadline:
                raise Failed(f"{polls} polls were answered, but {gained['tidings_polls_total']:.0f} counted")
            time.sleep(0.1)


def by_cursor(client: Wire, readers: Sequence[str]) -> list[Request]:
    """Each reader's poll by the cursor of one who has read all, with the exact answer. Raises Failed."""
    cursors = asyncio.run(_cursors(client.url, readers))
    pairs = zip(readers, cursors, strict=True)
    return [without_news(client, f"/v1/messages/{reader}?cursor={cursor}") for reader, cursor in pairs]


def by_timestamp(client: Wire, readers: Sequence[str], timestamp: int) -> list[Request]:
    """Each reader's poll by the timestamp of the last message, with the exact answer. Raises Failed."""
    return [without_news(client, f"/v1/messages/{reader}?timestamp={timestamp}") for reader in readers]


def without_news(client: Wire, path: str) -> Request:
    """A poll, with the answer that it gets now. Raises Failed if that has news."""
    answer = client.get(path)
    if msgspec.json.decode(answer, type=Mail).messages is not None:
        raise Failed(f"there should be no news for {path}")
    return Request(get(path), answer.decode())


def poll_once(url: str, readers: Sequence[str]) -> None:
    """Each reader asks for what is later than now."""
    asyncio.run(_poll_once(url, readers, time.time_ns() // 1_000_000))


async def _poll_once(url: str, readers: Sequence[str], now_ms: int) -> None:
    async with tidings.Client(url, connections_max=CALLS) as client:
        await asyncio.gather(*(client.read(reader, timestamp=now_ms) for reader in readers))


async def _cursors(url: str, readers: Sequence[str]) -> list[str | None]:
    async with tidings.Client(url, connections_max=CALLS) as client:
        return await asyncio.gather(*(_cursor(client, reader) for reader in readers))


async def _cursor(client: tidings.Client, reader: str) -> str | None:
    page = await client.read(reader, cursor="now")
    return (await client.read(reader, cursor=page.cursor)).cursor  # that one has a hint


def make_users(url: str, count: int) -> list[str]:
    """The ids of so many new users."""
    return asyncio.run(_make_users(url, count))


async def _make_users(url: str, count: int) -> list[str]:
    async with tidings.Client(url, connections_max=CALLS) as client:
        users = await asyncio.gather(*(client.create_user(f"user {n}") for n in range(count)))
        return [user.user_id for user in users]


def poll_all_of(url: str, readers: Sequence[str]) -> None:
    """Each reader asks for everything, with copies."""
    asyncio.run(_poll_all_of(url, readers))


async def _poll_all_of(url: str, readers: Sequence[str]) -> None:
    async with tidings.Client(url, connections_max=CALLS) as client:
        await asyncio.gather(*(client.read(reader, with_sent=True) for reader in readers))


class Writers:
    """Senders, each with a receiver of their own, on one server."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pairs, sample = asyncio.run(self._make())
        self.answer_size = len(msgspec.json.encode(sample))

    def requests(self, *, keyed: bool) -> list[Request]:
        """A send from each to each one's receiver; `keyed`: with another Idempotency-Key each time."""
        header = f"idempotency-key: {KEY.decode()}\r\n" if keyed else ""
        return [Request(_post(sender, receiver, header), ACCEPTED, is_whole=False) for sender, receiver in self._pairs]

    def check(self, accepted: int) -> int:
        """Read everything back: each mailbox without a hole, and as many as were answered 200. Raises Failed."""
        stored = asyncio.run(self._count())
        if stored != accepted + 1:  # the sample
            raise Failed(f"{accepted + 1} sends were answered 200, but {stored} messages are stored")
        return stored

    async def _make(self) -> tuple[list[tuple[str, str]], Message]:
        async with tidings.Client(self._url, connections_max=CALLS) as client:
            names = [f"{kind} {n}" for n in range(WRITERS) for kind in ("writer", "receiver")]
            ids = [user.user_id for user in await asyncio.gather(*map(client.create_user, names))]
            pairs = list(zip(ids[::2], ids[1::2], strict=True))
            return pairs, await client.send(*pairs[0], TEXT)

    async def _count(self) -> int:
        async with tidings.Client(self._url, connections_max=CALLS) as client:
            return sum(await asyncio.gather(*(length(client, receiver) for _, receiver in self._pairs)))


async def length(client: tidings.Client, receiver: str) -> int:
    """How many messages a mailbox has. Raises Failed if it has a hole."""
    page = await client.read(receiver, limit=PAGE)
    seqs = [message.seq for message in page.messages]
    while page.more:
        page = await client.read(receiver, cursor=page.cursor, limit=PAGE)
        seqs += [message.seq for message in page.messages]
    if seqs != list(range(1, len(seqs) + 1)):
        raise Failed("a mailbox has a hole")
    return len(seqs)


def get(path: str) -> str:
    """The head of a GET."""
    return f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


def _post(sender: str, receiver: str, header: str) -> str:
    body = json.dumps({"senderId": sender, "receiverId": receiver, "message": TEXT})
    return (
        "POST /v1/messages/send?type=private HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"{header}content-length: {len(body)}\r\n\r\n{body}"
    )
