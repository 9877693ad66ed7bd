"""Messages over a WebSocket, and sending on it: each message once, for whom it is meant, whatever ends the socket."""

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.api_client import Api, refused
from tests.server import ServerProcess, until
from tests.sockets import Raw, asked, closing, handshake, opened, rest, texts, told, told_of
from tidings.live.session import RECONNECT_S


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server with a short heartbeat."""
    with (
        ServerProcess.start(tmp_path_factory.mktemp("live"), "--heartbeat-s", "1") as process,
        Api(process.url) as made,
    ):
        yield made
        assert process.complaints == ""


@pytest.fixture
def ann(api: Api) -> str:
    return api.user("ann")


@pytest.fixture
def bob(api: Api) -> str:
    return api.user("bob")


def test_messages_come_as_in_a_poll(api: Api, ann: str, bob: str) -> None:
    """A socket begins now, says so, and gives what is sent then, as a poll would, with a cursor that a poll takes."""
    api.private(bob, ann, "before")
    with opened(api.url, ann) as socket:
        assert socket.subprotocol == "tidings.v1"
        assert socket.response is not None
        assert "sec-websocket-extensions" not in socket.response.headers  # compression was offered
        start = told(socket)
        assert start["type"] == "heartbeat"
        api.private(bob, ann, "after")
        said = told_of(socket, "message")
        assert api.poll(ann, cursor=start["cursor"])["messages"] == [said["message"]]
        assert api.poll(ann, cursor=said["cursor"])["messages"] is None


def test_a_socket_goes_on_behind_its_cursor(api: Api, ann: str, bob: str) -> None:
    """Each message bears a cursor to come back with; what was sent meanwhile comes first, and nothing twice."""
    for number in range(250):
        api.private(bob, ann, str(number))
    with opened(api.url, ann, cursor=api.poll(ann, limit=1)["cursor"]) as socket:
        assert texts(socket, 99) == [str(number) for number in range(1, 100)]
        cursor = told_of(socket, "message")["cursor"]
    with opened(api.url, ann, cursor=cursor) as socket:
        assert texts(socket, 149) == [str(number) for number in range(101, 250)]
        api.private(bob, ann, "live")
        assert texts(socket, 1) == ["live"]


def test_a_heartbeat_has_a_cursor_that_is_hot(api: Api, ann: str, bob: str) -> None:
    """An idle socket is told how far it is, again and again."""
    with opened(api.url, ann) as socket:
        cursors = [told(socket)["cursor"] for _ in range(3)]
        api.private(bob, ann, "hi")
        assert texts(socket, 1) == ["hi"]
    assert [api.texts(ann, cursor=cursor) for cursor in cursors] == [["hi"]] * 3


def test_copies_of_what_the_user_sent_come_if_wanted(api: Api, ann: str, bob: str) -> None:
    """A second device sees what the first one sends, marked."""
    with opened(api.url, ann, sent="include") as second, opened(api.url, ann) as plain:
        assert told(second)["type"] == told(plain)["type"] == "heartbeat"
        api.private(ann, bob, "from the first")
        api.private(bob, ann, "answer")
        copy = told_of(second, "message")["message"]
        assert (copy["message"], copy["sent"]) == ("from the first", True)
        assert texts(second, 1) == texts(plain, 1) == ["answer"]


def test_sending_is_answered_with_the_message(api: Api, ann: str, bob: str) -> None:
    """A private message, and one to a group, sent on a socket, are what their receivers read."""
    group = api.group("hikers", ann, bob)
    with opened(api.url, ann) as socket:
        private = asked(socket, ref="1", receiverId=bob, message="hi")
        assert (private["type"], private["ref"]) == ("sent", "1")
        groupwide = asked(socket, groupId=group, message="all", senderId=ann)
        assert (groupwide["type"], groupwide["ref"]) == ("sent", None)
        for_another = asked(socket, ref="", receiverId=ann, senderId=bob, message="as bob")
        assert (for_another["message"]["senderId"], for_another["ref"]) == (bob, "")
    read = api.poll(bob)["messages"]
    assert [private["message"], groupwide["message"]] == read
    assert private["message"]["senderId"] == ann


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "unknown receiver": ({"receiverId": "nobody", "message": "hi"}, "unknown_user"),
    "no receiver": ({"message": "hi"}, "missing_field"),
    "two receivers": ({"receiverId": "bob", "groupId": "group", "message": "hi"}, "ambiguous_field"),
    "two spellings": ({"receiverId": "bob", "recipientId": "eve", "message": "hi"}, "ambiguous_field"),
    "no message": ({"receiverId": "bob"}, "missing_field"),
    "empty message": ({"receiverId": "bob", "message": ""}, "empty_field"),
    "long message": ({"receiverId": "bob", "message": "x" * 16_385}, "message_too_large"),
    "message that is none": ({"receiverId": "bob", "message": 1}, "wrong_type"),
    "unknown group": ({"groupId": "none", "message": "hi"}, "unknown_group"),
    "bad key": ({"receiverId": "bob", "message": "hi", "idempotencyKey": "é"}, "bad_idempotency_key"),
    "key that is none": ({"receiverId": "bob", "message": "hi", "idempotencyKey": 7}, "wrong_type"),
    "unknown type": ({"type": "shout"}, "unknown_type"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_send_is_told_by_its_ref(api: Api, ann: str, case: str) -> None:
    """Each send that can't be is answered with the problem that the POST has for it, and the socket lives."""
    fields, code = REFUSED[case]
    with opened(api.url, ann) as socket:
        answer = asked(socket, **{"ref": case, **fields})
        assert (answer["type"], answer["ref"], answer["problem"]["code"]) == ("refused", case, code)
        assert set(answer["problem"]) == {"type", "title", "status", "detail", "code", "retry"}
        assert asked(socket, receiverId=ann, message="still here")["type"] == "sent"


