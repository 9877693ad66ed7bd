"""Hot and cold give the same, byte for byte: what a node remembers may change an answer's cost, never its words."""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.backends import LoggedPlace, gather_group, private, sign_up, to_group
from tests.server import ServerProcess, until
from tidings.api.hot import HotPolls
from tidings.api.limits import Guard
from tidings.app import Memory
from tidings.config import Settings
from tidings.directory import Directory
from tidings.errors import TidingsError
from tidings.feed.local import LocalFeed
from tidings.live import Streams
from tidings.metrics import Metrics
from tidings.model import Written
from tidings.routes import build
from tidings.service import Groups, Messages, Node, Services, Users
from tidings.store import LoggedStore
from tidings.tail import Tail

pytest_plugins = "tests.opened"

NOTHING: dict[str, Any] = {
    "tail_window_s": 0.0,
    "tail_max_bytes": 0,
    "directory_max_users": 1,
    "directory_max_heads": 1,
}
LITTLE: dict[str, Any] = {"tail_max_bytes": 6_000, "directory_max_users": 2, "directory_max_heads": 4}
MEMORIES: Sequence[dict[str, Any]] = ({}, NOTHING, LITTLE)


class Face(NamedTuple):
    """One node over the shared store: its feed, its memory, and its HTTP face, called within this process."""

    feed: LocalFeed
    memory: Memory
    client: httpx.AsyncClient


async def face(store: LoggedStore, stack: AsyncExitStack, changed: dict[str, Any]) -> Face:
    """A node that remembers as much as its settings allow."""
    chosen, metrics = Settings(page_max=5, **changed), Metrics(None)
    feed = LocalFeed(store, None, chosen.feed_look_s, lambda: None)
    tail = Tail(chosen.tail_window_s, chosen.tail_max_bytes)
    directory = Directory(store, chosen.directory_max_users, chosen.directory_max_heads)
    memory = Memory(directory, tail)
    await feed.start(0, memory)
    stack.push_async_callback(feed.close)
    node = Node(chosen, store, feed, tail, directory)
    services = Services(node, Users(node), Groups(node), Messages(node, metrics.hot, metrics.cold))
    routes = build(services, chosen, metrics, Streams(services.messages, node))
    app = HotPolls(routes, services.messages, Guard(chosen), metrics, chosen.uri_max_bytes)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
    await stack.enter_async_context(client)
    return Face(feed, memory, client)


class Scene:
    """Users and groups of one example, written to by the store, told to every node, asked of every node."""

    def __init__(self, store: LoggedStore, nodes: Sequence[Face], users: list[str], groups: list[str]) -> None:
        self.store = store
        self.nodes = nodes
        self.users = users
        self.groups = groups
        self.cursors: dict[str, list[str]] = {user: [] for user in users}
        self.times = [1]

    async def write(self, write: Callable[[LoggedStore], Any]) -> None:
        """A write that may be refused; its news goes to every node."""
        try:
            written: Written[Any] = await write(self.store)
        except TidingsError:
            return
        for node in self.nodes:
            await node.feed.publish(written.batch)

    async def ask(self, user: str, **params: Any) -> Any:
        """One question to all nodes, each twice (the second finds the first's traces), and to one that just forgot."""
        path, told = f"/v1/messages/{user}", [node for node in self.nodes for _ in range(2)]
        answers = [await node.client.get(path, params=params) for node in told]
        forgetful = self.nodes[0]
        forgetful.memory.reset(forgetful.feed.position)
        answers.append(await forgetful.client.get(path, params=params))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1, [answer.text for answer in answers]
        return answers[0].json()


@pytest.fixture
async def nodes(place: LoggedPlace, store: LoggedStore) -> AsyncIterator[list[Face]]:
    """Nodes on one store: one that will be made to forget, and one each that remembers all, nothing and a little."""
    async with AsyncExitStack() as stack:
        yield [await face(store, stack, changed) for changed in ({}, *MEMORIES)]


who = st.integers(0, 2)
sends = st.tuples(st.just("send"), who, st.integers(0, 4))
moves = st.tuples(st.sampled_from(["add", "remove"]), st.integers(0, 1), who)
polls = st.tuples(
    st.sampled_from(["all", "cursor", "timestamp", "now"]),
    who,
    st.integers(0, 12),
    st.none() | st.integers(1, 5),
    st.booleans(),
)


