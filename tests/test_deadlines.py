"""A call has one deadline for all that it reads of the store: who asks is told in time, and loses nothing by it.

A door between a node and its store, that answers late, stands for a store that is far away or has too much to do.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest

from tests.api_client import Api, refused
from tests.cluster import tables
from tests.faults.door import Leads, Order
from tests.faults.doors import Doors
from tests.readers import reading
from tests.redis_server import RedisServer
from tests.served import SERVERS
from tests.server import ServerProcess, until
from tests.standin import endpoint
from tidings.api.operation import READS
from tidings.client.wire import Retries
from tidings.config import Settings
from tidings.routes import ROUTES

READ_WAIT_S = 1.5
LATE = Order(0, delay_s=1.0)  # an answer is in time, and two after one another are not
CUT = Order(1, is_cut=True)
ROUNDS_MAX = 20  # of which the first ones only fill the memory
WAIT_S = 2.0  # for news: longer than the deadline, which does not count it

PATHS = {
    "/v1/messages/{userId}": (
        "/v1/messages/{user}",
        "/v1/messages/{user}?timestamp=1",
        "/v1/messages/{user}?limit=1",
        "/v1/messages/{user}?cursor=now",
        "/v1/messages/{user}?wait=1",
        "/v1/messages/{user}?limit=1&wait=1",
    ),
    "/v1/messages/{userId}/stream": ("/v1/messages/{user}/stream",),
    "/v1/users/{userId}": ("/v1/users/{user}",),
    "/v1/groups/{groupId}": ("/v1/groups/{another}?userId={user}",),
    "/v1/groups/{groupId}/members": ("/v1/groups/{group}/members?userId={user}",),
    "/v1/groups/{groupId}/messages": (
        "/v1/groups/{group}/messages?userId={user}",
        "/v1/groups/{group}/messages?userId={user}&before=9",
    ),
}


class Pair(NamedTuple):
    """A node, and one that remembers nothing, whose ways to the store (0) and to the feed (1) lead through doors."""

    well: Api
    cold: Api
    doors: Doors

    def scene(self) -> dict[str, str]:
        """A user of whom the cold node never heard, with a message and a group, and a group of somebody else's."""
        user = self.well.user("bob")
        self.well.private(user, user, "hello")
        group = self.well.group("hikers", user)
        self.well.groupwide(user, group, "hello all")
        return {"user": user, "group": group, "another": self.well.group("others")}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    data: Path = tmp_path_factory.mktemp("deadlines")
    where = urlsplit(endpoint())
    with tables() as store, RedisServer(data) as redis, ExitStack() as stack:
        leads = [Leads(where.hostname or "", where.port or 0), Leads("127.0.0.1", redis.port)]
        doors = stack.enter_context(Doors(leads))
        through = f"{store.partition('?')[0]}?endpoint=http://127.0.0.1:{doors.ports[0]}"
        flags = ("--read-wait-s", str(READ_WAIT_S), "--cold-reads-max", "20", *SERVERS["nothing in memory"])
        nodes = [
            ServerProcess.start(data, "--store", store, "--feed", redis.url),
            ServerProcess.start(data, "--store", through, "--feed", f"redis://127.0.0.1:{doors.ports[1]}/0", *flags),
        ]
        well, cold = (stack.enter_context(Api(stack.enter_context(node).url)) for node in nodes)
        until(lambda: all(api.get("/readyz").status_code == 200 for api in (well, cold)))
        yield Pair(well, cold, doors)


def asked(api: Api, paths: list[str]) -> list[httpx.Response]:
    """The answers to calls at the same time, each of which a client would have waited for."""

    def ask(path: str) -> httpx.Response:
        return httpx.get(api.url + path, timeout=Retries().answer_s)

    with ThreadPoolExecutor(len(paths)) as pool:
        return list(pool.map(ask, paths))


def test_each_call_is_answered_in_time(pair: Pair) -> None:
    """The store answers late, each time in time; whatever needs it twice is refused, and then answered as ever."""
    wanted = [(path, pair.scene()) for paths in PATHS.values() for path in paths]
    paths = [path.format(**scene) for path, scene in wanted]
    with pair.doors.faulty(LATE):
        for path, answer in zip(paths, asked(pair.cold, paths), strict=True):
            assert refused(answer, 503, "store_unavailable")["retry"], path
    for path in paths:
        if "/stream" not in path:
            until(lambda path=path: pair.cold.get(path).status_code in (200, 403))  # type: ignore[misc]
            mine, others = (api.get(path) for api in (pair.cold, pair.well))
            assert blind(mine.text) == blind(others.text)


def blind(text: str) -> str:
    """An answer without its cursor, which says at which node it was made."""
    return re.sub(r'"cursor":"[^"]*"', "", text)


