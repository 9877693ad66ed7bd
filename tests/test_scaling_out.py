"""docs/scaling-out.md keeps its word: what it shows to be pasted is taken, and is enough; what it names is there."""

import json
import os
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.cluster import Nodes, tables
from tests.clustered import Clustered, skip_without_programs
from tests.pages import ROOT, codes, fences
from tests.redis_server import RedisServer
from tests.server import ServerProcess, StartFailed, until
from tidings.cli.flags import check_variables
from tidings.config import Settings
from tools.cluster import parts

PAGE = ROOT / "docs" / "scaling-out.md"
FEED = ROOT / "src" / "tidings" / "feed" / "redis"
STORE = ROOT / "src" / "tidings" / "store" / "dynamodb"
FILES = {
    block.text.partition("\n")[0].removeprefix("# "): block.text.partition("\n")[2]
    for block in fences(PAGE)
    if block.text.startswith("# ")
}
FOR_REPLICAS = "min-replicas"


def redis_flags(*, with_replicas: bool) -> list[str]:
    """The page's redis.conf as a command line, with what is meant for a primary with replicas or without it."""
    lines = [line.split() for line in FILES["redis.conf"].splitlines()]
    asked = [line for line in lines if with_replicas or not line[0].startswith(FOR_REPLICAS)]
    return [word for name, value in asked for word in (f"--{name}", value.strip('"'))]


def drivers() -> str:
    """The page's command that installs them."""
    (command,) = (block.text.strip() for block in fences(PAGE) if "EXTRAS=" in block.text)
    return command