async def take(scene: Scene, step: tuple[Any, ...]) -> None:
    """One step of an example."""
    users, groups = scene.users, scene.groups
    match step:
        case ("send", sender, to) if to < 3:
            await scene.write(lambda store: store.send(private(users[sender], users[to])))
        case ("send", sender, to):
            await scene.write(lambda store: store.send(to_group(users[sender], groups[to - 3])))
        case ("add", group, user):
            await scene.write(lambda store: store.add_member(groups[group], users[user]))
        case ("remove", group, user):
            await scene.write(lambda store: store.remove_member(groups[group], users[user]))
        case (kind, user, which, limit, with_sent):
            await poll(scene, kind, users[user], which, limit, with_sent)


async def poll(scene: Scene, kind: str, user: str, which: int, limit: int | None, with_sent: bool) -> None:
    """A question in any of the ways to ask, with cursors and timestamps met so far."""
    kept = scene.cursors[user]
    params: dict[str, Any] = {"now": {"cursor": "now"}, "all": {}}.get(kind, {})
    if kind == "cursor" and kept:
        params = {"cursor": kept[-1 - which % len(kept)]}
    elif kind == "timestamp":
        params = {"timestamp": scene.times[-1 - which % len(scene.times)] - which % 2}
    params |= {"limit": limit} if limit else {}
    answer = await scene.ask(user, **params, **({"sent": "include"} if with_sent else {}))
    scene.times += [int(message["timestamp"]) for message in answer["messages"] or ()]
    if "cursor" in answer:
        kept.append(answer["cursor"])
        await scene.ask(user, cursor=kept[-1], **({} if with_sent else {"sent": "include"}))


@pytest.mark.anyio
@pytest.mark.logged
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(sends | sends | moves | polls | polls, min_size=5, max_size=40))
async def test_every_memory_gives_the_same_bytes(
    store: LoggedStore, nodes: list[Face], steps: list[tuple[Any, ...]]
) -> None:
    """Messages, `more` and cursors are equal to the byte, whether a node remembers all, little, nothing, or forgot."""
    users = [await sign_up(store, name) for name in ("ann", "bob", "carol")]
    groups = [await gather_group(store, *users[:2]), await gather_group(store)]
    for node in nodes:
        await node.feed.catch_up()
    scene = Scene(store, nodes, users, groups)
    for step in steps:
        await take(scene, step)
    for user in users:
        await scene.ask(user, sent="include")


@pytest.mark.anyio
@pytest.mark.logged
async def test_the_nodes_compared_are_hot_and_cold(store: LoggedStore, nodes: list[Face], ann: str, bob: str) -> None:
    """The set-up holds: of the nodes compared, one answers from its tail what another must read from the store."""
    for node in nodes:
        await node.feed.catch_up()
    scene = Scene(store, nodes, [ann, bob], [])
    for _ in range(20):
        await scene.write(lambda store: store.send(private(ann, bob)))
    for _ in range(3):
        await scene.ask(bob, timestamp=1, limit=5)
    _, remembering, forgetting, _ = [kinds_of_polls((await node.client.get("/metrics")).text) for node in nodes]
    assert "hot tail" in remembering
    assert "cold messages" not in remembering
    assert "cold messages" in forgetting
    assert "hot tail" not in forgetting


def kinds_of_polls(metrics: str) -> set[str]:
    """The kinds of polls that there were."""
    found = re.findall(r'^tidings_polls_total{kind="(\w+)",why="(\w+)"} (\S+)$', metrics, re.MULTILINE)
    return {f"{kind} {why}" for kind, why, count in found if float(count)}


@pytest.mark.anyio
@pytest.mark.logged
@pytest.mark.parametrize("timestamp", ["0", "00", "-1", ""])
async def test_no_timestamp_is_no_timestamp_when_hot_too(nodes: list[Face], store: LoggedStore, timestamp: str) -> None:
    """Ann, to whom nobody wrote, asks with a timestamp that is none: she gets a cursor, however much is remembered."""
    ann = await sign_up(store, "ann")
    for node in nodes:
        await node.feed.catch_up()
    scene = Scene(store, nodes, [ann], [])
    await scene.ask(ann)
    answer = await scene.ask(ann, timestamp=timestamp)
    assert answer["messages"] is None
    assert answer["cursor"]


def store_calls(url: str) -> float:
    """How often the server has asked its store for anything."""
    text = httpx.get(f"{url}/metrics").text
    return sum(float(value) for value in re.findall(r"^tidings_store_calls_total{.*} (\S+)$", text, re.MULTILINE))


def post(client: httpx.Client, path: str, **body: str) -> Any:
    """What a call that must succeed answers."""
    response = client.post(path, json=body)
    assert response.status_code == 200
    return response.json()