def test_no_call_that_reads_is_left_out() -> None:
    """Each operation that asks the store and writes nothing is among those tried here."""
    reading = {
        route
        for route, methods in ROUTES.items()
        if "GET" in methods and {"overloaded", "store_unavailable"} <= {*methods["GET"].codes} & {*READS}
    }
    assert reading == PATHS.keys()


def test_our_client_is_still_there() -> None:
    """Unless it is set otherwise, a call's deadline is over well before our client gives the attempt up."""
    assert Settings().read_wait_s <= Retries().answer_s - 5


def test_waiting_for_news_is_not_counted(pair: Pair) -> None:
    """Bob waits for longer than a call may read: he is told that there is nothing new, or the news."""
    scene = pair.scene()
    until(lambda: pair.cold.get(f"/v1/messages/{scene['user']}").status_code == 200)
    cursor = pair.cold.poll(scene["user"], cursor="now")["cursor"]
    answer = pair.cold.poll(scene["user"], cursor=cursor, wait=WAIT_S)
    assert answer["messages"] is None
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(pair.cold.texts, scene["user"], cursor=cursor, wait=20)
        until(lambda: pair.cold.counted("tidings_waits") == 1)
        pair.well.private(scene["user"], scene["user"], "news")
        assert waiting.result() == ["news"]


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_a_stream_s_reads_are_tried_again(pair: Pair, transport: str) -> None:
    """Bob's node hears no news and reads the store in vain: once it answers he gets all that came meanwhile, once."""
    user = pair.scene()["user"]
    with reading(transport, pair.cold.url, user) as reader:
        with pair.doors.faulty(CUT):
            with pair.doors.faulty(LATE):
                before = pair.cold.counted("tidings_store_operations_total")
                sent = [pair.well.private(user, user, f"meanwhile {n}") for n in range(3)]
                until(lambda: pair.cold.counted("tidings_store_operations_total") >= before + 4)
            assert [reader.next() for _ in sent] == sent
        until(lambda: pair.cold.get("/readyz").status_code == 200)
        sent = [pair.well.private(user, user, "after")]
        assert [reader.next() for _ in sent] == sent


@pytest.mark.slow
def test_a_cold_node_with_too_much_to_read(tmp_path: Path) -> None:
    """Forty read at once, by cursor and by timestamp, from a node that has just started, with a slow way to the store.

    Each is given a page or told when to come back; they do, some are served all the while, and in the end each has got
    everything, once and in order.
    """
    with tables() as store, RedisServer(tmp_path) as redis, ExitStack() as stack:
        with ServerProcess.start(tmp_path, "--store", store, "--feed", redis.url) as node, Api(node.url) as api:
            users = [api.user("ann") for _ in range(40)]
            sent = {user: [api.private(user, user, f"{n}") for n in range(4)] for user in users}
        where = urlsplit(endpoint())
        doors = stack.enter_context(Doors([Leads(where.hostname or "", where.port or 0)]))
        through = f"{store.partition('?')[0]}?endpoint=http://127.0.0.1:{doors.ports[0]}"
        flags = ("--read-wait-s", "3", "--cold-reads-max", "1", "--tail-max-bytes", "0")
        node = stack.enter_context(ServerProcess.start(tmp_path, "--store", through, "--feed", redis.url, *flags))
        until(lambda: httpx.get(f"{node.url}/readyz").status_code == 200)
        readers = [Asking(node.url, user, by_time=index % 2 == 0) for index, user in enumerate(users)]
        seen: set[int] = set()
        with doors.faulty(Order(0, delay_s=0.1)), ThreadPoolExecutor(len(readers)) as pool:
            while seen != {200, 503}:
                assert len(readers[0].statuses) < ROUNDS_MAX, f"nothing but {seen}"
                list(pool.map(Asking.ask, readers))
                seen = {status for reader in readers for status in reader.statuses}
        for reader in readers:
            while reader.ask():
                pass
            assert reader.given == sent[reader.user]


class Asking:
    """Asks for two messages at a time, goes on from the last ones given, and waits for an answer as our client does."""

    def __init__(self, url: str, user: str, *, by_time: bool) -> None:
        self.user = user
        self.given: list[object] = []
        self.statuses: list[int] = []
        self._url = f"{url}/v1/messages/{user}"
        self._after = {"timestamp": "1"} if by_time else {"cursor": ""}

    def ask(self) -> bool:
        """Whether there may be more."""
        answer = httpx.get(self._url, params={**self._after, "limit": "2"}, timeout=Retries().answer_s)
        self.statuses.append(answer.status_code)
        if answer.status_code != 200:
            assert refused(answer, 503, answer.json()["code"])["retry"]
            return True
        page = answer.json()
        messages = page["messages"] or []
        self.given += messages
        if "cursor" in self._after:
            self._after = {"cursor": page["cursor"]}
        elif messages:
            self._after = {"timestamp": messages[-1]["timestamp"]}
        return bool(messages)
