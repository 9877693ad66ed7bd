"""What each call costs in calls to store and feed: docs/scaling-out.md says it, and here it is counted on a real node.

Once by a node that has heard nothing of those whom the call is about, once when it remembers them. A door counts what
the node asks of its tables; the node's own /metrics must say the same, and say what it asked of the feed.
"""

import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import httpx

from tests.api_client import Api
from tests.cluster import Nodes, tables
from tests.pages import ROOT, rows
from tests.redis_server import RedisServer
from tests.server import ServerProcess, until
from tests.standin.heard import Heard

PAGE = ROOT / "docs" / "scaling-out.md"
HEADING = "## What calls cost"
OPERATIONS = ("GetItem", "BatchGetItem", "Query", "PutItem", "TransactWriteItems")
POLLS = 1_000

Do = Callable[..., None]  # a POST: a node, a path, and the fields of its body
Now = Callable[[], Api]  # the node whose calls are counted, once it runs
Steps = Iterator[Callable[[], object]]  # a call, while nothing is remembered, and the same when all of it is
Costs = tuple[str, str, str]  # the cells of a row of the table
ROWS: dict[str, Callable[[Api, Now], Steps]] = {}


def row(name: str, keyed: str = "") -> Callable[[Callable[[Api, Now, Do], Steps]], None]:
    """A row of the table, and another one with an Idempotency-Key.

    What comes before its first call is done by an earlier node, which has ended when the first call is made.
    """

    def note(steps: Callable[[Api, Now, Do], Steps]) -> None:
        ROWS[name] = lambda earlier, now: steps(earlier, now, plainly)
        if keyed:
            ROWS[keyed] = lambda earlier, now: steps(earlier, now, with_a_key)

    return note


def test_each_call_costs_what_the_page_says(tmp_path: Path) -> None:
    """Row by row, with nothing remembered and with all of it: calls to the tables, and what the feed is asked."""
    with tables() as store, RedisServer(tmp_path) as redis:
        started: list[Api] = []
        begun = {}
        with node(tmp_path, store, redis) as earlier:
            for name, steps in ROWS.items():
                begun[name] = steps(earlier, lambda: started[0])
                begun[name] = chain([next(begun[name])], begun[name])
        redis.call("FLUSHALL")  # else the next node would be told what was
        redis.call("CONFIG", "RESETSTAT")
        place, _, endpoint = store.partition("?endpoint=")
        with Heard(endpoint) as heard, node(tmp_path, f"{place}?endpoint={heard.url}", redis) as here:
            started.append(here)
            measured = {name: costs([cost(here, heard, call) for call in calls]) for name, calls in begun.items()}
            assert_all_is_counted(here, redis)
    assert measured == shown()


def test_a_hot_poll_costs_nothing(two_nodes: Nodes) -> None:
    """A thousand polls at each of two nodes: by /metrics, no request asked anything of store or feed meanwhile.

    The readers have what they have by cursor. That the numbers could show it is seen by what one cold poll adds.
    """
    for url in two_nodes.urls:
        with Api(url) as api:
            cold = asked(api)
            ann, cursor, _ = reader(api)
            assert api.poll(ann, cursor=cursor)["messages"] is None
            assert asked(api)["Query"] > cold["Query"]
            before, hot = asked(api), api.counted("tidings_polls_total")
            with httpx.Client(base_url=url) as client:
                answers = [client.get(f"/v1/messages/{ann}", params={"cursor": cursor}) for _ in range(POLLS)]
            assert {answer.status_code for answer in answers} == {200}
            assert {answer.json()["messages"] for answer in answers} == {None}
            assert api.counted("tidings_polls_total") - hot == POLLS
            more = asked(api) - before
            assert more.pop("proof", 0) < POLLS / 100, "but for a machine that is so busy that a node does not run"
            assert more == {}


@contextmanager
def node(directory: Path, store: str, redis: RedisServer) -> Iterator[Api]:
    """A client of a node that is ready."""
    with ServerProcess.start(directory, "--store", store, "--feed", redis.url) as process:
        until(lambda: httpx.get(f"{process.url}/readyz").status_code == 200)
        with Api(process.url) as api:
            yield api


