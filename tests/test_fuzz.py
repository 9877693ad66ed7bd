"""Noise: random and mangled cursors and requests. Never a 500, a hang, a crash, or a wrong answer."""

import json
import random
import re
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.api_client import Api, Json, refused
from tests.bad_input import LIMITS, QUIET, World, connected, cursor_with
from tests.bad_rows import rows
from tests.faults.flood import resident_mb
from tests.server import ServerProcess
from tests.sockets import BINARY, CLOSE, CONT, PING, PONG, frame, handshake
from tidings import cursor as cursors
from tidings.cursor import Hint, Vector
from tidings.errors import Malformed

ANN = "user-01a20a3b32ec76328584fed232e4"
MOST = 2**63 - 1
SEED = 7
QUICK, LONG = 1_500, 60_000
MEMORY_MB = 64  # what a server may take more after any noise: a few connections' buffers, and the tail's messages
signed, digests = st.integers(-(2**63), MOST), st.integers(0, 2**64 - 1)
TOKENS = (
    b"\r\n",
    b"\r\n\r\n",
    b"\x00",
    b"\xff",
    b" ",
    b":",
    b"%",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
)
STATUSES = {100, 101, 200, 400, 403, 404, 405, 409, 410, 413, 414, 422, 426, 429, 431, 503}


def understood(raw: bytes) -> Vector | None:
    """The vector of a cursor, None if it is refused; any other error fails the test."""
    try:
        return cursors.unpack_vector(raw)
    except Malformed:
        return None


@settings(max_examples=1000, derandomize=True, deadline=None)
@given(st.binary(max_size=160))
def test_any_bytes_are_refused_or_say_one_thing(text: bytes) -> None:
    """Any bytes as a cursor: refused, or exactly what was minted."""
    try:
        hint = cursors.read(ANN, text)
    except Malformed:
        return
    assert cursors.mint(ANN, hint).encode() == text


@settings(max_examples=1000, derandomize=True, deadline=None)
@given(
    signed,
    signed,
    signed,
    digests,
    st.binary(min_size=5, max_size=120) | st.binary(max_size=60).map(b"\x01\x00\x00".__add__),
)
def test_any_vector_with_a_right_checksum_says_one_thing(
    generation: int, run: int, position: int, digest: int, raw: bytes
) -> None:
    """Who knows the format can only say what a vector can say: it is refused, or is the same after another packing."""
    hint = Hint(generation, run, position, digest, raw)
    try:
        said = cursors.read(ANN, cursors.mint(ANN, hint).encode())
    except Malformed:
        assert (41 + len(raw)) % 3 or len(raw) < 5
        return
    assert said == hint
    vector = understood(said.raw)
    if vector is not None:
        assert understood(cursors.pack_vector(vector)) == vector


class Reader:
    """Ann with ten messages of her own and ten of a group, and what she is to be given after any place in them."""

    def __init__(self, api: Api) -> None:
        self.api, self.ann, bob = api, api.user("ann"), api.user("bob")
        hikers = api.group("hikers", self.ann, bob)
        for n in range(10):
            api.private(bob, self.ann, f"private {n}")
            api.groupwide(bob, hikers, f"group {n}")
        self.hikers = hikers
        everything = api.poll(self.ann)
        self.messages: list[Json] = everything["messages"]
        self.cursor: str = everything["cursor"]
        self.hint = cursors.read(self.ann, self.cursor.encode())
        (self.stay,) = cursors.unpack_vector(self.hint.raw).groups

    def after(self, own: int, group: int) -> list[Json]:
        return [m for m in self.messages if m["seq"] > (group if m["recipientId"] == self.hikers else own)]


@pytest.fixture(scope="module")
def reader(server: ServerProcess) -> Iterator[Reader]:
    with Api(server.url) as api:
        yield Reader(api)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.integers(0, 14), st.integers(0, 14), st.none() | st.integers(0, 2), st.booleans(), st.booleans())
def test_a_forged_place_gives_what_is_after_it(
    reader: Reader, own: int, group: int, sent: int | None, is_hinted: bool, has_stay: bool
) -> None:
    """A cursor made by an enemy gives its user exactly what stands after the places it names, or 410."""
    vector = Vector(own, sent, {reader.stay: group} if has_stay else {reader.stay ^ 1: group})
    cursor = cursor_with(reader.hint, reader.ann, raw=cursors.pack_vector(vector), digest=0)
    answer = reader.api.get(f"/v1/messages/{reader.ann}", cursor=cursor, **({"limit": 100} if is_hinted else {}))
    if own > 10 or (has_stay and group > 10):
        assert answer.status_code == 410
    else:
        assert (answer.json()["messages"] or []) == reader.after(own, group if has_stay else 0)


