"""Everything that can be wrong with a socket and what is said on it: each has its code, and nothing is half done."""

import json
from collections.abc import Iterator

import pytest

from tests.api_client import Api
from tests.bad_frames import Said, Target, frames, targets
from tests.bad_input import LIMITS, QUIET, World, filled
from tests.bad_rows import BODY_MAX
from tests.server import ServerProcess
from tests.sockets import CLOSE, TEXT, Raw, frame, handshake

TARGETS, FRAMES = list(targets()), frames()


class Tried:
    """A server, the world on it, and how that looked before anything was tried."""

    def __init__(self, api: Api, server: ServerProcess) -> None:
        self.server = server
        self.world = World(api, server.data)
        self.before = self.world.state()

    def is_as_before(self) -> bool:
        """Whether nothing was changed, and nothing told in the log."""
        before, self.before = self.before, self.world.state()
        return self.before == before and self.server.complaints == ""


@pytest.fixture(scope="module", params=["1", "2"], ids=["one worker", "two workers"])
def tried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    data = tmp_path_factory.mktemp("frames")
    with ServerProcess.start(data, "--workers", request.param, *LIMITS, *QUIET) as server, Api(server.url) as api:
        yield Tried(api, server)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.path[-80:])
def test_what_a_poll_refuses_closes_a_socket(target: Target, tried: Tried) -> None:
    """The handshake is taken, so that a page can learn why; the socket closes under the poll's status and code."""
    path = filled(target.path.encode(), tried.world.words)
    with Raw(tried.server.url) as raw:
        raw.say(handshake("nobody").replace(b"/v1/messages/nobody/live", path))
        assert raw.head().startswith("HTTP/1.1 101 ")
        said = raw.next_of(CLOSE)
        assert int.from_bytes(said[:2]) == target.close
        assert json.loads(said[2:]) == {"code": target.code, "retry": False, "after": 0}
    assert tried.is_as_before()


@pytest.mark.parametrize("said", FRAMES, ids=lambda said: said.name[:80])
def test_a_bad_frame(said: Said, tried: Tried) -> None:
    """It is refused by its ref with the problem that the POST has, and the socket lives; or it is none, and ends it."""
    text = filled(said.text, tried.world.words)
    with Raw.shaken(tried.server.url, tried.world.ids["ann"]) as raw:
        raw.say(frame(text))
        if said.close:
            assert raw.closing() == (said.close, said.code)
        else:
            _check_refusal(raw, said)
            raw.say(frame(b"{}"))
            (alive,) = raw.answers(1)
            assert alive["problem"]["code"] == "unknown_type"
    assert tried.is_as_before()


def _check_refusal(raw: Raw, said: Said) -> None:
    answer = json.loads(raw.next_of(TEXT))
    while answer["type"] == "heartbeat":
        answer = json.loads(raw.next_of(TEXT))
    assert (answer["type"], answer["ref"]) == ("refused", said.ref)
    problem = answer["problem"]
    assert (problem["code"], problem["status"]) == (said.code, said.status)
    assert (problem["type"], problem["retry"]) == ("about:blank", False)
    assert set(problem) == {"type", "title", "status", "detail", "code", "retry"}
    assert 0 < len(problem["detail"]) < 400


def test_what_is_strange_and_no_fault_is_taken(tried: Tried) -> None:
    """A frame and a ref as long as may be, NUL in a message, a key that is null: each is sent once, under its ref."""
    ann = tried.world.ids["ann"]
    good = {"type": "send", "ref": "r" * 128, "receiverId": ann, "message": "\0", "idempotencyKey": None}
    frames_taken = [json.dumps(good).encode().ljust(BODY_MAX), json.dumps({**good, "ref": None}).encode()]
    with Raw.shaken(tried.server.url, ann) as raw:
        raw.say(b"".join(map(frame, frames_taken)))
        answers = raw.answers(2)
    assert {answer["ref"]: answer["message"]["message"] for answer in answers} == {"r" * 128: "\0", None: "\0"}
    tried.before = tried.world.state()


def test_the_table_is_whole() -> None:
    """No row is there twice, and a frame can be refused for each reason that a body can."""
    assert len({said.name for said in FRAMES}) == len(FRAMES)
    assert len({target.path for target in TARGETS}) == len(TARGETS)
    of_bodies = {"wrong_type", "missing_field", "empty_field", "ambiguous_field", "message_too_large"}
    assert {said.code for said in FRAMES} > of_bodies | {"unknown_user", "unknown_group", "blocked", "not_a_member"}
