"""Every queue and wait has its bound, and who meets it is told so; what was accepted is kept all the same.

A hand on the store's turn lock stands for a process that was stopped while it held the file.
"""

import fcntl
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.api_client import Api, refused
from tests.bad_input import Wire
from tests.faults.flood import request
from tests.server import ServerProcess, until
from tests.sockets import Raw, closing, opened


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


def long_poll(api: Api, user: str) -> Wire:
    """A long-poll that was asked for."""
    wire = Wire(api.url)
    wire.say(request("GET", f"/v1/messages/{user}?cursor={api.poll(user)['cursor']}&wait=60"))
    return wire


def event_stream(api: Api, user: str) -> Wire:
    """A stream that was asked for."""
    wire = Wire(api.url)
    wire.say(request("GET", f"/v1/messages/{user}/stream"))
    return wire


def web_socket(api: Api, user: str) -> Raw:
    """A socket whose handshake was accepted."""
    return Raw.shaken(api.url, user)


HELD: dict[str, Callable[[Api, str], Wire | Raw]] = {
    "long-poll": long_poll,
    "stream": event_stream,
    "socket": web_socket,
}


def refused_one_more(api: Api, kind: str, user: str, status: int, code: str) -> None:
    """Check that one more of a kind is told to come back."""
    if kind == "socket":
        with opened(api.url, user) as socket:
            close, reason = closing(socket)
        assert (close, reason["code"], reason["retry"]) == (4000 + status, code, True)
        assert reason["after"] >= 1
    else:
        with HELD[kind](api, user) as wire:
            assert isinstance(wire, Wire)
            said = wire.hear()
        assert (said.status, said.json["code"], said.json["retry"]) == (status, code, True)
        assert int(said.headers["retry-after"]) >= 1


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server that holds four, two of a user."""
    flags = ("--waits-max", "4", "--waits-per-user-max", "2")
    with ServerProcess.start(tmp_path_factory.mktemp("few"), *flags) as server, Api(server.url) as made:
        yield made
        assert server.complaints == ""


@pytest.mark.parametrize("kind", HELD)
def test_all_that_is_held_is_bounded_together(few: Api, kind: str) -> None:
    """A long-poll, a stream and a socket count alike: the fifth, whichever it is, is 503; one that ends makes room."""
    with ExitStack() as stack:
        bob = few.user("bob")
        for each in HELD.values():
            stack.enter_context(each(few, few.user("ann")))
        with HELD[kind](few, few.user("carol")):
            until(lambda: few.counted("tidings_waits") == 4)
            for other in HELD:
                refused_one_more(few, other, bob, 503, "overloaded")
            assert few.counted("tidings_waits") == 4
        until(lambda: few.counted("tidings_waits") == 3)
        stack.enter_context(HELD[kind](few, bob))
        until(lambda: few.counted("tidings_waits") == 4)
    until(lambda: few.counted("tidings_waits") == 0)


@pytest.mark.parametrize("kind", HELD)
def test_all_that_a_user_holds_is_bounded_together(few: Api, kind: str) -> None:
    """Of a user who may hold two, the third of any kind is 429, beside whichever two it is; another user has room."""
    bob = few.user("bob")
    for first in HELD:
        with ExitStack() as stack:
            ann = few.user("ann")
            for each in (first, kind):
                stack.enter_context(HELD[each](few, ann))
            until(lambda: few.counted("tidings_waits") == 2)
            for other in HELD:
                refused_one_more(few, other, ann, 429, "too_many_waits")
            stack.enter_context(HELD[kind](few, bob))
            until(lambda: few.counted("tidings_waits") == 3)
        until(lambda: few.counted("tidings_waits") == 0)


def test_memory_of_users_and_heads_is_bounded(tmp_path: Path) -> None:
    """Of users and heads as many are held as there may be, and the others are answered all the same."""
    flags, held = ("--directory-max-users", "3", "--directory-max-heads", "5"), []
    with ServerProcess.start(tmp_path, *flags) as server, Api(server.url) as api:
        for user in [api.user("ann") for _ in range(8)]:
            assert api.poll(user)["messages"] is None
            held.append((api.counted("tidings_directory_users"), api.counted("tidings_directory_heads")))
    assert [users for users, _ in held] == [1, 2, 3, 3, 3, 3, 3, 3]
    assert [heads for _, heads in held] == [1, 2, 3, 4, 5, 5, 5, 5]


def test_memory_of_messages_is_bounded_by_its_bytes(tmp_path: Path) -> None:
    """Recent messages are held up to so many bytes, then the oldest leave; all of them are read all the same."""
    most = 50_000
    with ServerProcess.start(tmp_path, "--tail-max-bytes", str(most)) as server, Api(server.url) as api:
        ann, held = api.user("ann"), []
        for n in range(20):
            api.private(ann, ann, f"{n:02}" + "x" * 6_000)
            held.append((api.counted("tidings_tail_messages"), api.counted("tidings_tail_bytes")))
        assert [messages for messages, _ in held[:5]] == [1, 2, 3, 4, 5]
        assert max(size for _, size in held) <= most
        assert held[-1][1] > most - 2 * 6_500
        assert len(api.texts(ann)) == 20


def test_memory_of_messages_is_bounded_by_their_age(tmp_path: Path) -> None:
    """What is older than the window leaves by itself, though nothing new comes; it is read all the same."""
    with ServerProcess.start(tmp_path, "--tail-window-s", "0.5") as server, Api(server.url) as api:
        ann = api.user("ann")
        api.private(ann, ann, "note")
        until(lambda: api.counted("tidings_tail_messages") == 0)
        assert api.texts(ann) == ["note"]
