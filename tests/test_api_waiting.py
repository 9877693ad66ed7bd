"""Long-polls over HTTP: they end with news, with the time asked for, or with the client."""

import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from tests.api_client import Api, Json, refused
from tests.cluster import api_of, nodes
from tests.server import ServerProcess, until


@pytest.fixture(scope="module", params=[ServerProcess.start, nodes], ids=["one machine", "two nodes"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server on which a user may hold two waits, and all together three; and two nodes, of which each bears that."""
    flags = ("--waits-per-user-max", "2", "--waits-max", "3")
    with request.param(tmp_path_factory.mktemp("waiting"), *flags) as serving, api_of(serving) as opened:
        yield opened


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as opened:
        yield opened


def waiting(api: Api, pool: ThreadPoolExecutor, user_id: str, **params: str | float) -> Future[Json]:
    """A long-poll that the server holds by now."""
    before = api.counted("tidings_waits")
    poll = pool.submit(api.poll, user_id, wait=30, **params)
    until(lambda: api.counted("tidings_waits") == before + 1)
    return poll


@pytest.mark.parametrize("limit", [None, 10])
def test_a_wait_ends_with_a_private_message(api: Api, pool: ThreadPoolExecutor, limit: int | None) -> None:
    """Bob waits, Ann writes: he has it at once, in one page as without a limit."""
    ann, bob = api.user("ann"), api.user("bob")
    cursor = api.poll(bob)["cursor"]
    poll = waiting(api, pool, bob, cursor=cursor, **({} if limit is None else {"limit": limit}))
    message = api.private(ann, bob, "hi")
    answer = poll.result(20)
    assert answer["messages"] == [message]
    assert api.poll(bob, cursor=answer["cursor"])["messages"] is None


def test_a_wait_ends_with_a_groups_message_by_timestamp_too(api: Api, pool: ThreadPoolExecutor) -> None:
    """Bob waits by timestamp: what Ann writes to their group ends it."""
    ann, bob = api.user("ann"), api.user("bob")
    group = api.group("hikers", ann, bob)
    stamp = api.groupwide(ann, group, "first")["timestamp"]
    poll = waiting(api, pool, bob, timestamp=stamp)
    message = api.groupwide(ann, group, "second")
    assert poll.result(20) == {"messages": [message]}


def test_a_wait_ends_with_a_group_joined_meanwhile(api: Api, pool: ThreadPoolExecutor) -> None:
    """Bob is let into a group while he waits: its next message ends the wait."""
    ann, bob = api.user("ann"), api.user("bob")
    group = api.group("hikers", ann)
    poll = waiting(api, pool, bob, cursor=api.poll(bob)["cursor"])
    api.add(group, bob)
    message = api.groupwide(ann, group, "welcome")
    assert poll.result(20)["messages"] == [message]


def test_a_wait_with_news_does_not_wait(api: Api) -> None:
    """What is there already is the answer."""
    ann = api.user("ann")
    message = api.private(ann, ann, "note")
    assert api.poll(ann, wait=30)["messages"] == [message]


@pytest.mark.parametrize("seconds", ["0", "0.05", "1e-2", "0.0"])
def test_a_wait_without_news_ends_by_itself(api: Api, seconds: str) -> None:
    """After the time asked for: null, and a cursor to go on with."""
    ann = api.user("ann")
    answer = api.poll(ann, cursor=api.poll(ann)["cursor"], wait=seconds)
    assert answer["messages"] is None
    assert api.poll(ann, cursor=answer["cursor"])["messages"] is None


def test_a_client_that_leaves_stops_waiting(api: Api) -> None:
    """The connection is closed in the middle of a wait: the server holds nothing for it any longer."""
    ann, where = api.user("ann"), urlsplit(api.url)
    before = api.counted("tidings_waits")
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        connection.sendall(f"GET /v1/messages/{ann}?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        until(lambda: api.counted("tidings_waits") == before + 1)
    until(lambda: api.counted("tidings_waits") == before)


def test_waits_are_bounded_by_user_and_by_server(api: Api, pool: ThreadPoolExecutor) -> None:
    """Ann's third wait is a 429, the server's fourth a 503, each with Retry-After; ended ones make room."""
    with Api(api.urls[0]) as one:  # each node has its own limits
        check_bounds(one, pool)


def check_bounds(api: Api, pool: ThreadPoolExecutor) -> None:
    ann, bob, eve = api.user("ann"), api.user("bob"), api.user("eve")
    polls = [waiting(api, pool, ann), waiting(api, pool, ann)]
    refused(api.get(f"/v1/messages/{ann}", wait=30), 429, "too_many_waits")
    polls.append(waiting(api, pool, bob))
    problem = api.get(f"/v1/messages/{eve}", wait=30)
    assert refused(problem, 503, "overloaded")["retry"] is True
    assert int(problem.headers["retry-after"]) >= 1
    for user_id in (ann, bob):
        api.private(eve, user_id, "hi")
    assert all(poll.result(20)["messages"] for poll in polls)
    until(lambda: api.counted("tidings_waits") == 0)
    poll = waiting(api, pool, eve)
    api.private(ann, eve, "hi")
    assert poll.result(20)["messages"]


def test_a_stopping_server_lets_those_who_wait_go(tmp_path_factory: pytest.TempPathFactory) -> None:
    """At SIGTERM a wait is answered at once, with a cursor to go on with."""
    with (
        ServerProcess.start(tmp_path_factory.mktemp("stopping")) as process,
        Api(process.url) as api,
        ThreadPoolExecutor(1) as pool,
    ):
        ann = api.user("ann")
        poll = waiting(api, pool, ann)
        assert process.terminate() == 0
        answer = poll.result(20)
        assert answer["messages"] is None
        assert answer["cursor"]


def test_a_wait_ends_with_its_client_also_if_something_was_asked_behind_it(api: Api) -> None:
    """Bob's phone asks for something else behind a long-poll, on the same connection, and hangs up: nothing is held."""
    bob = api.user("bob")
    where = urlsplit(api.url)
    both = "".join(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n" for path in (f"/v1/messages/{bob}?wait=60", "/healthz")
    )
    with socket.create_connection((where.hostname, where.port)) as phone:
        phone.sendall(both.encode())
        until(lambda: api.counted("tidings_waits") == 1)
    until(lambda: api.counted("tidings_waits") == 0)
