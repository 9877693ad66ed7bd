"""What the table of bad input needs: its rows, the world they are tried on, and bare connections to say them over."""

import contextlib
import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import apsw
import httpx

from tests.api_client import Api, Json
from tests.server import DEADLINE_S
from tidings import cursor as cursors
from tidings.cursor import Hint, Vector

# So near that the world stands at them: a user in two groups, with one block; a group of three.
LIMITS = ("--groups-per-user-max", "2", "--blocks-per-user-max", "1", "--members-per-group-max", "3")
QUIET = ("--slow-call-s", "60")  # a busy machine is no complaint
TABLES = ("users", "groups", "memberships", "blocks", "messages", "alterations", "keys")
UNKNOWN = {"user": "user-018f3a5c7e1b9d4c2a7f60e1b35d", "group": "group-018f3a5c90aa5b7de0c4416f92ab"}
HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass(frozen=True)
class Row:
    """One request and what it must be answered; `<word>` stands for a word of the world, in bytes of any part."""

    name: str
    status: int
    code: str = ""  # of the problem; none for a 200
    operation: str = ""  # the route's method and template, if it reaches one
    method: str = "GET"
    target: bytes = b"/"
    host: bytes = b"Host: localhost\r\n"
    headers: tuple[bytes, ...] = ()
    body: bytes | None = None
    raw: bytes | None = None  # all of it, instead of what stands above
    allow: str = ""
    ends: bool = False  # the connection is closed after the answer

    def bytes(self, words: Mapping[str, bytes]) -> bytes:
        """What goes over the wire."""
        if self.raw is not None:
            return filled(self.raw, words)
        body = b"" if self.body is None else filled(self.body, words)
        length = b"" if self.body is None else b"Content-Length: %d\r\n" % len(body)
        lines = b"".join(filled(header, words) + b"\r\n" for header in self.headers)
        head = b"%s %s HTTP/1.1\r\n" % (self.method.encode(), filled(self.target, words))
        return head + self.host + length + lines + b"\r\n" + body


def filled(text: bytes, words: Mapping[str, bytes]) -> bytes:
    """A text with the words of a world in the place of their names."""
    return re.sub(rb"<(\w+)>", lambda found: words[found[1].decode()], text)


class World:
    """Ann, Bob, Carol, Eve and three groups, every limit reached by somebody; words for their ids and cursors."""

    def __init__(self, api: Api, data: Path) -> None:
        self._api = api
        self._file = apsw.Connection(str(data / "tidings.db"), apsw.SQLITE_OPEN_READONLY)
        self.ids = {name: api.user(name) for name in ("ann", "bob", "carol", "eve")}
        ann, bob, carol, eve = self.ids.values()
        self.ids["hikers"] = api.group("hikers", ann)
        self.ids["full"] = api.group("full", bob, carol, eve)
        self.ids["second"] = api.group("second", bob)
        api.block(carol, eve)
        api.private(ann, bob, "hi")
        api.private(bob, ann, "hello")
        api.groupwide(ann, self.ids["hikers"], "anybody?")
        self._use_a_key()
        self._questions = _questions(self.ids)
        self.words = {name: value.encode() for name, value in self.ids.items()}
        self.words |= _cursors(api.poll(ann)["cursor"], ann)
        self.words["others"] = api.poll(bob)["cursor"].encode()

    def _use_a_key(self) -> None:
        """Each POST once with the key `used`, in a way that leaves nothing behind but what it makes."""
        ids, ok = self.ids, []
        ok.append(self._api.post("/v1/users/create", {"username": "first"}, key="used"))
        ok.append(self._api.post("/v1/groups/create", {"groupName": "first"}, key="used"))
        body = {"senderId": ids["ann"], "receiverId": ids["ann"], "message": "note"}
        ok.append(self._api.post("/v1/messages/send?type=private", body, key="used"))
        ok.append(self._api.post(f"/v1/users/{ids['ann']}?op=block", {"blockedUserId": ids["eve"]}, key="used"))
        ok.append(self._api.post(f"/v1/users/{ids['ann']}?op=unblock", {"blockedUserId": ids["eve"]}))
        ok.append(self._api.post(f"/v1/groups/{ids['hikers']}?op=add", {"userId": ids["carol"]}, key="used"))
        ok.append(self._api.post(f"/v1/groups/{ids['hikers']}?op=remove", {"userId": ids["carol"]}))
        assert all(answer.status_code == 200 for answer in ok), ok

    def state(self) -> tuple[Any, ...]:
        """All that can be seen, users, groups, members and every text, and how many rows of each kind are stored."""
        with Wire(self._api.url) as wire:
            seen = wire.ask(self._questions)
        return self.rows(), *(_without_cursor(said) for said in seen)

    def rows(self) -> tuple[int, ...]:
        """Rows by table: made groups and remembered keys show nowhere else."""
        counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in TABLES)
        (found,) = self._file.execute(f"SELECT {counts}")
        return tuple(found)


