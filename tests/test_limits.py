"""Every limit, below, at and above it: one more than the limit is refused under its code, and does nothing."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from tests.api_client import Api
from tests.bad_input import Wire
from tests.server import ServerProcess
from tidings.config import Settings

HERE = Path(__file__).parent
SMALL = {
    "name_max_chars": 5,
    "message_max_bytes": 9,
    "body_max_bytes": 1024,
    "uri_max_bytes": 1024,
    "headers_max_bytes": 1024,
    "page_max": 3,
    "wait_max_s": 2,
    "groups_per_user_max": 2,
    "blocks_per_user_max": 2,
    "members_per_group_max": 3,
}
# Limits on what waits or is held, which take more than a call: the file and the words by which they are tested.
ELSEWHERE = {
    "page_max_chars": ("test_bounds.py", "test_a_page_holds_only_so_much_text"),
    "waits_per_user_max": ("test_bounds.py", "--waits-per-user-max"),
    "waits_max": ("test_bounds.py", "--waits-max"),
    "mailbox_waiting_max": ("test_bounds.py", "--mailbox-waiting-max"),
    "writes_waiting_max": ("test_bounds.py", "--writes-waiting-max"),
    "write_wait_s": ("test_bounds.py", "--write-wait-s"),
    "read_wait_s": ("test_cold_reads.py", "read_wait_s="),
    "cold_reads_max": ("test_cold_reads.py", "cold_reads_max="),
    "cold_reads_waiting_max": ("test_cold_reads.py", "cold_reads_waiting_max="),
    "tail_window_s": ("test_bounds.py", "--tail-window-s"),
    "tail_max_bytes": ("test_bounds.py", "--tail-max-bytes"),
    "directory_max_users": ("test_bounds.py", "--directory-max-users"),
    "directory_max_heads": ("test_bounds.py", "--directory-max-heads"),
    "keep_alive_s": ("test_protocol.py", "--keep-alive-s"),
    "grace_s": ("test_serve.py", "--grace-s"),
}
# Numbers that refuse nothing.
NO_LIMITS = {
    "port",
    "workers",
    "feed_look_s",
    "heartbeat_s",
    "index_lag_max",
    "news_kept_s",
    "retention_days",
    "slow_call_s",
}


@dataclass(frozen=True)
class Limit:
    """A limit of the settings; `call` makes a call of size n, and of sizes 1 to n - 1 first where it counts things."""

    setting: str
    what: str
    call: Callable[["Scene", int], tuple[int, str]]
    status: int
    code: str


class Scene:
    """A server with small limits, and calls to it of any size; each gives status and code."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.ann = api.user("ann")
        self.hikers = api.group("walks", self.ann)

    def said(self, wire_bytes: bytes) -> tuple[int, str]:
        with Wire(self.api.url) as wire:
            wire.say(wire_bytes)
            said = wire.hear()
        return said.status, "" if said.status == 200 else said.json["code"]

    def post(self, path: str, fields: dict[str, str], size: int = 0, *, chunked: bool = False) -> tuple[int, str]:
        body = json.dumps(fields, ensure_ascii=False).encode().ljust(size)
        if chunked:
            framed, how = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), b"Transfer-Encoding: chunked"
        else:
            framed, how = body, b"Content-Length: %d" % len(body)
        return self.said(b"POST %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n%b" % (path.encode(), how, framed))

    def get(self, path: str) -> tuple[int, str]:
        return self.said(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())

    def send(self, text: str) -> tuple[int, str]:
        fields = {"senderId": self.ann, "receiverId": self.ann, "message": text}
        return self.post("/v1/messages/send?type=private", fields)

    def add(self, group: str, user: str) -> tuple[int, str]:
        return self.post(f"/v1/groups/{group}?op=add", {"userId": user})

    def stored(self) -> list[object]:
        """What a refused call must leave as it is."""
        history = self.api.get(f"/v1/groups/{self.hikers}/members", userId=self.ann).json()
        return [self.api.get(f"/v1/users/{self.ann}").json(), self.api.poll(self.ann)["messages"], history]


def headers(scene: Scene, size: int) -> tuple[int, str]:
    """All lines of a head together, with what separates them."""
    lines = b"Host: localhost\r\nX: "
    return scene.said(b"GET /healthz HTTP/1.1\r\n" + lines + b"x" * (size - len(lines) - 2) + b"\r\n\r\n")