def cost(api: Api, heard: Heard, call: Callable[[], object]) -> tuple[str, int]:
    """What a call asks of the tables, in words, and how often it asks something of the feed."""
    before = asked(api)
    heard.take()
    call()
    calls = heard.take()
    more = asked(api) - before
    more.pop("proof", 0)  # asked for by whoever comes when the node has not run for a second, as on a busy machine
    turns = more.pop("request", 0)
    assert more == sum((Counter({name_of(call): count}) for call, count in calls.items()), Counter()), "as it was heard"
    words = [f"{count} {call}" if count > 1 else call for call, count in calls.items()]
    return ", ".join(sorted(words, key=lambda word: OPERATIONS.index(name_of(word)))) or "0", turns


def assert_all_is_counted(api: Api, redis: RedisServer) -> None:
    """The feed's server was asked as often as the node says, the beats included."""
    name = "tidings_feed_turns_total"
    before = api.counted(name)
    calls = redis.call("INFO", "commandstats")["cmdstat_evalsha"]["calls"]
    assert before - 1 <= calls <= api.counted(name), "one may be on its way"


def name_of(words: str) -> str:
    """The operation in `2 Query` or `BatchGetItem of 3`."""
    (name,) = (word for word in words.split() if word in OPERATIONS)
    return name


def asked(api: Api) -> Counter[str]:
    """What requests had a node ask, by its /metrics: of the tables by operation, and of the feed by why."""
    text = api.get("/metrics").text
    pattern = r'^tidings_store_operations_total{operation="(\w+)",why="request"} (\S+)$'
    calls = {name.title().replace("_", ""): number for name, number in re.findall(pattern, text, re.MULTILINE)}
    turns = dict(re.findall(r'^tidings_feed_turns_total{why="(\w+)"} (\S+)$', text, re.MULTILINE))
    asked = calls | {why: turns.get(why, "0") for why in ("request", "proof")}
    return Counter({what: int(float(number)) for what, number in asked.items()})


def costs(measured: list[tuple[str, int]]) -> Costs:
    """A row's cells. What is asked of the feed does not depend on what is remembered."""
    (first, turns), (again, turns_again) = measured
    assert turns == turns_again
    return first, again, str(turns)


def shown() -> dict[str, Costs]:
    """The table on the page."""
    return {name: (first, again, feed) for name, first, again, feed in rows(PAGE, HEADING)}


def plainly(api: Api, path: str, **body: str) -> None:
    """A call that must be done."""
    response = api.post(path, body)
    assert response.status_code == 200, response.text


def with_a_key(api: Api, path: str, **body: str) -> None:
    """The same, under a new key."""
    response = api.post(path, body, key=secrets.token_hex(8))
    assert response.status_code == 200, response.text


def friends(api: Api) -> tuple[str, str]:
    """Ann and Bob, who have written to each other."""
    ann, bob = api.user("ann"), api.user("bob")
    api.private(ann, bob, "hello")
    api.private(bob, ann, "hello")
    return ann, bob


def reader(api: Api) -> tuple[str, str, str]:
    """Ann, who is in two groups, a cursor of hers after everything, and Bob, who has written to her."""
    ann, bob = friends(api)
    for name in ("hikers", "bakers"):
        api.group(name, ann)
    return ann, str(api.poll(ann, cursor="now")["cursor"]), bob


def member(api: Api) -> tuple[str, str]:
    """Ann, and a group that she has written to."""
    ann = api.user("ann")
    group = api.group("hikers", ann)
    api.groupwide(ann, group, "hello all")
    return ann, group


def count_news(api: Api, user: str, cursor: str, count: int) -> None:
    """A poll that must give so many messages."""
    assert len(api.texts(user, cursor=cursor)) == count


@row("poll, nothing new")
def poll_for_nothing(earlier: Api, now: Now, do: Do) -> Steps:
    ann, cursor, _ = reader(earlier)
    for _ in range(2):
        yield lambda: count_news(now(), ann, cursor, 0)