def populate(client: httpx.Client) -> tuple[str, str]:
    """Ann, with messages from Bob and in a group; gives her id, and her last timestamp."""
    ann, bob = (post(client, "/v1/users/create", username=name)["userId"] for name in ("ann", "bob"))
    group = post(client, "/v1/groups/create", groupName="friends")["groupId"]
    post(client, f"/v1/groups/{group}?op=add", userId=ann)
    post(client, "/v1/messages/send?type=private", senderId=bob, receiverId=ann, message="hello")
    post(client, "/v1/messages/send?type=private", senderId=ann, receiverId=bob, message="hello yourself")
    last = post(client, "/v1/messages/send?type=group", senderId=ann, groupId=group, message="hello all")
    return ann, last["timestamp"]


def cursor_of_a_stay(client: httpx.Client, user: str) -> str:
    """A cursor that names a membership which has ended since."""
    group = post(client, "/v1/groups/create", groupName="passers-by")["groupId"]
    post(client, f"/v1/groups/{group}?op=add", userId=user)
    cursor = client.get(f"/v1/messages/{user}", params={"sent": "include"}).json()["cursor"]
    post(client, f"/v1/groups/{group}?op=remove", userId=user)
    return str(cursor)


@pytest.mark.parametrize("flags", [(), ("--tail-max-bytes", "0")], ids=["with a tail", "without"])
def test_no_news_costs_no_read(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Once the heads are known, a poll without news asks no store, by a new, old or ancient cursor or timestamp."""
    with ServerProcess.start(tmp_path, *flags) as server, httpx.Client(base_url=server.url) as client:
        ann, last = populate(client)
        path = f"/v1/messages/{ann}"
        ancient = client.get(path, params={"sent": "include"}).json()["cursor"]
    with ServerProcess.start(tmp_path, *flags) as server, httpx.Client(base_url=server.url) as client:
        old = client.get(path, params={"cursor": ancient, "sent": "include"}).json()["cursor"]
        populate(client)  # others go on writing
        new = client.get(path, params={"cursor": old, "sent": "include"}).json()["cursor"]
        now = client.get(path, params={"cursor": "now", "sent": "include"}).json()["cursor"]
        ended = [cursor_of_a_stay(client, ann) for _ in range(2)]
        for cursor in (*ended, *ended):  # that a stay has ended is for the store to say, once
            client.get(path, params={"cursor": cursor, "sent": "include"})
        questions: list[dict[str, Any]] = [{"cursor": cursor} for cursor in (new, old, ancient, now, *ended)]
        questions += [{"timestamp": last}, {"timestamp": int(last) + 3_600_000}]
        questions += [{**one, "sent": "include"} for one in questions]
        questions += [{**one, "limit": 1} for one in questions]
        before = store_calls(server.url)
        assert before > 0
        for params in questions:
            answer = client.get(path, params=params)
            assert answer.json()["messages"] is None
            assert store_calls(server.url) == before, params


def counts(url: str) -> dict[str, float]:
    """Polls, calls to the store, and looks at whether another process committed, of all workers together."""
    text = httpx.get(f"{url}/metrics").text
    names = ("tidings_polls_total", "tidings_store_calls_total", "tidings_freshness_checks_total")
    found = {name: re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE) for name in names}
    return {name: sum(map(float, values)) for name, values in found.items()}


def test_with_two_workers_a_poll_without_news_costs_one_look(tmp_path: Path) -> None:
    """No worker asks its store for a poll without news; each looks once whether the other committed, counted apart."""
    with ServerProcess.start(tmp_path, "--workers", "2") as server, ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=server.url)) for _ in range(8)]
        ann, last = populate(clients[0])
        path, ways = f"/v1/messages/{ann}", [{"timestamp": last}]
        ways.append({"cursor": clients[0].get(path).json()["cursor"]})
        for client in clients:  # each worker learns of her once
            for params in ways:
                assert client.get(path, params=params).json()["messages"] is None
        asked = 2 * len(clients) + 1
        until(lambda: counts(server.url)["tidings_polls_total"] == asked)
        before = counts(server.url)
        for client in clients:
            for params in ways * 5:
                assert client.get(path, params=params).json()["messages"] is None
        polls = 10 * len(clients)
        until(lambda: counts(server.url)["tidings_polls_total"] == asked + polls)
        after = counts(server.url)
    assert after["tidings_store_calls_total"] == before["tidings_store_calls_total"] > 0
    assert after["tidings_freshness_checks_total"] == before["tidings_freshness_checks_total"] + polls
