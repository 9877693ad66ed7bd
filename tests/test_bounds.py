"""Every queue and wait has its bound, and who meets it is told so; what was accepted is kept all the same.

A hand on the store's turn lock stands for a process that was stopped while it held the file.
"""

import fcntl
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.api_client import Api, refused
from tests.server import ServerProcess, until


@contextmanager
def holding_the_file(data: Path) -> Iterator[None]:
    """Keep every writer waiting."""
    with (data / "tidings.db.turn").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """A server whose bounds are near."""
    flags = ("--write-wait-s", "0.3", "--mailbox-waiting-max", "3", "--writes-waiting-max", "5")
    with ServerProcess.start(tmp_path, *flags, "--waits-per-user-max", "2") as server, Api(server.url) as opened:
        yield opened


def test_a_write_that_the_store_does_not_take_is_answered_and_takes_effect_once(api: Api, tmp_path: Path) -> None:
    """While the file is held a send is answered 503, polls go on; its repetition with the same key is the only one."""
    ann, bob = api.user("ann"), api.user("bob")
    cursor = api.poll(bob)["cursor"]
    body = {"senderId": ann, "receiverId": bob, "message": "once"}
    with holding_the_file(tmp_path):
        problem = refused(api.post("/v1/messages/send?type=private", body, key="k"), 503, "store_unavailable")
        assert problem["retry"]
        assert api.poll(bob, cursor=cursor)["messages"] is None
    answers = [api.post("/v1/messages/send?type=private", body, key="k").json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert api.texts(bob, cursor=cursor) == ["once"]


def test_a_mailbox_takes_only_so_many_that_wait(tmp_path: Path) -> None:
    """Over the bound of one mailbox a send is 429; those that wait are kept; other mailboxes are not concerned."""
    flags = ("--mailbox-waiting-max", "3", "--writes-waiting-max", "5")
    with ServerProcess.start(tmp_path, *flags) as server, Api(server.url) as api, ThreadPoolExecutor(8) as pool:
        cast = [api.user(name) for name in ("ann", "bob", "carol", "eve")]
        with holding_the_file(tmp_path):
            waiting = [pool.submit(api.private, cast[0], cast[1], f"message {n}") for n in range(3)]
            until(lambda: api.counted("tidings_writes_waiting") == 3)
            body = {"senderId": cast[2], "receiverId": cast[1], "message": "one too many"}
            refused(api.post("/v1/messages/send?type=private", body), 429, "mailbox_busy")
            waiting += [pool.submit(api.private, cast[2], cast[3], f"elsewhere {n}") for n in range(2)]
            until(lambda: api.counted("tidings_writes_waiting") == 5)
            refused(api.post("/v1/users/create", {"username": "late"}), 503, "overloaded")
        stored = [future.result()["message"] for future in waiting]
        assert sorted(stored) == sorted(api.texts(cast[1]) + api.texts(cast[3]))
        assert api.counted("tidings_writes_waiting") == 0


def test_a_user_holds_only_so_many_long_polls(api: Api) -> None:
    """The third long-poll of a user who may hold two is 429; the two are answered when news comes."""
    ann = api.user("ann")
    cursor = api.poll(ann)["cursor"]

    def held() -> "Future[httpx.Response]":
        return pool.submit(api.get, f"/v1/messages/{ann}", cursor=cursor, wait=30)

    with ThreadPoolExecutor(2) as pool:
        polls = [held(), held()]
        until(lambda: api.counted("tidings_waits") == 2)
        refused(api.get(f"/v1/messages/{ann}", cursor=cursor, wait=30), 429, "too_many_waits")
        api.private(ann, ann, "wake up")
        assert [poll.result().json()["messages"][0]["message"] for poll in polls] == ["wake up", "wake up"]
    until(lambda: api.counted("tidings_waits") == 0)


@pytest.mark.parametrize("since", ["cursor", "timestamp"])
def test_a_page_holds_only_so_much_text(api: Api, since: str) -> None:
    """Forty full messages don't come in one page, whatever its limit; the pages together have each of them once."""
    ann, bob = api.user("ann"), api.user("bob")
    sent = [api.private(ann, bob, f"{n:02}" + "x" * 16_000)["message"] for n in range(40)]
    pages = [api.poll(bob, limit=1000)]
    while pages[-1].get("more"):
        last = pages[-1]["messages"][-1]["timestamp"] if since == "timestamp" else pages[-1]["cursor"]
        pages.append(api.poll(bob, limit=1000, **{since: last}))
    assert [message["message"] for page in pages for message in page["messages"]] == sent
    assert max(len(page["messages"]) for page in pages) == 262_144 // 16_002
    assert api.texts(bob) == sent