@row("poll, news in one mailbox")
def poll_for_news(earlier: Api, now: Now, do: Do) -> Steps:
    ann, cursor, bob = reader(earlier)
    earlier.private(bob, ann, "news")
    yield lambda: count_news(now(), ann, cursor, 1)
    later = now().poll(ann, cursor="now")["cursor"]
    now().private(bob, ann, "news")
    yield lambda: count_news(now(), ann, later, 1)


@row("the same, with older news than memory has")
def poll_for_old_news(earlier: Api, now: Now, do: Do) -> Steps:
    ann, cursor, bob = reader(earlier)
    earlier.private(bob, ann, "news")
    for _ in range(2):
        yield lambda: count_news(now(), ann, cursor, 1)


@row("private send", "private send with a key")
def send_privately(earlier: Api, now: Now, do: Do) -> Steps:
    ann, bob = friends(earlier)
    for _ in range(2):
        yield lambda: do(now(), "/v1/messages/send?type=private", senderId=ann, receiverId=bob, message="hello")


@row("private send, the first to somebody")
def send_to_another(earlier: Api, now: Now, do: Do) -> Steps:
    ann, bob = friends(earlier)
    carol = earlier.user("carol")
    yield lambda: now().private(ann, carol, "hello")
    eve = now().user("eve")
    now().private(bob, ann, "hello")
    yield lambda: now().private(bob, eve, "hello")


@row("repeat of one with a key")
def send_again(earlier: Api, now: Now, do: Do) -> Steps:
    ann, bob = friends(earlier)
    body, key = {"senderId": ann, "receiverId": bob, "message": "hello"}, secrets.token_hex(8)
    sent = earlier.post("/v1/messages/send?type=private", body, key=key).json()

    def again() -> None:
        assert now().post("/v1/messages/send?type=private", body, key=key).json() == sent

    yield again
    yield again


@row("send to a group", "send to a group with a key")
def send_to_a_group(earlier: Api, now: Now, do: Do) -> Steps:
    ann, group = member(earlier)
    for _ in range(2):
        yield lambda: do(now(), "/v1/messages/send?type=group", senderId=ann, groupId=group, message="hello all")


@row("`create` of a user", "`create` of a user with a key")
def create_a_user(earlier: Api, now: Now, do: Do) -> Steps:
    for _ in range(2):
        yield lambda: do(now(), "/v1/users/create", username="ann")


@row("`create` of a group", "`create` of a group with a key")
def create_a_group(earlier: Api, now: Now, do: Do) -> Steps:
    for _ in range(2):
        yield lambda: do(now(), "/v1/groups/create", groupName="hikers")


@row("`add`", "`add` with a key")
def add(earlier: Api, now: Now, do: Do) -> Steps:
    ann, group = member(earlier)
    earlier.remove(group, ann)
    yield lambda: do(now(), f"/v1/groups/{group}?op=add", userId=ann)
    now().remove(group, ann)
    yield lambda: do(now(), f"/v1/groups/{group}?op=add", userId=ann)


@row("`remove`", "`remove` with a key")
def remove(earlier: Api, now: Now, do: Do) -> Steps:
    ann, group = member(earlier)
    yield lambda: do(now(), f"/v1/groups/{group}?op=remove", userId=ann)
    now().add(group, ann)
    yield lambda: do(now(), f"/v1/groups/{group}?op=remove", userId=ann)


@row("`block`", "`block` with a key")
def block(earlier: Api, now: Now, do: Do) -> Steps:
    ann, bob = friends(earlier)
    yield lambda: do(now(), f"/v1/users/{ann}?op=block", blockedUserId=bob)
    yield lambda: do(now(), f"/v1/users/{bob}?op=block", blockedUserId=ann)


@row("`unblock`", "`unblock` with a key")
def unblock(earlier: Api, now: Now, do: Do) -> Steps:
    ann, bob = friends(earlier)
    earlier.block(ann, bob)
    earlier.block(bob, ann)
    yield lambda: do(now(), f"/v1/users/{ann}?op=unblock", blockedUserId=bob)
    yield lambda: do(now(), f"/v1/users/{bob}?op=unblock", blockedUserId=ann)
