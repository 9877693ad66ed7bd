"""A node that is cut off from the feed alone: its readers are given all from the store, its writers are sent away."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.api_client import Api, refused
from tests.cluster import tables
from tests.faults.door import Leads, Order
from tests.faults.doors import Doors
from tests.readers import READERS, reading
from tests.redis_server import RedisServer
from tests.server import ServerProcess, until


class Pair(NamedTuple):
    """A node, and one whose way to the feed leads through a door."""

    well: Api
    apart: Api
    doors: Doors

    def is_ready(self, api: Api) -> bool:
        return httpx.get(f"{api.url}/readyz").status_code == 200


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    data: Path = tmp_path_factory.mktemp("alone")
    with tables() as store, RedisServer(data) as redis, ExitStack() as stack:
        doors = stack.enter_context(Doors([Leads("127.0.0.1", redis.port)]))
        feeds = (redis.url, f"redis://127.0.0.1:{doors.ports[0]}/0")
        well, apart = (stack.enter_context(Api(stack.enter_context(start(data, store, feed)).url)) for feed in feeds)
        made = Pair(well, apart, doors)
        until(lambda: made.is_ready(well) and made.is_ready(apart))
        yield made


def start(data: Path, store: str, feed: str) -> ServerProcess:
    return ServerProcess.start(data, "--store", store, "--feed", feed)


@pytest.mark.parametrize("fault", [Order(0, is_cut=True), Order(0, is_hung=True)], ids=["cut", "hung"])
@pytest.mark.parametrize("transport", READERS)
def test_readers_there_miss_nothing_and_get_nothing_twice(pair: Pair, transport: str, fault: Order) -> None:
    """Bob reads there while it hears no news, and after: what others were told was sent, each once, in order."""
    well, apart = pair.well, pair.apart
    ann, bob = well.user("ann"), well.user("bob")
    sent = [well.private(ann, bob, "before")]
    cursor = well.poll(bob, cursor="now")["cursor"]
    with reading(transport, apart.url, bob, cursor) as reader:
        with pair.doors.faulty(fault):
            until(lambda: not pair.is_ready(apart))
            assert pair.is_ready(well)
            sent = [well.private(ann, bob, f"meanwhile {n}") for n in range(3)]
            assert [reader.next() for _ in sent] == sent
        until(lambda: pair.is_ready(apart))
        sent = [apart.private(ann, bob, f"after {n}") for n in range(3)]
        assert [reader.next() for _ in sent] == sent
    assert apart.poll(bob, cursor=reader.cursor)["messages"] is None


def test_nothing_is_acknowledged_there(pair: Pair) -> None:
    """What can't be told is answered 503 there; the same key finds it, or does it, at the other: once."""
    well, apart = pair.well, pair.apart
    ann, bob = well.user("ann"), well.user("bob")
    body = {"senderId": ann, "receiverId": bob, "message": "once"}
    path = "/v1/messages/send?type=private"
    cursor = apart.poll(bob, cursor="now")["cursor"]
    with pair.doors.faulty(Order(0, is_cut=True)):
        until(lambda: not pair.is_ready(apart))
        problem = apart.post(path, body, key="k1")
        assert refused(problem, 503, "feed_unavailable")["retry"] is True
        assert well.post(path, body, key="k1").status_code == 200
        assert well.texts(bob) == ["once"]
        assert apart.texts(bob, cursor=cursor) == ["once"]
        assert apart.texts(bob) == []  # in what order messages come in time is not known here
        blocking = apart.post(f"/v1/users/{bob}?op=block", {"blockedUserId": ann}, key="k2")
        assert blocking.status_code == 503
        assert well.post(f"/v1/users/{bob}?op=block", {"blockedUserId": ann}, key="k2").status_code == 200
        assert well.post(path, body, key="k3").status_code == 403
    until(lambda: pair.is_ready(apart))
    assert apart.post(path, body, key="k4").status_code == 403
    until(lambda: apart.texts(bob) == ["once"])


def test_polls_there_are_never_stale_for_longer_than_a_second(pair: Pair) -> None:
    """Hung, it trusts what it remembers for a second at most: then a poll without news asks the store."""
    well, apart = pair.well, pair.apart
    ann, bob = well.user("ann"), well.user("bob")
    cursor = apart.poll(bob)["cursor"]
    with pair.doors.faulty(Order(0, is_hung=True)):
        sent = well.private(ann, bob, "hello")
        until(lambda: apart.poll(bob, cursor=cursor)["messages"] == [sent], within_s=10)
    until(lambda: pair.is_ready(apart))