def _questions(ids: Mapping[str, str]) -> list[bytes]:
    """What is asked to see all: each user and mailbox, and the group with members and history."""
    people, hikers = [ids[name] for name in ("ann", "bob", "carol", "eve")], f"/v1/groups/{ids['hikers']}"
    targets = [f"/v1/users/{user}" for user in people]
    targets += [f"/v1/messages/{user}?sent=include" for user in people]
    targets += [f"{hikers}{part}?userId={ids['ann']}" for part in ("", "/members", "/messages")]
    return [target.encode() for target in targets]


def _without_cursor(said: "Said") -> Json:
    assert said.status == 200, said
    return {name: value for name, value in said.json.items() if name != "cursor"}


def cursor_with(hint: Hint, user_id: str, **changed: Any) -> str:
    """A cursor like another one but for some parts, with the right checksum."""
    parts = {name: getattr(hint, name) for name in Hint.__struct_fields__}
    return cursors.mint(user_id, Hint(**{**parts, **changed}))


def _cursors(good: str, ann: str) -> dict[str, bytes]:
    """A cursor of Ann's, and what an enemy who knows its format could make of it, with the right checksum."""
    hint = cursors.read(ann, good.encode())
    vector = cursors.unpack_vector(hint.raw)

    def minted(**changed: Any) -> bytes:
        return cursor_with(hint, ann, **changed).encode()

    def packed(vector: Vector) -> bytes:
        return minted(raw=cursors.pack_vector(vector), digest=0)

    return {
        "cursor": good.encode(),
        "cut": good[:-4].encode(),
        "cut_short": good[:40].encode(),
        "longer": good.encode() + b"AAAA",
        "altered": good[:30].encode() + (b"A" if good[30] != "A" else b"B") + good[31:].encode(),
        "padded": good.encode() + b"=",
        "next_version": b"Ag" + good[2:].encode(),
        "other_generation": minted(generation=hint.generation ^ 1),
        "other_run": minted(run=hint.run ^ 1),
        "later_position": minted(position=2**63 - 1, digest=0),
        "negative_position": minted(position=-1, digest=0),
        "above_the_head": packed(Vector(2**63 - 1, vector.sent, vector.groups)),
        "above_all": packed(Vector(2**64 - 1, vector.sent, vector.groups)),
        "above_a_groups_head": packed(Vector(vector.own, vector.sent, dict.fromkeys(vector.groups, 2**40))),
        "no_vector": minted(raw=bytes(10), digest=0),
        "odd_vector": minted(raw=hint.raw + bytes(6), digest=0),
        "endless_vector": minted(raw=b"\x08\x01\xff\xff" + bytes(20), digest=0),
    }


@dataclass(frozen=True)
class Said:
    """An answer as it came over the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        """The body as JSON."""
        value: Json = json.loads(self.body)
        return value

    def as_httpx(self, method: str, url: str) -> httpx.Response:
        """The same, for who reads such."""
        request = httpx.Request(method, url)
        return httpx.Response(self.status, headers=dict(self.headers), content=self.body, request=request)


def connected(url: str) -> socket.socket:
    """A bare connection to a server."""
    where = urlsplit(url)
    return socket.create_connection((where.hostname, where.port), DEADLINE_S)


def sockets(pid: int) -> int:
    """How many sockets a process holds; one that is closed while we look is none."""
    found = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += "socket:" in os.readlink(link)
    return found


class Wire:
    """A bare connection, as a context manager."""

    def __init__(self, url: str) -> None:
        self._socket = connected(url)
        self._came = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def say(self, sent: bytes) -> None:
        """Send bytes; who is refused may have been cut off before the last of them."""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            self._socket.sendall(sent)

    def hear(self, method: str = "GET") -> Said:
        """One whole answer."""
        while b"\r\n\r\n" not in self._came:
            self._take()
        head, _, self._came = self._came.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        pairs = [line.split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), "a header is said twice"
        length = 0 if method == "HEAD" else int(headers["content-length"])
        while len(self._came) < length:
            self._take()
        body, self._came = self._came[:length], self._came[length:]
        return Said(int(status), headers, body)

    def ask(self, targets: Sequence[bytes]) -> list[Said]:
        """The answers to GETs that are sent all at once."""
        self.say(b"".join(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % target for target in targets))
        return [self.hear() for _ in targets]

    def ended(self) -> bool:
        """Whether the server closes now, having said no more."""
        return self._came == b"" and self._socket.recv(1) == b""

    def _take(self) -> None:
        piece = self._socket.recv(65_536)
        assert piece, f"closed in the middle of an answer, after {self._came!r}"
        self._came += piece
