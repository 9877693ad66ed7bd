"""The client's calls: each does what it says, is refused with a type and a code, and takes effect once."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from tests.scene import Foreign, Line, scene
from tests.server import ServerProcess
from tidings import Client, NotUnderstood, Retries, TidingsError, Unreachable
from tidings.client import wire
from tidings.errors import (
    Conflict,
    Internal,
    KeyReused,
    Malformed,
    Refused,
    StoreUnavailable,
    TooLarge,
    Unavailable,
    Unknown,
)

Cast = tuple[Client, str, str]
HURRIED = Retries(total_s=3.0, attempts_max=4)


@scene
async def test_one_method_a_call(server: ServerProcess) -> None:
    """Ann and Bob sign up, write, make a group, read it in three ways, block each other and leave: all by methods."""
    async with Client(server.url + "/") as tidings:
        ann, bob = await tidings.create_user("ann"), await tidings.create_user("bob")
        hikers = await tidings.create_group("hikers")
        assert (ann.username, hikers.group_name) == ("ann", "hikers")
        first = await tidings.send(ann.user_id, bob.user_id, "Any tidings?")
        assert (first.sender_id, first.recipient_id, first.seq) == (ann.user_id, bob.user_id, 1)
        await tidings.add_member(hikers.group_id, ann.user_id)
        texts = [await tidings.send_to_group(ann.user_id, hikers.group_id, text) for text in ("one", "two", "three")]
        await tidings.add_member(hikers.group_id, bob.user_id)

        joined = await tidings.group(hikers.group_id, bob.user_id)
        assert (joined.group_name, joined.joined_seq) == ("hikers", 3)
        assert [member async for member in tidings.members(hikers.group_id, bob.user_id)] == [ann, bob]
        history = await tidings.history(hikers.group_id, bob.user_id, after=1, limit=1)
        assert (history.messages, history.more) == ((texts[1],), True)
        assert (await tidings.history(hikers.group_id, bob.user_id, before=2)).messages == (texts[0],)

        page = await tidings.read(bob.user_id, limit=2)
        assert (page.messages, page.more) == ((first, texts[0]), True)
        rest = await tidings.read(bob.user_id, cursor=page.cursor)
        assert (rest.messages, rest.more, rest.expired) == (tuple(texts[1:]), False, False)
        late = await tidings.read(bob.user_id, timestamp=texts[1].timestamp)
        assert (late.messages, late.cursor) == ((texts[2],), None)
        assert (await tidings.read(bob.user_id, cursor=rest.cursor, wait_s=0.01)).messages == ()
        assert (await tidings.read(ann.user_id, with_sent=True, limit=1)).messages[0].sent

        await tidings.block(bob.user_id, ann.user_id)
        assert list((await tidings.user(bob.user_id)).blocks) == [ann.user_id]
        await tidings.unblock(bob.user_id, ann.user_id)
        await tidings.remove_member(hikers.group_id, bob.user_id)
        assert list((await tidings.user(bob.user_id)).groups) == []


@scene
async def test_members_come_page_by_page(server: ServerProcess) -> None:
    """A group of more members than one answer holds is listed whole."""
    async with Client(server.url) as tidings:
        hikers = (await tidings.create_group("hikers")).group_id
        users = await asyncio.gather(*(tidings.create_user(f"member {number}") for number in range(205)))
        await asyncio.gather(*(tidings.add_member(hikers, user.user_id) for user in users))
        members = [member async for member in tidings.members(hikers, users[0].user_id)]
        assert members == sorted(users, key=lambda user: user.user_id)


async def _blocked(cast: Cast) -> None:
    tidings, ann, bob = cast
    await tidings.block(bob, ann)
    await tidings.send(ann, bob, "hello")


async def _blocked_twice(cast: Cast) -> None:
    tidings, ann, bob = cast
    await tidings.block(bob, ann)
    await tidings.block(bob, ann)


async def _key_with_another_text(cast: Cast) -> None:
    tidings, ann, bob = cast
    await tidings.send(ann, bob, "one", key="k")
    await tidings.send(ann, bob, "two", key="k")


REFUSALS: dict[str, tuple[type[TidingsError], int, Callable[[Cast], Awaitable[object]]]] = {
    "blocked": (Refused, 403, _blocked),
    "already_blocked": (Conflict, 409, _blocked_twice),
    "idempotency_key_reused": (KeyReused, 422, _key_with_another_text),
    "unknown_user": (Unknown, 404, lambda cast: cast[0].user("..")),
    "unknown_group": (Unknown, 404, lambda cast: cast[0].group("hikers?x=y&", cast[1])),
    "unknown_path": (Unknown, 404, lambda cast: cast[0].user("ann/bob")),
    "bad_cursor": (Malformed, 400, lambda cast: cast[0].read(cast[1], cursor="ä+&x=%")),
    "bad_limit": (Malformed, 400, lambda cast: cast[0].read(cast[1], limit=0)),
    "bad_idempotency_key": (Malformed, 400, lambda cast: cast[0].create_user("eve", key="a\r\nb: c")),
    "malformed": (Malformed, 400, lambda cast: cast[0].send(cast[1], cast[2], "half a pair: \ud800")),
    "message_too_large": (TooLarge, 413, lambda cast: cast[0].send(cast[1], cast[2], "x" * 20_000)),
    "body_too_large": (TooLarge, 413, lambda cast: cast[0].send(cast[1], cast[2], "x" * 200_000)),
}


@pytest.mark.parametrize("code", REFUSALS)
@scene
async def test_a_refusal_has_a_type_and_a_code(code: str, server: ServerProcess) -> None:
    """What the server refuses is raised as the error of its own tree, at once, and none of it means to try again."""
    kind, status, call = REFUSALS[code]
    async with Client(server.url) as tidings:
        cast = (tidings, (await tidings.create_user("ann")).user_id, (await tidings.create_user("bob")).user_id)
        with pytest.raises(kind) as refused:
            await call(cast)
    assert (refused.value.code, refused.value.status, refused.value.retry_s) == (code, status, None)
    assert refused.value.detail


@scene
async def test_a_key_of_ones_own_goes_on_in_another_client(server: ServerProcess) -> None:
    """A send repeated with its key, by another client, is the same message; without one, it is another."""
    async with Client(server.url) as tidings, Client(server.url) as another:
        ann = (await tidings.create_user("ann")).user_id
        first = await tidings.send(ann, ann, "once", key="key-1")
        assert await another.send(ann, ann, "once", key="key-1") == first
        assert (await another.send(ann, ann, "once")).seq == 2


@scene
async def test_lost_answers_double_nothing(server: ServerProcess) -> None:
    """Over a line that breaks in the midst of answers, every call gets through, and every message is there once."""
    async with Line(server.url, seed=7) as line, Client(line.url, retries=Retries(attempts_max=100)) as tidings:
        ann, bob = (await tidings.create_user("ann")).user_id, (await tidings.create_user("bob")).user_id
        hikers = (await tidings.create_group("hikers")).group_id
        await tidings.add_member(hikers, ann)
        await tidings.add_member(hikers, bob)
        await tidings.block(ann, bob)
        wanted = [f"message {number}" for number in range(40)]
        for text in wanted:
            await tidings.send(ann, bob, text)
        await asyncio.gather(*(tidings.send_to_group(bob, hikers, text) for text in wanted))
        assert line.cuts > 5
    async with Client(server.url) as tidings:
        messages = (await tidings.read(bob, limit=1000)).messages
        assert [message.message for message in messages if message.recipient_id == bob] == wanted
        assert sorted(message.message for message in messages if message.recipient_id == hikers) == sorted(wanted)


@scene
async def test_sends_outlast_a_server_that_is_killed(tmp_path: Path) -> None:
    """Ann sends on and on while the server is killed twice and started again: each message is there once, in order."""
    server = ServerProcess.start(tmp_path)
    port = server.url.rpartition(":")[2]
    wanted = [f"message {number}" for number in range(300)]
    halfway = [asyncio.Event(), asyncio.Event()]
    try:
        async with Client(server.url) as tidings:
            ann, bob = (await tidings.create_user("ann")).user_id, (await tidings.create_user("bob")).user_id

            async def send_all() -> None:
                for number, text in enumerate(wanted):
                    await tidings.send(ann, bob, text)
                    if number in (50, 150):
                        halfway[number // 100].set()

            sending = asyncio.ensure_future(send_all())
            for point in halfway:
                await point.wait()
                server.kill()
                server = await asyncio.to_thread(ServerProcess.start, tmp_path, "--port", port)
            await sending
            messages = (await tidings.read(bob, limit=1000)).messages
            assert [message.message for message in messages] == wanted
    finally:
        server.kill()


def problem(code: str, status: int, *, retry: bool, after: str = "") -> web.Response:
    """An answer as Tidings refuses."""
    body = {"type": "about:blank", "title": "", "status": status, "detail": "why", "code": code, "retry": retry}
    headers = {"Retry-After": after} if after else {}
    return web.json_response(body, status=status, headers=headers, content_type="application/problem+json")


AGAIN = {
    "overloaded": lambda: problem("overloaded", 503, retry=True, after="0"),
    "busy": lambda: problem("mailbox_busy", 429, retry=True, after="1"),
    "a fault": lambda: problem("internal", 500, retry=False),
    "a proxy": lambda: web.Response(status=502, text="<h1>Bad gateway</h1>", content_type="text/html"),
    "half an answer": lambda: web.Response(body=b'{"userId":"user-1","usern', content_type="application/json"),
}


@pytest.mark.parametrize("why", AGAIN)
@scene
async def test_what_may_help_is_tried_again_with_the_same_key(why: str) -> None:
    """Refused in a way that time may heal, a change is asked for again, with the key and the body of the first time."""

    async def answer(request: web.Request) -> web.Response:
        return AGAIN[why]() if len(foreign.asked) < 3 else web.json_response({"userId": "user-1", "username": "ann"})

    async with Foreign(answer) as foreign, Client(foreign.url) as tidings:
        assert (await tidings.create_user("ann")).user_id == "user-1"
        assert len(foreign.asked) == 3
        assert len({request.headers["Idempotency-Key"] for request in foreign.asked}) == 1
        assert {await request.text() for request in foreign.asked} == {'{"username":"ann"}'}
        await tidings.create_user("ann")
        assert len({request.headers["Idempotency-Key"] for request in foreign.asked}) == 2  # another intent


FINAL: dict[str, tuple[Callable[[], web.Response], type[TidingsError], str, int]] = {
    "a damaged store": (
        lambda: problem("store_corrupt", 503, retry=False),
        *(StoreUnavailable, "store_corrupt", 1),
    ),
    "a longer wait than ours": (
        lambda: problem("store_full", 503, retry=True, after="3600"),
        *(StoreUnavailable, "store_full", 1),
    ),
    "overloaded for ever": (lambda: problem("overloaded", 503, retry=True), Unavailable, "overloaded", 4),
    "a fault for ever": (lambda: problem("internal", 500, retry=False), Internal, "internal", 4),
    "a code of tomorrow": (lambda: problem("no_token", 401, retry=False), TidingsError, "no_token", 1),
    "a proxy's refusal": (lambda: web.Response(status=413, text="no"), TooLarge, "http_413", 1),
    "another web server": (
        lambda: web.Response(text="<h1>Hello</h1>", content_type="text/html"),
        *(NotUnderstood, "not_understood", 1),
    ),
    "somewhere else": (
        lambda: web.Response(status=302, headers={"Location": "/login"}),
        *(NotUnderstood, "not_understood", 1),
    ),
    "other JSON": (lambda: web.json_response({"id": 1}), NotUnderstood, "not_understood", 1),
}


@pytest.mark.parametrize("why", FINAL)
@scene
async def test_a_call_ends_with_an_error_of_ours(why: str) -> None:
    """Where trying again can't help, or has been tried often enough, the caller is told, by an error of the tree."""
    answer, kind, code, times = FINAL[why]

    async def answered(_: web.Request) -> web.Response:
        return answer()

    async with Foreign(answered) as foreign, Client(foreign.url, retries=HURRIED) as tidings:
        with pytest.raises(kind) as raised:
            await tidings.user("ann")
        assert raised.value.code == code
        assert len(foreign.asked) == times


