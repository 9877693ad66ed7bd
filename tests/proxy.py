"""A TCP proxy in front of a server that breaks connections wherever a test wants it."""

import socket
import struct
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from tests.server import DEADLINE_S

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets


@dataclass(frozen=True)
class Cut:
    """Where a connection is cut: `offset` bytes behind the `nth` of a pattern in what the client gets.

    Without a pattern, behind the beginning. It ends as if closed, or `by_reset`.
    """

    pattern: bytes = b""
    nth: int = 1
    offset: int = 0
    by_reset: bool = False

    def find(self, said: bytes) -> int | None:
        """How much of this goes through if that is where it is cut; None if it is not reached yet."""
        place = 0
        for _ in range(self.nth if self.pattern else 0):
            place = said.find(self.pattern, place)
            if place < 0:
                return None
            place += len(self.pattern)
        place += self.offset
        return place if place <= len(said) else None


@dataclass
class _Link:
    client: socket.socket
    server: socket.socket
    cut: Cut | None
    said: bytearray = field(default_factory=bytearray)  # to the client, up to where it is cut


class Proxy:
    """Listens at `url`; each connection that comes is cut by the next of `cuts`, and later ones never."""

    def __init__(self, url: str, cuts: Iterable[Cut] = ()) -> None:
        where = urlsplit(url)
        self._server = (where.hostname or "", where.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._cuts = deque(cuts)
        self._links: list[_Link] = []
        self._lock = threading.Lock()
        self._is_closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def cuts_left(self) -> int:
        """How many cuts are still to come."""
        with self._lock:
            return len(self._cuts) + sum(link.cut is not None for link in self._links)

    def cut(self, *, by_reset: bool = False, most: int | None = None) -> None:
        """Cut every connection there is; of more than `most`, those that have been there longest."""
        for link in list(self._links)[:most]:
            self._break(link, by_reset=by_reset)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._is_closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._server, timeout=DEADLINE_S)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            link = _Link(client, server, self._cuts.popleft() if self._cuts else None)
            self._links.append(link)
            self.connections += 1
        if self._is_closed:  # while this one came: whoever closes sees it, or it sees that
            self._break(link)
            return
        threading.Thread(target=self._carry_up, args=(link,), daemon=True).start()
        threading.Thread(target=self._carry_down, args=(link,), daemon=True).start()

    def _carry_up(self, link: _Link) -> None:
        with suppress(OSError):
            while data := link.client.recv(65536):
                link.server.sendall(data)
        self._break(link)

    def _carry_down(self, link: _Link) -> None:
        by_reset = False
        with suppress(OSError):
            while data := link.server.recv(65536):
                if link.cut is not None:
                    before = len(link.said)
                    link.said += data
                    end = link.cut.find(bytes(link.said))
                    if end is not None:
                        link.client.sendall(data[: max(0, end - before)])
                        by_reset, link.cut = link.cut.by_reset, None
                        break
                link.client.sendall(data)
        self._break(link, by_reset=by_reset)

    def _break(self, link: _Link, *, by_reset: bool = False) -> None:
        with self._lock:
            if link not in self._links:
                return
            self._links.remove(link)
        if by_reset:
            link.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        for end in (link.client, link.server):
            with suppress(OSError):  # closing alone would wait for the other thread, which reads it
                end.shutdown(socket.SHUT_RD if by_reset and end is link.client else socket.SHUT_RDWR)
            end.close()
