"""Everything that can be wrong with a call: each row has its status, code and problem, and nothing is half done."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api_client import Api
from tests.bad_input import HEALTHZ, LIMITS, QUIET, TABLES, Row, Said, Wire, World
from tests.bad_rows import GOOD, SEND_TO_GROUP, good_row, rows
from tests.server import ServerProcess
from tidings.api.openapi import STATUS
from tidings.routes import ROUTES

TABLE = rows()
HERE = Path(__file__).parent
# Codes that no single call can bring about: who tests them.
ELSEWHERE = {
    "internal": "test_api_faults.py",  # a fault of ours, planted in a handler
    "overloaded": "test_bounds.py",
    "shutting_down": "test_serve.py",
    "mailbox_busy": "test_bounds.py",
    "too_many_waits": "test_bounds.py",
    "store_unavailable": "test_bounds.py",
    "store_full": "faults/test_disk.py",
    "store_corrupt": "faults/test_damage.py",
    "store_closed": "test_moving_closed.py",
    "feed_unavailable": "test_nodes_alone.py",
}


class Tried:
    """A server, the world on it, and how that looked before anything was tried."""

    def __init__(self, api: Api, server: ServerProcess) -> None:
        self.api = api
        self.server = server
        self.world = World(api, server.data)
        self.before = self.world.state()


@pytest.fixture(scope="module", params=["1", "2"], ids=["one worker", "two workers"])
def tried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    data = tmp_path_factory.mktemp("bad")
    with ServerProcess.start(data, "--workers", request.param, *LIMITS, *QUIET) as server, Api(server.url) as api:
        yield Tried(api, server)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.operation or row.method} - {row.name}"[:90])
def test_bad_input(row: Row, tried: Tried) -> None:
    """It is answered as the table says, nothing changed, and the connection is ended or goes on, as was told."""
    with Wire(tried.server.url) as wire:
        wire.say(row.bytes(tried.world.words))
        said = wire.hear(row.method)
        assert said.status == row.status, said
        _check_form(said, row, tried)
        ends = said.headers.get("connection") == "close"
        assert ends or not row.ends
        if ends:
            assert wire.ended()
        else:
            wire.say(HEALTHZ)
            assert wire.hear().body == b'{"status":"ok"}'
    before, tried.before = tried.before, tried.world.state()
    assert tried.before == before
    assert tried.server.complaints == ""


def _check_form(said: Said, row: Row, tried: Tried) -> None:
    """The answer is JSON or a problem (RFC 9457), safe from caches and pages, and one that the description knows."""
    assert said.headers["cache-control"] == "no-store"
    assert said.headers["x-content-type-options"] == "nosniff"
    assert said.headers.get("allow", "") == row.allow
    if row.status != 200:
        assert said.headers["content-type"] == "application/problem+json"
        assert "retry-after" not in said.headers
        if row.method != "HEAD":
            problem = said.json
            assert (problem["code"], problem["status"]) == (row.code, row.status)
            assert (problem["type"], problem["retry"]) == ("about:blank", False)
            assert set(problem) == {"type", "title", "status", "detail", "code", "retry"}
            assert problem["title"]
            assert 0 < len(problem["detail"]) < 400
    if row.raw is None:
        path = row.operation.partition(" ")[2] or "/nowhere"
        tried.api.description.check(
            said.as_httpx(row.method, tried.server.url + path.replace("{", "").replace("}", ""))
        )


def test_every_call_without_its_fault_is_taken(tmp_path: Path) -> None:
    """What the rows depart from is answered 200, so that it is their fault alone that they are refused for."""
    calls = [good_row(operation, good) for operation, good in GOOD.items()]
    calls.append(good_row("POST /v1/messages/send", SEND_TO_GROUP))
    with ServerProcess.start(tmp_path, *LIMITS, *QUIET) as server, Api(server.url) as api, Wire(server.url) as wire:
        world = World(api, tmp_path)
        before = world.rows()
        for row in calls:
            wire.say(row.bytes(world.words))
            assert wire.hear().status == 200
        made = [after - then for then, after in zip(before, world.rows(), strict=True)]
    stored = dict(zip(TABLES, made, strict=True))
    assert stored.pop("alterations") > 0
    assert stored == {"users": 1, "groups": 1, "memberships": 1, "blocks": 1, "messages": 2, "keys": 0}


def test_the_table_is_whole() -> None:
    """Every operation and every code is in it, or the code has another test, which names it; no row is there twice."""
    assert {row.operation for row in TABLE if row.operation} == {
        f"{method} {path}" for path, methods in ROUTES.items() for method in methods
    }
    assert len({(row.operation, row.method, row.name) for row in TABLE}) == len(TABLE)
    assert all(STATUS[row.code] == row.status for row in TABLE if row.code)
    assert {row.code for row in TABLE if row.code} == STATUS.keys() - ELSEWHERE.keys()
    for code, file in ELSEWHERE.items():
        assert re.search(rf"\b{code}\b", (HERE / file).read_text()), f"{file} does not test {code}"