@scene
async def test_an_answer_without_end_is_not_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends and sends does not fill the client's memory."""
    monkeypatch.setattr(wire, "ANSWER_MAX_BYTES", 1 << 20)

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while True:
            await response.write(b" " * 65_536)

    async with Foreign(answer) as foreign, Client(foreign.url) as tidings:
        with pytest.raises(NotUnderstood, match="longer than 1048576 bytes"):
            await tidings.user("ann")


@scene
async def test_nobody_there_is_said(tmp_path: Path) -> None:
    """Where nobody listens, or somebody never answers, the call gives up after its bound and says that it is open."""
    server = ServerProcess.start(tmp_path)
    server.kill()
    async with Client(server.url, retries=HURRIED) as tidings:
        with pytest.raises(Unreachable) as refused:
            await tidings.create_user("ann")
        assert refused.value.is_refused
        assert server.url in refused.value.detail

    async def never(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with (
        Foreign(never) as foreign,
        Client(foreign.url, retries=Retries(total_s=5.0, attempts_max=2, answer_s=0.2)) as tidings,
    ):
        with pytest.raises(Unreachable) as silent:
            await tidings.create_user("ann")
        assert not silent.value.is_refused
        assert len(foreign.asked) == 2


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8080",
        "ftp://127.0.0.1",
        "http://",
        "http://a:b",
        "http://a/?b",
        "http://a..b",
        "http://a b",
        "http://[::1",
    ],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    """A misspelt address is said when the client is made, with the form that is meant."""
    with pytest.raises(ValueError, match=r"like http://127\.0\.0\.1:8080"):
        Client(url)