@pytest.mark.parametrize(
    "said", ["[]", "1", "null", '"send"', '{"type":"send","ref":1}', '{"ref":"' + "x" * 129 + '"}']
)
def test_json_that_asks_for_nothing_is_refused(api: Api, ann: str, said: str) -> None:
    """What is JSON, but no object, or has a ref that is none, is refused without one."""
    with opened(api.url, ann) as socket:
        socket.send(said)
        answer = told_of(socket, "refused")
        assert answer["ref"] is None
        assert answer["problem"]["status"] == 400


def test_the_blocked_and_those_who_are_no_members_are_refused(api: Api, ann: str, bob: str) -> None:
    """A block and a membership decide as for the POST."""
    api.block(bob, ann)
    group = api.group("hikers", bob)
    with opened(api.url, ann) as socket:
        assert asked(socket, receiverId=bob, message="hi")["problem"]["code"] == "blocked"
        assert asked(socket, groupId=group, message="hi")["problem"]["code"] == "not_a_member"
    assert api.poll(bob)["messages"] is None


def test_a_key_is_one_key_on_the_socket_and_in_a_post(api: Api, ann: str, bob: str) -> None:
    """Sent by POST and repeated on the socket, and the other way round, a message is there once, with one content."""
    body = {"senderId": ann, "receiverId": bob, "message": "once"}
    with opened(api.url, ann) as socket:
        posted = api.post("/v1/messages/send?type=private", body, key="k1").json()
        again = asked(socket, receiverId=bob, message="once", idempotencyKey="k1")
        first = asked(socket, receiverId=bob, message="once", idempotencyKey="k2")
        repeated = api.post("/v1/messages/send?type=private", body, key="k2").json()
        other = asked(socket, receiverId=bob, message="other", idempotencyKey="k1")
    assert again["message"] == posted
    assert first["message"] == repeated
    assert other["problem"]["code"] == "idempotency_key_reused"
    assert api.texts(bob) == ["once", "once"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server of two worker processes."""
    with ServerProcess.start(tmp_path_factory.mktemp("two"), "--workers", "2") as process, Api(process.url) as made:
        yield made


def test_who_was_removed_reads_nothing_of_the_group_any_more(two: Api) -> None:
    """On whichever worker its sockets are: what is sent once the removal was answered is for the others only."""
    ann, bob = two.user("ann"), two.user("bob")
    group = two.group("hikers", ann, bob)
    with ExitStack() as stack:
        of_ann, of_bob = ([stack.enter_context(opened(two.url, user)) for _ in range(4)] for user in (ann, bob))
        for socket in (*of_ann, *of_bob):
            assert told(socket)["type"] == "heartbeat"
        two.groupwide(ann, group, "both")
        two.remove(group, bob)
        two.groupwide(ann, group, "only ann")
        two.private(ann, bob, "the end")
        assert [texts(socket, 2) for socket in of_ann] == [["both", "only ann"]] * 4
        assert [texts(socket, 2) for socket in of_bob] == [["both", "the end"]] * 4
        two.add(group, bob)
        two.groupwide(ann, group, "together again")
        assert [texts(socket, 1) for socket in of_bob] == [["together again"]] * 4


def test_at_sigterm_sockets_are_told_to_come_back(tmp_path: Path) -> None:
    """Each socket is told when to come back, and of what was sent exactly that is there which was answered before."""
    with ServerProcess.start(tmp_path, "--grace-s", "10") as process, Api(process.url) as api:
        ann, bob = api.user("ann"), api.user("bob")
        with opened(api.url, ann) as sender, opened(api.url, bob) as idle, Raw.shaken(api.url, bob) as silent:
            assert told(idle)["type"] == "heartbeat"
            for number in range(200):
                sender.send(json.dumps({"type": "send", "ref": str(number), "receiverId": bob, "message": str(number)}))
            sent = [told_of(sender, "sent")["ref"]]
            process.signal(signal.SIGTERM)
            sent += [answer["ref"] for answer in rest(sender) if answer["type"] == "sent"]
            for socket in (sender, idle):
                code, reason = closing(socket)
                assert (code, reason["code"], reason["retry"]) == (1012, "shutting_down", True)
                assert 0 <= reason["after"] <= RECONNECT_S
            assert silent.closing() == (1012, "shutting_down")
            assert process.wait() == 0
    with ServerProcess.start(tmp_path) as process, Api(process.url) as api:
        assert set(sent) == set(api.texts(bob))


@pytest.mark.parametrize(
    ("lines", "status", "code"),
    [
        (["origin: https://evil.example"], 403, "foreign_origin"),
        (["host: evil.example"], 403, "foreign_host"),
        (["sec-websocket-protocol: "], 400, "bad_subprotocol"),
        (["sec-websocket-protocol: tidings.v2"], 400, "bad_subprotocol"),
        (["sec-websocket-key: AAAA"], 400, "malformed"),
        (["sec-websocket-key: "], 400, "malformed"),
        (["sec-websocket-version: 8"], 426, "upgrade_required"),
        (["upgrade: h2c"], 426, "upgrade_required"),
        (["connection: close"], 426, "upgrade_required"),
        (["content-length: 2"], 426, "upgrade_required"),
        (["x: " + "x" * 40_000], 431, "headers_too_large"),
    ],
)
def test_a_handshake_that_may_not_be_is_an_http_answer(
    api: Api, ann: str, lines: list[str], status: int, code: str
) -> None:
    """Foreign pages and hosts, and what is no handshake of this protocol, get a problem, and no socket."""
    with Raw(api.url) as raw:
        raw.say(handshake(ann, *lines) + (b"{}" if "content-length: 2" in lines else b""))
        head = raw.head().lower()
        assert head.startswith(f"http/1.1 {status} ")
        assert "content-type: application/problem+json" in head
        assert ("upgrade: websocket" in head) == (status == 426)
        assert f'"code":"{code}"'.encode() in raw.body(head)


def test_our_own_page_may_open_a_socket(api: Api, ann: str) -> None:
    """The origin of the server itself is let in, and the subprotocol is found among others."""
    with Raw(api.url) as raw:
        raw.say(handshake(ann, "origin: http://localhost", "sec-websocket-protocol: chat, tidings.v1"))
        assert raw.head().startswith("HTTP/1.1 101 ")


def test_without_a_handshake_there_is_nothing_to_read(api: Api, ann: str) -> None:
    """A plain GET is told what to speak, as /openapi.json says."""
    answer = api.get(f"/v1/messages/{ann}/live")
    refused(answer, 426, "upgrade_required")
    assert answer.headers["upgrade"] == "websocket"


@pytest.mark.parametrize("path", ["/v1/messages/x/y/live", "/v1/messages//live", "/v1/live", "/v1/messages/x/live/"])
def test_there_are_no_sockets_elsewhere(api: Api, path: str) -> None:
    """A handshake for another path is the plain request that it is as well: 404."""
    with Raw(api.url) as raw:
        raw.say(handshake("x").replace(b"/v1/messages/x/live", path.encode()))
        assert raw.head().startswith("HTTP/1.1 404 ")


@pytest.mark.parametrize(
    ("params", "code", "name"),
    [
        ({"cursor": "nonsense"}, 4400, "bad_cursor"),
        ({"sent": "yes"}, 4400, "bad_sent"),
    ],
)
def test_what_a_poll_would_be_refused_for_closes_the_socket(
    api: Api, ann: str, params: dict[str, str], code: int, name: str
) -> None:
    """It opens, so that a page can learn why, and closes with the poll's status."""
    with opened(api.url, ann, **params) as socket:
        assert closing(socket) == (code, {"code": name, "retry": False, "after": 0})


def test_a_socket_for_nobody_closes(api: Api, ann: str, bob: str) -> None:
    """There is no such user, or the cursor is another user's."""
    with opened(api.url, "user-nobody") as socket:
        assert closing(socket)[0] == 4404
    with opened(api.url, ann, cursor=api.poll(bob, cursor="now")["cursor"]) as socket:
        assert closing(socket) == (4400, {"code": "bad_cursor", "retry": False, "after": 0})


def test_a_user_may_hold_only_so_many(api: Api, ann: str) -> None:
    """The eleventh is told to come back; when one is closed, there is room."""
    with ExitStack() as stack:
        for _ in range(10):
            assert told(stack.enter_context(opened(api.url, ann)))["type"] == "heartbeat"
        with opened(api.url, ann) as one_more:
            code, reason = closing(one_more)
    assert (code, reason["code"], reason["retry"]) == (4429, "too_many_waits", True)
    assert reason["after"] >= 1
    until(lambda: "tidings_waits 0.0" in api.get("/metrics").text)
    with opened(api.url, ann) as again:
        assert told(again)["type"] == "heartbeat"


def test_calls_on_a_socket_are_counted(tmp_path: Path) -> None:
    """Sockets by their end, refused handshakes by their status, sends as those of the POST."""
    with ServerProcess.start(tmp_path) as process, Api(process.url) as api:
        ann = api.user("ann")
        with opened(api.url, ann) as socket:
            assert asked(socket, receiverId=ann, message="hi")["type"] == "sent"
            assert asked(socket, receiverId="nobody", message="hi")["type"] == "refused"
        with Raw(api.url) as raw:
            raw.say(handshake(ann, "host: evil.example"))
            assert raw.head().startswith("HTTP/1.1 403 ")
        for route, method, status in (
            ("/v1/messages/{userId}/live", "GET", "101"),
            ("/v1/messages/{userId}/live", "GET", "403"),
            ("/v1/messages/send", "POST", "200"),
            ("/v1/messages/send", "POST", "404"),
        ):
            line = f'tidings_requests_total{{method="{method}",route="{route}",status="{status}"}} 1.0'
            until(lambda line=line: line in api.get("/metrics").text, what=line)  # type: ignore[misc]


def test_other_calls_go_on_beside_sockets(api: Api, ann: str) -> None:
    """A handshake behind an unanswered request on one connection is no handshake; the server answers both."""
    head = f"GET /v1/messages/{ann}?cursor=now HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with Raw(api.url) as raw:
        raw.say(head + handshake(ann))
        first = raw.head()
        assert first.startswith("HTTP/1.1 200 ")
        raw.body(first.lower())
        assert raw.head().split(" ")[1] in ("101", "426")  # by whether the first was answered already
    assert httpx.get(f"{api.url}/healthz").status_code == 200
