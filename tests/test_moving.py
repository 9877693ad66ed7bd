"""A team moves from one machine to many nodes, and back: its users' cursors, keys, blocks and stays go on."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api_client import Api, refused
from tests.moved import url_of
from tests.redis_server import RedisServer
from tests.server import ServerProcess, until
from tests.shell import Shell

pytest_plugins = "tests.moving"

Messages = list[dict[str, Any]]


class Users:
    """Ann, Bob, Carol and Eve, on whichever server; `kept` are their cursors, with how each was asked for."""

    def __init__(self, api: Api) -> None:
        self.ann, self.bob, self.carol, self.eve = [api.user(name) for name in ("ann", "bob", "carol", "eve")]
        self.everybody = (self.ann, self.bob, self.carol, self.eve)
        self.hikers = api.group("hikers", self.ann, self.bob, self.carol, self.eve)
        self.readers = api.group("readers", self.ann)
        self.kept: list[tuple[str, str, dict[str, str]]] = []
        self.keyed: list[tuple[str, dict[str, str], str, Any]] = []

    def talk(self, api: Api, word: str) -> None:
        """Each writes to somebody and to the group; cursors are kept in between, of whole answers and of pages."""
        for n in range(3):
            for sender, receiver in ((self.ann, self.bob), (self.bob, self.ann), (self.carol, self.carol)):
                api.private(sender, receiver, f"{word} {n}")
                api.groupwide(sender, self.hikers, f"{word} all {n}")
            self.keep(api)

    def keep(self, api: Api) -> None:
        """Take cursors of everybody's."""
        for user in self.everybody:
            for asked in (
                {},
                {"limit": "2"},
                {"sent": "include"},
                {"sent": "include", "limit": "3"},
                {"cursor": "now"},
            ):
                cursor = api.poll(user, **asked)["cursor"]
                self.kept.append((user, cursor, {name: asked[name] for name in ("sent",) if name in asked}))

    def change(self, api: Api) -> None:
        """Stays end and begin again; who was blocked is no longer, somebody else is."""
        api.remove(self.hikers, self.carol)
        api.groupwide(self.bob, self.hikers, "without Carol")
        api.add(self.hikers, self.carol)
        api.remove(self.hikers, self.eve)
        api.block(self.bob, self.eve)

    def use_keys(self, api: Api, name: str) -> None:
        """A private message, one to the group, and a user, each with a key."""
        private = {"senderId": self.ann, "receiverId": self.carol, "message": f"once {name}"}
        to_all = {"senderId": self.ann, "groupId": self.hikers, "message": f"once {name}"}
        for path, body in (
            ("messages/send?type=private", private),
            ("messages/send?type=group", to_all),
            ("users/create", {"username": f"once {name}"}),
        ):
            key = f"{path}-{name.replace(' ', '-')}"
            answer = api.post(f"/v1/{path}", body, key=key)
            assert answer.status_code == 200
            self.keyed.append((path, body, key, answer.json()))

    def rest(self, api: Api) -> list[Messages | None]:
        """What each cursor that was kept gives now."""
        return [api.poll(user, cursor=cursor, **asked)["messages"] for user, cursor, asked in self.kept]

    def check(self, api: Api) -> None:
        """Keys are answered as they were, and refused with other content; blocks and stays decide as before."""
        for path, body, key, answer in self.keyed:
            assert api.post(f"/v1/{path}", body, key=key).json() == answer
            changed = {name: f"{value}!" if name in ("message", "username") else value for name, value in body.items()}
            refused(api.post(f"/v1/{path}", changed, key=key), 422, "idempotency_key_reused")
        to_bob = {"senderId": self.eve, "receiverId": self.bob, "message": "hello"}
        refused(api.post("/v1/messages/send?type=private", to_bob), 403, "blocked")
        to_all = {"senderId": self.eve, "groupId": self.hikers, "message": "hello"}
        refused(api.post("/v1/messages/send?type=group", to_all), 403, "not_a_member")

    def shown(self, api: Api) -> list[Any]:
        """Everybody with groups, seqs of joining, and blocks."""
        return [api.get(f"/v1/users/{user}").json() for user in self.everybody]


@contextmanager
def cluster(store: str, directory: Path, shell: Shell) -> Iterator[Api]:
    """Two nodes on these tables, asked in turn."""
    with RedisServer(directory) as redis, ExitStack() as stack:
        urls = []
        for _ in range(2):
            flags = ("--store", store, "--feed", redis.url)
            urls.append(stack.enter_context(ServerProcess.start(directory, *flags, env=shell.env)).url)
        for url in urls:
            until(lambda url=url: httpx.get(f"{url}/readyz").status_code == 200)  # type: ignore[misc]
        yield stack.enter_context(Api(*urls))


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_users_notice_nothing(workers: str, tables_url: str, tmp_path: Path, shell: Shell) -> None:
    """From a server to two nodes and back to a server: whatever cursor, it gives exactly what it would have given."""
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    with ServerProcess.start(tmp_path, "--workers", workers) as server, Api(server.url) as api:
        users = Users(api)
        users.talk(api, "first")
        users.change(api)
        users.talk(api, "then")
        users.use_keys(api, "on one")
        shell.done("export", first, "--store", url_of(tmp_path / "tidings.db"), "--close")
        rest, shown = users.rest(api), users.shown(api)
    assert any(rest)
    shell.done("import", first, "--store", tables_url)

    with cluster(tables_url, tmp_path, shell) as api:
        assert (users.rest(api), users.shown(api)) == (rest, shown)
        last = max(int(message["timestamp"]) for messages in rest if messages for message in messages)
        assert int(api.private(users.ann, users.bob, "here now")["timestamp"]) > last
        until(lambda: api.texts(users.bob, timestamp=last) == ["here now"])
        users.check(api)  # all that came along was passed by now: what is repeated is no news
        assert [api.texts(user, timestamp=last) for user in users.everybody] == [[], ["here now"], [], []]
        users.talk(api, "on many")
        users.use_keys(api, "on many")
        assert shell.run("export", second, "--store", tables_url, "--close").returncode == 0
        rest, shown = users.rest(api), users.shown(api)
        late = {"senderId": users.ann, "receiverId": users.bob, "message": "late"}
        refused(api.post("/v1/messages/send?type=private", late), 503, "store_closed")

    shell.done("import", second, "--store", url_of(tmp_path / "back" / "tidings.db"))
    shell.done("doctor", "--store", url_of(tmp_path / "back" / "tidings.db"))
    with ServerProcess.start(tmp_path / "back", "--workers", workers) as server, Api(server.url) as api:
        assert (users.rest(api), users.shown(api)) == (rest, shown)
        users.check(api)
        users.talk(api, "back")
        assert [api.texts(user, cursor="now") for user in users.everybody] == [[]] * 4
    shell.done("doctor", "--store", url_of(tmp_path / "back" / "tidings.db"))
