"""The wire of a WebSocket below client libraries: each breach of RFC 6455 has its close code, and the server lives."""

import json
import struct
from collections.abc import Iterator

import pytest

from tests.api_client import Api
from tests.server import ServerProcess, until
from tests.sockets import BINARY, CLOSE, CONT, PING, PONG, TEXT, Raw, frame, handshake, opened, texts, told

BODY_MAX = 4096
SMALL = ("--body-max-bytes", str(BODY_MAX), "--message-max-bytes", "1024", "--mailbox-waiting-max", "20")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server with small limits."""
    with ServerProcess.start(tmp_path_factory.mktemp("frames"), *SMALL) as process, Api(process.url) as api:
        yield api
        assert process.complaints == ""


@pytest.fixture(scope="module")
def ann(small: Api) -> str:
    return small.user("ann")


@pytest.fixture
def bob(small: Api) -> str:
    return small.user("bob")


@pytest.fixture
def raw(small: Api, bob: str) -> Iterator[Raw]:
    """A socket of bob's without a library."""
    with Raw.shaken(small.url, bob) as made:
        yield made


def send(to: str, text: str = "hi") -> bytes:
    return json.dumps({"type": "send", "ref": text, "receiverId": to, "message": text}).encode()


def closed(code: int, reason: bytes = b"") -> bytes:
    return frame(struct.pack("!H", code) + reason, CLOSE)