@settings(max_examples=400, derandomize=True, deadline=None)
@given(st.data())
def test_a_mangled_cursor_is_refused(reader: Reader, data: st.DataObject) -> None:
    """A letter changed, cut out, put in or moved: 400, whatever else is asked."""
    text = reader.cursor
    place, length = data.draw(st.integers(0, len(text) - 1)), data.draw(st.integers(0, 8))
    put = data.draw(st.text("ABCDwxyz0189-_=%+/. ", max_size=8) | st.just(text[:length]))
    mangled = text[:place] + put + text[place + length :]
    assume(mangled not in ("", text, "now"))
    more = data.draw(st.sampled_from(({}, {"wait": "30"}, {"limit": "1"}, {"sent": "include"})))
    refused(reader.api.get(f"/v1/messages/{reader.ann}", cursor=mangled, **more), 400, "bad_cursor")


def mutated(rng: random.Random, corpus: list[bytes]) -> bytes:
    """A request with a few things wrong, or bytes of no meaning."""
    if rng.random() < 0.05:
        return rng.randbytes(rng.randint(1, 600))
    text = bytearray(rng.choice(corpus))
    for _ in range(rng.randint(1, 4)):
        place = rng.randint(0, len(text))
        end = min(len(text), place + rng.choice((1, 1, 2, 8, 64)))
        match rng.randrange(5):
            case 0:
                text[place:end] = rng.randbytes(end - place)
            case 1:
                del text[place:end]
            case 2:
                text[place:place] = rng.choice(TOKENS)
            case 3:
                text[place:place] = text[place:end] * rng.randint(1, 5)
            case _:
                other = rng.choice(corpus)
                text[place:] = other[rng.randint(0, len(other)) :]
    return bytes(text)


def dialogues(world: World) -> list[bytes]:
    """Handshakes with what a client may say behind them, whole and in parts; and a stream, for the mixture."""
    plain = partial(frame, mask=bytes(4))  # what is changed on the wire is changed for its reader
    ann = world.ids["ann"]
    send = json.dumps({"type": "send", "ref": "r", "receiverId": ann, "message": "hi"}).encode()
    parts = plain(send[:9], fin=False) + plain(b"?", PING) + plain(send[9:], CONT)
    ending = plain(b"", PONG) + plain(b"\x03\xe8enough", CLOSE)
    stream = f"GET /v1/messages/{ann}/stream?cursor=now HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    spoken = (plain(send), plain(send.ljust(2_000)), parts, ending, plain(b"[]", BINARY), plain(b'{"ref":"x"}'))
    return [stream, *(handshake(ann) + 2 * frames for frames in spoken)]


def said(url: str, rng: random.Random, sent: bytes) -> bytes:
    """All that the server says to bytes that come whole or in pieces, up to its closing."""
    with connected(url) as wire:
        middle = rng.randint(0, len(sent)) if rng.random() < 0.3 else len(sent)
        try:
            wire.sendall(sent[:middle])
            wire.sendall(sent[middle:])
            wire.shutdown(socket.SHUT_WR)
            came = b""
            while piece := wire.recv(65_536):
                came += piece
        except OSError as error:
            if isinstance(error, TimeoutError):
                pytest.fail(f"no end to {sent!r}")
            return b""
    return came


def assail(data: Path, workers: str, with_seed: int, times: int) -> None:
    """Send so many mutated requests; the server goes on as if nothing were."""
    rng = random.Random(with_seed)
    with ServerProcess.start(data, "--workers", workers, *LIMITS, *QUIET) as server, Api(server.url) as api:
        world = World(api, data)
        corpus = [text for row in rows() if len(text := row.bytes(world.words)) < 3_000]
        corpus += dialogues(world) * (len(corpus) // 10)
        pids = server.worker_pids() or [server.pid]
        before = resident_mb(pids)
        heard = upgraded = 0
        for _ in range(times):
            sent = mutated(rng, corpus)
            answers = said(server.url, rng, sent)
            statuses = {int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", answers)}
            assert statuses <= STATUSES, (sent, answers)
            heard += bool(statuses)
            upgraded += 101 in statuses
        assert heard > times / 3, "most are answered, not only cut"
        assert upgraded > times / 50, "noise comes to sockets, too"
        assert api.get("/readyz").status_code == 200
        assert resident_mb(pids) - before < MEMORY_MB * len(pids)
        assert (server.worker_pids() or [server.pid]) == pids, "a worker ended"
        assert server.complaints == ""


def test_noise_on_the_wire(tmp_path: Path) -> None:
    """Mangled requests and frames, random bytes: each ends with an answer of the contract or a closed connection."""
    assail(tmp_path, "1", SEED, QUICK)


@pytest.mark.slow
def test_much_noise_on_the_wire(tmp_path: Path) -> None:
    """The same for half a minute, with two workers, other each time."""
    seed = random.SystemRandom().randrange(1 << 32)
    try:
        assail(tmp_path, "2", seed, LONG)
    except BaseException as error:
        error.add_note(f"with the seed {seed}")
        raise