@pytest.mark.slow
def test_what_installs_the_drivers_does(tmp_path: Path) -> None:
    """The page's command makes an environment with all that a node takes, in the versions of the tests alone."""
    place = tmp_path / "venv"
    command = [*drivers().split(), f"VENV={place}"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    subprocess.run(command, cwd=ROOT, env=clean, timeout=600, check=True)
    python = str(place / "bin" / "python")
    subprocess.run([python, "-c", "import tidings.store.dynamodb, tidings.feed.redis, hiredis"], timeout=60, check=True)
    subprocess.run([python, "-m", "pip", "check", "--disable-pip-version-check"], timeout=60, check=True)
    freezing = [python, "-m", "pip", "freeze", "--exclude", "tidings", "--disable-pip-version-check"]
    frozen = subprocess.run(freezing, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    assert {*frozen} < {*(ROOT / "requirements-dev.txt").read_text().split()}
    assert {*(ROOT / "requirements.txt").read_text().split()} < {*frozen}
    again = subprocess.run([*command, "--question"], cwd=ROOT, env=clean, timeout=60, check=False)
    assert again.returncode == 0, "there is nothing left to do"


@pytest.mark.parametrize("driver", ["aiobotocore", "redis"])
def test_a_node_without_its_drivers_says_how_to_get_them(tmp_path: Path, driver: str) -> None:
    """Where one is not installed, a node does not start, and names the page's command in one line."""
    lacking = tmp_path / "lacking" / driver
    lacking.mkdir(parents=True)
    (lacking / "__init__.py").write_text("raise ImportError")
    flags = ("--store", "dynamodb://eu-central-1/tidings", "--feed", "redis://127.0.0.1:1/0")
    with pytest.raises(StartFailed) as failed:
        ServerProcess.start(tmp_path, *flags, env={"PYTHONPATH": str(lacking.parent)})
    assert drivers() in failed.value.stderr
    assert failed.value.stderr.count("\n") == 1, failed.value.stderr


def test_the_balancer_shown_is_the_one_that_is_run(tmp_path: Path) -> None:
    """HAProxy takes the page's configuration; but for places and numbers it is that of `make cluster`."""
    skip_without_programs()
    program, _ = parts.find_programs(needs_feed=False)
    shown = tmp_path / "shown.cfg"
    shown.write_text(FILES["haproxy.cfg"])
    done = subprocess.run([program, "-c", "-f", str(shown)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    parts.balancer(program, 1, {"node-1": 2}, tmp_path)
    assert rules(shown) == rules(tmp_path / "haproxy.cfg")


def rules(config: Path) -> list[str]:
    """The lines of a balancer's configuration, without those that say where and how many."""
    words = [line.split() for line in config.read_text().splitlines() if line]
    return [" ".join(line) for line in words if line[0] not in ("server", "bind", "maxconn")]


def test_the_policy_has_each_action_that_is_called() -> None:
    """The page's policy, and its line on making tables, allow what the store's source calls, and no more.

    (AWS asks of a transaction what it would ask of the writes in it.)
    """
    source = "".join(path.read_text() for path in STORE.glob("*.py"))
    called = set(re.findall(r'(?:\.read|\.write|\.of_itself|\.ask|_offered)\(\s*(?:driver,\s*)?"(\w+)"', source))
    called.remove("transact_write_items")
    actions = {"".join(map(str.title, name.split("_"))) for name in called}
    actions |= {f"{name}Item" for name in re.findall(r'\{"(Put|Update|Delete|ConditionCheck)": ', source)}
    (allowed,) = json.loads(FILES["policy of a node"])["Statement"]
    named = {*allowed["Action"], *(code for code in codes(PAGE) if re.fullmatch(r"dynamodb:\w+", code))}
    assert {name.removeprefix("dynamodb:") for name in named} == actions


def test_what_to_watch_is_there(two_nodes: Nodes) -> None:
    """Each metric that the page names is one of those that a node gives."""
    given = httpx.get(f"{two_nodes.urls[0]}/metrics").text
    named = {code for code in codes(PAGE) if re.fullmatch(r"tidings_\w+", code)}
    assert "tidings_feed_proof_age_seconds" in named
    for name in named:
        assert re.search(rf"^# TYPE {name.removesuffix('_total')}(_total)? ", given, re.MULTILINE), name


def test_a_node_s_settings_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that the page sets for a node are settings, with values that are taken."""
    text = FILES["tidings@.service"].replace("Environment=", "") + FILES["tidings.env"]
    chosen = dict(re.findall(r"^(TIDINGS_\w+)=(\S+)$", text, re.MULTILINE))
    assert {"TIDINGS_STORE", "TIDINGS_FEED", "TIDINGS_ALLOWED_HOSTS"} == {*chosen}
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    check_variables()
    Settings(**{name.removeprefix("TIDINGS_").lower(): value for name, value in chosen.items()})


def test_the_feed_s_user_may_do_what_nodes_do(tmp_path: Path) -> None:
    """With the page's settings and the page's user, who may do nothing else, two nodes hear each other."""
    acl = FILES["users.acl"].split()
    assert acl[:2] == ["user", "tidings"]
    with RedisServer(tmp_path, *redis_flags(with_replicas=False), "--user", *acl[1:]) as redis, tables() as store:
        redis.call("ACL", "SETUSER", "default", "off")
        feed = redis.url.replace("//", "//tidings:PASSWORD@")
        with Clustered.start(tmp_path, "--nodes", "2", "--store", store, "--feed", feed) as cluster:
            one, other = cluster.nodes
            ann = httpx.post(f"{one}/v1/users/create", json={"username": "ann"}).json()["userId"]
            note = {"senderId": ann, "receiverId": ann, "message": "A note"}
            waiting = f"{other}/v1/messages/{ann}"
            cursor = httpx.get(waiting).json()["cursor"]
            assert httpx.post(f"{one}/v1/messages/send?type=private", json=note).status_code == 200
            news = httpx.get(waiting, params={"cursor": cursor, "wait": "30"}, timeout=60).json()["messages"]
            assert [message["message"] for message in news] == ["A note"]


def test_the_feed_s_user_may_do_all_that_is_ever_asked() -> None:
    """Each command in the source of the feed, the rare ones too, is one that the page's user may give."""
    source = "".join(path.read_text() for path in (*FEED.glob("*.lua"), *FEED.glob("*.py")))
    asked = set(re.findall(r"redis\.call\('(\w+)'", source)) | set(re.findall(r'_asking, "(\w+)', source))
    asked |= set(re.findall(r'_reading, "(\w+)', source))
    assert {"XADD", "EVALSHA", "XREAD", "SCRIPT"} <= asked
    may = {word[1:].partition("|")[0].upper() for word in FILES["users.acl"].split() if word.startswith("+")}
    assert may - {"AUTH", "HELLO", "SELECT"} == asked


def test_a_primary_without_its_replicas_takes_nothing(tmp_path: Path) -> None:
    """With the page's lines for replicas, of which there is none, no node is ready."""
    with tables() as store, RedisServer(tmp_path, *redis_flags(with_replicas=True)) as redis:
        flags = ("--store", store, "--feed", redis.url)
        with ServerProcess.start(tmp_path, *flags) as node:
            answer = httpx.get(f"{node.url}/readyz")
            assert (answer.status_code, answer.json()["code"]) == (503, "feed_unavailable")
            redis.call("CONFIG", "SET", "min-replicas-to-write", "0")
            until(lambda: httpx.get(f"{node.url}/readyz").status_code == 200)
