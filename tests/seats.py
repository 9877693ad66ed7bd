"""Which process of a server holds a connection, as the kernel knows it."""

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.server import DEADLINE_S, ServerProcess, until

TRIES_MAX = 100  # connections until one is held by a certain one of two


class _End(NamedTuple):
    """The server's end of a connection."""

    client_port: int
    inode: str


def held(server: ServerProcess) -> list[int]:
    """How many connections of clients each worker holds."""
    ends = {end.inode for end in _ends(server)}
    return [len(ends & _sockets(pid)) for pid in server.worker_pids()]


def held_by(server: ServerProcess, pid: int) -> int:
    """How many one process does."""
    return len({end.inode for end in _ends(server)} & _sockets(pid))


def holder(server: ServerProcess, wire: socket.socket) -> int | None:
    """The pid of the worker that holds a connection's other end; None while nobody has accepted it."""
    port = wire.getsockname()[1]
    inodes = {end.inode for end in _ends(server) if end.client_port == port}
    return next((pid for pid in server.worker_pids() if inodes & _sockets(pid)), None)


def at(server: ServerProcess, pid: int, stack: ExitStack) -> socket.socket:
    """A connection that a certain worker holds; others that came before it are kept till the end, as is this one."""
    where = urlsplit(server.url)
    for _ in range(TRIES_MAX):
        wire = stack.enter_context(socket.create_connection((where.hostname, where.port), DEADLINE_S))
        until(lambda wire=wire: holder(server, wire) is not None)  # type: ignore[misc]
        if holder(server, wire) == pid:
            return wire
    raise AssertionError(f"none of {TRIES_MAX} connections came to worker {pid}")


def _ends(server: ServerProcess) -> Sequence[_End]:
    port = f":{int(server.url.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = [row for row in rows if row[1].endswith(port) and row[3] == "01"]
    return [_End(int(row[2].rpartition(":")[2], 16), f"socket:[{row[9]}]") for row in established]


def _sockets(pid: int) -> set[str]:
    return set(map(_target, Path(f"/proc/{pid}/fd").iterdir()))


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""
