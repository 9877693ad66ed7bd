"""Many connections at once, each of which asks again as soon as it was answered, and what became of all they asked."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.server import memory

PATIENCE_S = 60.0  # for an answer, on a machine that others use as well


@dataclass
class Outcomes:
    """Answers by status and code, the values of Retry-After, and how connections ended."""

    answers: Counter[tuple[int, str]] = field(default_factory=Counter)
    retry_after: Counter[int] = field(default_factory=Counter)
    closed: int = 0  # between two answers, before another request was sent
    unanswered: int = 0  # of requests that were sent
    cut: list[bytes] = field(default_factory=list)  # within an answer
    hung: int = 0

    @property
    def refused(self) -> int:
        """How many were answered 429 or 503."""
        return sum(count for (status, _), count in self.answers.items() if status in (429, 503))


def request(method: str, target: str, fields: dict[str, str] | None = None) -> bytes:
    """The bytes of a call."""
    body = b"" if fields is None else json.dumps(fields).encode()
    length = b"" if fields is None else b"Content-Length: %d\r\n" % len(body)
    return b"%b %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n%b" % (method.encode(), target.encode(), length, body)


async def ask(url: str, requests: Callable[[], bytes | None], outcomes: Outcomes) -> None:
    """One connection, until there are no more requests or the server closes it, which it hears of before it asks."""
    where = urlsplit(url)
    try:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
    except OSError:
        outcomes.closed += 1
        return
    try:
        while (sent := requests()) is not None:
            await asyncio.sleep(0)
            if reader.at_eof():
                outcomes.closed += 1
                return
            writer.write(sent)
            async with asyncio.timeout(PATIENCE_S):
                if not await _answered(reader, outcomes):
                    return
    except TimeoutError:
        outcomes.hung += 1
    except OSError:
        outcomes.unanswered += 1
    finally:
        writer.transport.abort()


async def _answered(reader: asyncio.StreamReader, outcomes: Outcomes) -> bool:
    """Take one answer in; False if the connection ends with it or before it."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(re.findall(rb"content-length: (\d+)", head)[0]))
    except asyncio.IncompleteReadError as error:
        if error.partial or error.expected is not None:
            outcomes.cut.append(error.partial)
        outcomes.unanswered += 1
        return False
    status = int(head[9:12])
    outcomes.answers[status, json.loads(body)["code"] if status != 200 else ""] += 1
    for value in re.findall(rb"retry-after: (\d+)", head):
        outcomes.retry_after[int(value)] += 1
    return b"connection: close" not in head


async def flood(url: str, connections: int, calls: int, make: Callable[[], bytes], outcomes: Outcomes) -> None:
    """So many connections at once, and so many calls over all of them together."""
    left = iter(range(calls))
    everybody = (
        ask(url, lambda: make() if next(left, None) is not None else None, outcomes) for _ in range(connections)
    )
    await asyncio.gather(*everybody)


def resident_mb(pids: list[int]) -> float:
    """The memory that processes hold together."""
    return sum(map(memory, pids)) / 2**20
