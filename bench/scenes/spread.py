"""How connections spread over workers, by what the kernel says of their sockets."""

import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from bench.findings import Finding
from bench.load import Request
from bench.processes import Failed, Server

CONNECTIONS = 200


def spread(server: Server, requests: Sequence[Request], at_least: float) -> list[Finding]:
    """The share of the less used of the workers, when connections come at once, and when they come one by one."""
    found = []
    for how, opened in (("opened at once", _at_once), ("opened one by one", _one_by_one)):
        with ExitStack() as stack:
            found.append(_share(server, at_least, how, opened(stack, server.port, requests)))
    return found


def _share(server: Server, at_least: float, how: str, connections: Sequence[socket.socket]) -> Finding:
    inodes = _inodes(server.port, {connection.getsockname()[1] for connection in connections})
    held = sorted(len(inodes & _sockets(pid)) for pid in server.workers)
    if sum(held) != CONNECTIONS:
        raise Failed(f"of {CONNECTIONS} connections the workers hold {held}")
    name = f"share of the less used of two workers, {how}"
    beside = f"{' and '.join(map(str, held))} connections, each polled"
    value = 100 * held[0] / CONNECTIONS
    return Finding("workers", name, value, "%", at_least=100 * at_least, beside=beside)


def _at_once(stack: ExitStack, port: int, requests: Sequence[Request]) -> list[socket.socket]:
    pairs = [(_connect(stack, port), requests[n % len(requests)]) for n in range(CONNECTIONS)]
    _poll(pairs)
    return [connection for connection, _ in pairs]


def _one_by_one(stack: ExitStack, port: int, requests: Sequence[Request]) -> list[socket.socket]:
    connections = []
    for n in range(CONNECTIONS):
        connections.append(_connect(stack, port))
        _poll([(connections[-1], requests[n % len(requests)])])
    return connections


def poll_all(stack: ExitStack, port: int, requests: Sequence[Request]) -> None:
    """All requests over one new connection, which the stack closes. Raises Failed."""
    connection = _connect(stack, port)
    for request in requests:
        _poll([(connection, request)])


def _connect(stack: ExitStack, port: int) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", port)))


def _poll(pairs: Sequence[tuple[socket.socket, Request]]) -> None:
    """A poll on each, so that each was surely accepted. Raises Failed."""
    for connection, request in pairs:
        connection.sendall(request.head.encode())
    for connection, request in pairs:
        expected, heard = request.expects.encode(), b""
        while not heard.endswith(expected):
            piece = connection.recv(65536)
            heard += piece
            if not piece or len(heard) > len(expected) + 4096:
                raise Failed(f"expected {expected[:200]!r}, got {heard[:400]!r}")


def _inodes(port: int, peers: set[int]) -> set[str]:
    """The server's ends of connections, by the ports of the other ends (proc(5), /proc/net/tcp)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ends = [(int(row[1].partition(":")[2], 16), int(row[2].partition(":")[2], 16), row[9]) for row in rows]
    return {inode for local, remote, inode in ends if local == port and remote in peers}


def _sockets(pid: int) -> set[str]:
    """The inodes of the sockets that a process holds."""
    held = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            kind, _, inode = os.readlink(f"/proc/{pid}/fd/{fd}").partition(":")
            if kind == "socket":
                held.add(inode.strip("[]"))
    return held