@scene
async def test_a_client_must_be_open(server: ServerProcess) -> None:
    """Forgetting `async with` is told in words that help."""
    with pytest.raises(RuntimeError, match="async with Client"):
        await Client(server.url).user("ann")


def test_a_server_does_not_import_it() -> None:
    """`import tidings` alone brings in no HTTP client, which would slow each start of a server."""
    program = "import json, sys, tidings; import tidings.server; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    assert "tidings.server" in loaded
    assert not {"aiohttp", "tidings.client", "rich"} & set(loaded)
    with pytest.raises(ImportError):
        from tidings import Nobody  # type: ignore[attr-defined]  # noqa: F401


def test_types_reach_who_uses_it(tmp_path: Path) -> None:
    """A program beside the package is checked against the client's types: what it gives is known, a slip is found."""
    program = """from tidings import Client

async def talk(tidings: Client) -> None:
    ann = await tidings.create_user("ann")
    reveal_type(ann.user_id)
    await tidings.send(ann.user_id, 7, "hi")
"""
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", "cache", "-c", program]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout.splitlines()
    assert 'Revealed type is "str"' in told[0]
    assert 'Argument 2 to "send" of "Client" has incompatible type "int"; expected "str"' in told[1]
    assert told[2:] == ["Found 1 error in 1 file (checked 1 source file)"]
