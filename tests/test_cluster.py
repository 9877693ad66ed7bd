"""`make cluster`: brought up for real, used through its balancer, hurt, and ended without a trace."""

import os
import re
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clustered import Clustered
from tests.server import until
from tools.cluster import parts
from tools.cluster.keeping import Failed

SENDS = 12


@pytest.fixture
def standin() -> None:
    """The store that `make cluster` starts where none is named."""
    try:
        parts.standin(1)
    except Failed as error:
        pytest.skip(str(error))


def created(url: str, name: str) -> str:
    user_id: str = httpx.post(f"{url}/v1/users/create", json={"username": name}).json()["userId"]
    return user_id


def texts(url: str, user_id: str) -> list[str]:
    answer: dict[str, Any] = httpx.get(f"{url}/v1/messages/{user_id}", timeout=30).json()
    return [message["message"] for message in answer["messages"] or ()]


@pytest.mark.usefixtures("standin")
def test_a_cluster_from_its_start_to_its_end(tmp_path: Path) -> None:
    """What is printed works as pasted; a node is killed under callers who notice nothing, and comes back; SIGINT
    ends it with 0, and no process is left."""
    with Clustered.start(tmp_path) as cluster:
        assert [*cluster.pids] == ["store", "feed", "node-1", "node-2", "node-3", "balancer"]
        assert {*cluster.pids.values(), cluster.process.pid} <= cluster.left().keys()
        _paste_what_is_printed(cluster)
        ann, bob = created(cluster.url, "ann"), created(cluster.url, "bob")
        victim = cluster.pids["node-2"]
        sent = _kill_under_sends(cluster, victim, ann, bob)
        cluster.expect(rf"node-2 \(pid {victim}\) ended \(SIGKILL\); it is started again now$")
        assert cluster.expect(r"node-2 is back, as pid (\d+)$")[1] != str(victim)
        for node in cluster.nodes:
            until(lambda node=node: sorted(texts(node, bob)) == sorted(sent))  # type: ignore[misc]
        cluster.process.send_signal(signal.SIGINT)
        assert cluster.wait() == 0
        assert cluster.output.text.endswith("all of it has ended\n")
        assert not cluster.left()
        assert cluster.errors.text == ""


def _paste_what_is_printed(cluster: Clustered) -> None:
    """The first commands that it prints give the message that was sent, then each node's answer."""
    told = cluster.output.text.partition("each node has it:\n")[2].partition("The command")[0]
    last: list[str] = []

    def is_everywhere() -> bool:  # which may take a second
        done = subprocess.run(["bash", "-euc", told], capture_output=True, text=True, timeout=60, check=True)
        last[:] = done.stdout.splitlines()
        assert len(last) == 1 + len(cluster.nodes), done
        return all('"message":"Hi"' in line and '"seq":1' in line for line in last)

    until(is_everywhere, what=f"{last}")


def _kill_under_sends(cluster: Clustered, victim: int, ann: str, bob: str) -> list[str]:
    """Ann sends to bob with keys, all at once; those that came to one of the three nodes are there as it is killed."""

    def send(number: int) -> str:
        body = {"senderId": ann, "receiverId": bob, "message": f"{number} of {SENDS}"}
        url = f"{cluster.url}/v1/messages/send?type=private"
        answer = httpx.post(url, json=body, headers={"Idempotency-Key": str(number)}, timeout=30)
        assert answer.status_code == 200, answer.text
        return body["message"]

    os.kill(victim, signal.SIGSTOP)
    with ThreadPoolExecutor(SENDS) as senders:
        sending = [senders.submit(send, number) for number in range(SENDS)]
        until(lambda: sum(one.done() for one in sending) >= SENDS * 2 // 3)
        os.kill(victim, signal.SIGKILL)
        return [one.result() for one in sending]


@pytest.mark.usefixtures("standin")
def test_without_a_feed_a_cluster_is_read_all_the_same(tmp_path: Path) -> None:
    """While the feed hangs no node is ready; the balancer asks them all the same, and they read from the store."""
    with Clustered.start(tmp_path, "--nodes", "2") as cluster:
        ann = created(cluster.url, "ann")
        note = {"senderId": ann, "receiverId": ann, "message": "A note"}
        assert httpx.post(f"{cluster.url}/v1/messages/send?type=private", json=note).status_code == 200
        os.kill(cluster.pids["feed"], signal.SIGSTOP)
        for node in (*cluster.nodes, cluster.url):
            until(lambda node=node: httpx.get(f"{node}/readyz").status_code == 503)  # type: ignore[misc]
        log = tmp_path / "logs" / "balancer.log"
        until(lambda: log.read_text().count(" is DOWN,") == len(cluster.nodes))
        for _ in cluster.nodes:
            assert texts(cluster.url, ann) == ["A note"]
        assert httpx.post(f"{cluster.url}/v1/messages/send?type=private", json=note, timeout=30).status_code == 503
        os.kill(cluster.pids["feed"], signal.SIGCONT)
        for node in (*cluster.nodes, cluster.url):
            until(lambda node=node: httpx.get(f"{node}/readyz").status_code == 200)  # type: ignore[misc]


@pytest.mark.usefixtures("standin")
def test_nobody_outlives_the_one_who_ends_them(tmp_path: Path) -> None:
    """Killed, it can end nothing any more; all that it started ends by itself."""
    with Clustered.start(tmp_path, "--nodes", "1") as cluster:
        cluster.process.kill()
        cluster.process.wait()
        until(lambda: not cluster.left(), what=f"{cluster.left()}")


@pytest.mark.usefixtures("standin")
def test_without_its_store_a_cluster_ends(tmp_path: Path) -> None:
    """The stand-in has all in memory: when it ends, so does everything, and that is said."""
    with Clustered.start(tmp_path, "--nodes", "1") as cluster:
        os.kill(cluster.pids["store"], signal.SIGKILL)
        assert cluster.wait() == 1
        said = rf"make cluster: store \(pid {cluster.pids['store']}\) ended \(SIGKILL\), and with it all .*\n"
        assert re.fullmatch(said, cluster.errors.text)
        assert not cluster.left()


def refused(tmp_path: Path, *flags: str) -> str:
    """The one line with which a cluster does not start."""
    with Clustered(tmp_path, *flags) as cluster:
        assert cluster.wait() == 1
        assert re.fullmatch(r"make cluster: [^\n]+\n", cluster.errors.text), cluster.errors.text
        assert (cluster.output.text, cluster.left()) == ("", {})
        return cluster.errors.text


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    """Where somebody listens already, the line says so, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port} can't be had" in refused(tmp_path, "--port", str(port))


def test_a_store_that_is_not_there_is_said(tmp_path: Path) -> None:
    """A store that is named and does not answer ends it with what `tidings store init` says."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert endpoint in refused(tmp_path, "--store", f"dynamodb://local/tidings?endpoint={endpoint}")


@pytest.mark.parametrize(
    ("needs_feed", "named"),
    [(True, "haproxy and redis-server must be installed"), (False, "haproxy must be installed")],
    ids=["all", "the balancer"],
)
def test_what_must_be_installed_is_said(
    needs_feed: bool, named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One line names what is missing, and how to get it; a feed that is named needs no server of its own."""
    monkeypatch.setattr(parts, "WHERE", str(tmp_path))
    with pytest.raises(Failed, match=named) as caught:
        parts.find_programs(needs_feed=needs_feed)
    assert f"sudo apt-get install {named.removesuffix(' must be installed').replace(' and', '')}" in str(caught.value)