def groups(scene: Scene, n: int) -> tuple[int, str]:
    """Of ann, who is in one from the start."""
    here = len(scene.api.get(f"/v1/users/{scene.ann}").json()["groups"])
    joined = [scene.add(scene.api.group("more"), scene.ann) for _ in range(n - here)]
    return joined[-1]


def members(scene: Scene, n: int) -> tuple[int, str]:
    group = scene.api.group("full")
    return [scene.add(group, scene.api.user("eve")) for _ in range(n)][-1]


def blocks(scene: Scene, n: int) -> tuple[int, str]:
    bob = scene.api.user("bob")
    path = f"/v1/users/{bob}?op=block"
    return [scene.post(path, {"blockedUserId": scene.api.user("eve")}) for _ in range(n)][-1]


def page(path: str) -> Callable[[Scene, int], tuple[int, str]]:
    return lambda scene, n: scene.get(path.format(ann=scene.ann, hikers=scene.hikers) + f"limit={n}")


CREATE, BAD_PAGE = "/v1/users/create", (400, "bad_limit")
TABLE = [
    Limit("name_max_chars", "user", lambda s, n: s.post(CREATE, {"username": "n" * n}), 400, "name_too_long"),
    Limit("name_max_chars", "snow", lambda s, n: s.post(CREATE, {"username": "\u2603" * n}), 400, "name_too_long"),
    Limit(
        "name_max_chars",
        "group",
        lambda s, n: s.post("/v1/groups/create", {"groupName": "n" * n}),
        400,
        "name_too_long",
    ),
    Limit("message_max_bytes", "letters", lambda s, n: s.send("m" * n), 413, "message_too_large"),
    Limit("message_max_bytes", "snow", lambda s, n: s.send("\u2603" * 3 + "m" * (n - 9)), 413, "message_too_large"),
    Limit("body_max_bytes", "length", lambda s, n: s.post(CREATE, {"username": "a"}, n), 413, "body_too_large"),
    Limit(
        "body_max_bytes",
        "chunks",
        lambda s, n: s.post(CREATE, {"username": "a"}, n, chunked=True),
        413,
        "body_too_large",
    ),
    Limit("uri_max_bytes", "query", lambda s, n: s.get("/healthz?".ljust(n, "x")), 414, "uri_too_long"),
    Limit("headers_max_bytes", "one line", headers, 431, "headers_too_large"),
    Limit("page_max", "poll", page("/v1/messages/{ann}?"), *BAD_PAGE),
    Limit("page_max", "members", page("/v1/groups/{hikers}/members?userId={ann}&"), *BAD_PAGE),
    Limit("page_max", "history", page("/v1/groups/{hikers}/messages?userId={ann}&"), *BAD_PAGE),
    Limit("wait_max_s", "poll", lambda s, n: s.get(f"/v1/messages/{s.ann}?cursor=now&wait={n}"), 400, "bad_wait"),
    Limit("groups_per_user_max", "join", groups, 409, "too_many_groups"),
    Limit("members_per_group_max", "join", members, 409, "group_full"),
    Limit("blocks_per_user_max", "block", blocks, 409, "too_many_blocks"),
]


@pytest.fixture(scope="module", params=["1", "2"], ids=["one worker", "two workers"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    flags = [part for name, value in SMALL.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    data = tmp_path_factory.mktemp("limits")
    with ServerProcess.start(data, "--workers", request.param, *flags) as server, Api(server.url) as opened:
        yield opened


@pytest.mark.parametrize("limit", TABLE, ids=lambda limit: f"{limit.setting} {limit.what}")
def test_a_limit(limit: Limit, api: Api) -> None:
    """Below and at the limit it is taken; above it is refused under its code, with nothing done."""
    scene, most = Scene(api), SMALL[limit.setting]
    if limit.setting != "groups_per_user_max":
        assert limit.call(scene, most - 1 if limit.what != "snow" else most) == (200, "")
    assert limit.call(scene, most) == (200, "")
    before = scene.stored()
    assert limit.call(scene, most + 1) == (limit.status, limit.code)
    assert scene.stored() == before


def test_every_limit_is_in_the_table() -> None:
    """A setting that bounds something is tried here, or in a file that sets it or reads it."""
    numbers = {field.name for field in fields(Settings) if isinstance(field.default, (int, float))} - {"sent_copies"}
    assert {limit.setting for limit in TABLE} == SMALL.keys()
    assert numbers == SMALL.keys() | ELSEWHERE.keys() | NO_LIMITS
    for setting, (file, words) in ELSEWHERE.items():
        assert words in (HERE / file).read_text(), f"{file} does not test {setting}"
