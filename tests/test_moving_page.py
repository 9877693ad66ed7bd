"""docs/moving.md, command by command as it is written: it does what it says, and prints what it shows."""

import re
import shlex
from pathlib import Path

import pytest

from tests.api_client import Api, refused
from tests.cluster import tables
from tests.moved import url_of
from tests.pages import ROOT, fences
from tests.redis_server import RedisServer
from tests.server import ServerProcess
from tests.shell import Shell

pytest_plugins = "tests.moving"

PAGE = ROOT / "docs" / "moving.md"
NUMBER = re.compile(r"\d+(\.\d+)?")
AWS, REDIS = re.compile(r"dynamodb://eu-central-1/([a-z]+)"), "redis://10.0.0.5:6379/0"


def steps() -> list[tuple[str, str]]:
    """Each command of the page, and what is shown behind it."""
    shown = "".join(block.text for block in fences(PAGE) if block.text.startswith("$ "))
    found = [step.partition("\n") for step in re.split(r"^\$ tidings ", shown, flags=re.MULTILINE)[1:]]
    return [(command, told) for command, _, told in found]


def likeness(text: str, prefixes: dict[str, str]) -> str:
    """What is printed, with the page's names of tables, and without numbers."""
    for name, store in prefixes.items():
        prefix = re.search(r"/(t-[0-9a-f]+)\?", store)[1]  # type: ignore[index]
        text = text.replace(store, f"dynamodb://eu-central-1/{name}").replace(prefix, name)
    return NUMBER.sub("N", text.strip())


@pytest.mark.slow
def test_the_page_is_true(tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, on a server with a few messages, in the page's order; what is said in between holds."""
    monkeypatch.chdir(tmp_path)
    seen = []
    with tables(make=False) as rehearsal, tables(make=False) as real, RedisServer(tmp_path) as redis:
        stores = {"rehearsal": rehearsal, "tidings": real}
        with ServerProcess.start(tmp_path / "data") as server, Api(server.url) as api:
            ann, bob = api.user("ann"), api.user("bob")
            hikers = api.group("hikers", ann, bob)
            api.private(ann, bob, "hello")
            api.groupwide(bob, hikers, "hello all")
            cursor = api.poll(bob, cursor="now")["cursor"]
            for command, told in steps():
                words = [AWS.sub(lambda m: stores[m[1]], word) for word in shlex.split(command)]
                seen.append(words[0])
                if words[0] == "serve":
                    flags = [redis.url if word == REDIS else word for word in words[1:]]
                    with ServerProcess.start(tmp_path, *flags, env=shell.env) as node, Api(node.url) as tables_url:
                        assert tables_url.texts(bob, cursor=cursor) == ["before the move"]
                    continue
                if words[:2] == ["export", "moved.jsonl"]:
                    api.private(ann, bob, "before the move")
                assert likeness(shell.done(*words), stores) == NUMBER.sub("N", told.strip()), command
                if words[:2] == ["export", "moved.jsonl"]:
                    late = {"senderId": ann, "receiverId": bob, "message": "late"}
                    refused(api.post("/v1/messages/send?type=private", late), 503, "store_closed")
            api.private(ann, bob, "open again")
    with ServerProcess.start(tmp_path / "back") as server, Api(server.url) as api:
        assert api.texts(bob, cursor=cursor) == ["before the move"]
    assert seen.count("export") == seen.count("import") == 3
    shell.done("doctor", "--store", url_of(tmp_path / "back" / "tidings.db"))