BREACHES = {
    "unmasked": (frame(b"{}", is_masked=False), 1002, "protocol_error"),
    "first reserved bit": (frame(b"{}", reserved=4), 1002, "protocol_error"),
    "last reserved bit": (frame(b"{}", reserved=1), 1002, "protocol_error"),
    "reserved opcode": (frame(b"{}", 3), 1002, "protocol_error"),
    "reserved control opcode": (frame(b"", 11), 1002, "protocol_error"),
    "continuation of nothing": (frame(b"{}", CONT), 1002, "protocol_error"),
    "text within text": (frame(b"{", fin=False) + frame(b"}"), 1002, "protocol_error"),
    "fragmented ping": (frame(b"", PING, fin=False), 1002, "protocol_error"),
    "long ping": (frame(bytes(126), PING), 1002, "protocol_error"),
    "close of one byte": (frame(b"x", CLOSE), 1002, "protocol_error"),
    "close with a code that is never sent": (closed(1005), 1002, "protocol_error"),
    "close with a code that is none": (closed(999), 1002, "protocol_error"),
    "close with a reason that is no text": (closed(1000, b"\xff"), 1007, "bad_text"),
    "binary": (frame(b"{}", BINARY), 1003, "binary_frame"),
    "binary in parts": (frame(b"{", BINARY, fin=False) + frame(b"}", CONT), 1003, "binary_frame"),
    "no UTF-8": (frame(b'{"type":"\xff"}'), 1007, "bad_text"),
    "half a character": (frame("é".encode()[:1]), 1007, "bad_text"),
    "no UTF-8, in parts": (frame(b'"\xc3', fin=False) + frame(b'("', CONT), 1007, "bad_text"),
    "no JSON": (frame(b"hello"), 1007, "bad_text"),
    "nothing": (frame(b""), 1007, "bad_text"),
    "a message too large": (frame(b"x" * (BODY_MAX + 1)), 1009, "frame_too_large"),
    "a message said to be too large": (struct.pack("!BBQ", 0x81, 0xFF, 1 << 62), 1009, "frame_too_large"),
    "fragments too large together": (
        frame(b"x" * BODY_MAX, fin=False) + frame(b"x", CONT),
        *(1009, "frame_too_large"),
    ),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_ends_the_socket_that_did_it(small: Api, ann: str, raw: Raw, breach: str) -> None:
    """What RFC 6455 or the limits forbid is answered with the close code for it; another socket goes on."""
    said, code, name = BREACHES[breach]
    with opened(small.url, ann) as other:
        assert told(other)["type"] == "heartbeat"
        raw.say(said)
        assert raw.closing() == (code, name)
        small.private(ann, ann, breach)
        assert texts(other, 1) == [breach]


def test_a_message_in_parts_with_a_ping_between_them_is_one(small: Api, ann: str, raw: Raw) -> None:
    """Fragments, one within a character, are put together; the ping is answered meanwhile with what it said."""
    whole = json.dumps({"type": "send", "ref": "é", "receiverId": ann, "message": "grün"}, ensure_ascii=False).encode()
    cut = whole.index("é".encode()) + 1
    raw.say(frame(whole[:cut], fin=False) + frame(b"there?", PING) + frame(b"", CONT, fin=False))
    assert raw.next_of(PONG) == b"there?"
    raw.say(frame(whole[cut:], CONT))
    (answer,) = raw.answers(1)
    assert (answer["type"], answer["ref"]) == ("sent", "é")


def test_frames_in_one_packet_and_byte_by_byte(small: Api, ann: str, raw: Raw) -> None:
    """However the network cuts frames, each is answered."""
    said = frame(send(ann, "one")) + frame(send(ann, "two"))
    raw.say(said)
    for index in range(len(said)):
        raw.say(said[index : index + 1])
    assert [answer["ref"] for answer in raw.answers(4)] == ["one", "two", "one", "two"]


def test_a_frame_right_behind_the_handshake_is_read(small: Api, ann: str, bob: str) -> None:
    """A client that does not wait for the answer to its handshake is answered all the same."""
    with Raw(small.url) as raw:
        raw.say(handshake(bob) + frame(send(ann, "early")))
        assert raw.head().startswith("HTTP/1.1 101 ")
        assert raw.answers(1)[0]["type"] == "sent"


def test_more_sends_at_once_than_are_taken_at_a_time_are_all_answered(small: Api, ann: str, raw: Raw) -> None:
    """Five hundred sends to one mailbox in one go: they wait for each other, and do not take all its room."""
    raw.say(b"".join(frame(send(ann, str(number))) for number in range(500)))
    answers = raw.answers(500)
    assert {answer["type"] for answer in answers} == {"sent"}
    assert {answer["ref"] for answer in answers} == {str(number) for number in range(500)}


def test_a_close_is_answered_with_its_own_code(raw: Raw) -> None:
    """A client that closes gets its close frame back, and the connection ends."""
    raw.say(frame(struct.pack("!H", 4321) + b"enough", CLOSE))
    assert raw.next_of(CLOSE) == struct.pack("!H", 4321) + b"enough"
    assert raw.wire.recv(1) == b""


def test_half_a_handshake_holds_a_connection_no_longer_than_an_idle_one(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Who never ends its handshake is cut."""
    with (
        ServerProcess.start(tmp_path_factory.mktemp("half"), "--keep-alive-s", "1") as process,
        Api(process.url) as api,
        Raw(api.url) as raw,
    ):
        raw.say(handshake(api.user("bob"))[:-10])
        assert raw.wire.recv(1) == b""


def test_who_never_answers_a_close_is_cut(small: Api, ann: str) -> None:
    """A socket for nobody is closed by the server; its client says nothing, and the connection ends in time."""
    with Raw.shaken(small.url, "user-nobody") as raw:
        assert raw.closing() == (4404, "unknown_user")


def test_who_ends_without_a_word_is_let_go(small: Api, bob: str) -> None:
    """Connections that break free their place among the user's streams."""
    for _ in range(30):  # three times as many as a user may hold
        with Raw.shaken(small.url, bob) as raw:
            assert json.loads(raw.next_of(TEXT))["type"] == "heartbeat"
        until(lambda: "tidings_waits 0.0" in small.get("/metrics").text)


def test_a_ping_without_pong_ends_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A client that is there but answers no ping is taken for gone, and told to come back at once."""
    data = tmp_path_factory.mktemp("pong")
    with ServerProcess.start(data, "--heartbeat-s", "0.3") as process, Api(process.url) as api:
        bob = api.user("bob")
        with Raw.shaken(api.url, bob) as raw, opened(api.url, bob) as answering:
            assert raw.next_of(PING) == b""
            assert raw.closing() == (4409, "no_pong")
            assert [told(answering)["type"] for _ in range(4)] == ["heartbeat"] * 4
            assert process.complaints == ""


def test_a_reader_that_takes_nothing_is_cut(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A client that pings without end, and reads no pong, is read no more; and who is not written to is let go."""
    data = tmp_path_factory.mktemp("slow")
    flood = frame(bytes(100), PING) * 1000
    with ServerProcess.start(data, "--keep-alive-s", "3") as process, Api(process.url) as api:
        bob = api.user("bob")
        with Raw.shaken(api.url, bob, receive_buffer=4096) as raw:
            raw.wire.settimeout(0.5)
            with pytest.raises(TimeoutError):
                _say_for_ever(raw, flood)  # until neither side's buffers take any more
            until(lambda: "tidings_waits 0.0" in api.get("/metrics").text)
        process.wait_for_error("live broke off: the client stopped reading")


def _say_for_ever(raw: Raw, said: bytes) -> None:
    while True:
        raw.say(said)
