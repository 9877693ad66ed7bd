"""The parts of a cluster: which program each is, how it is started, and when it is ready."""

import asyncio
import os
import re
import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tools.cluster.keeping import Failed, Plan

ROOT = Path(__file__).parent.parent.parent
BALANCER = Path(__file__).with_name("haproxy.cfg")
LISTENING = re.compile(r"^Tidings is listening on (http://\S+)$", re.MULTILINE)
ANSWER_S = 2.0  # of a server that was asked whether it is ready
INIT_S = 60.0
HOST = "127.0.0.1"

# Debian keeps servers out of the PATH of those who are not root.
WHERE = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))

# Which key is the stand-in's own affair, and no real one should get there.
NO_KEYS = {"AWS_ACCESS_KEY_ID": "tidings", "AWS_SECRET_ACCESS_KEY": "tidings", "AWS_SESSION_TOKEN": ""}


def find_programs(*, needs_feed: bool) -> tuple[str, str]:
    """The balancer and the feed's server ("" if none is needed). Raises Failed, in words that say what to install."""
    balancer = shutil.which("haproxy", path=WHERE)
    feed = (shutil.which("redis-server", path=WHERE) or shutil.which("valkey-server", path=WHERE)) if needs_feed else ""
    missing = [package for package, found in (("haproxy", balancer), ("redis-server", feed)) if found is None]
    if missing:
        packages = " ".join(missing)
        raise Failed(
            f"{' and '.join(missing)} must be installed; on Debian and Ubuntu: sudo apt-get install {packages}"
        )
    return balancer or "", feed or ""


def standin(port: int) -> Plan:
    """A server of DynamoDB's API, which has everything in memory. Raises Failed if `make standin` made none."""
    program = ROOT / "build" / "standin" / "bin" / "ministack"
    if not program.exists():
        raise Failed("there is no server of DynamoDB's API; make standin installs one, --store names another")
    url = f"http://{HOST}:{port}/"
    env = {"SERVICES": "dynamodb", "BIND_HOST": HOST, "GATEWAY_PORT": str(port), "LOG_LEVEL": "ERROR"}

    async def what_lacks(_: str) -> str:
        status, said = await _ask(url)
        return "" if status else said

    return Plan("store", [str(program)], what_lacks, env, is_vital=True)


def feed(program: str, port: int) -> Plan:
    """A redis-server or valkey-server as the feed wants it: it has news only, so keeps nothing, but evicts nothing."""
    command = [program, "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no"]

    async def what_lacks(_: str) -> str:
        try:
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_connection(HOST, port)
                writer.write(b"PING\r\n")
                answer = await reader.readline()
                writer.close()
        except (OSError, TimeoutError):
            return "it does not answer"
        return "" if answer == b"+PONG\r\n" else f"it answers {answer!r}"

    return Plan("feed", [*command, "--maxmemory", "256mb", "--maxmemory-policy", "noeviction"], what_lacks)


def node(name: str, port: int, store: str, news: str, env: dict[str, str]) -> Plan:
    """One node."""
    where = ("--host", HOST, "--port", str(port), "--workers", "1")
    command = [sys.executable, "-m", "tidings", "serve", *where, "--store", store, "--feed", news]

    async def what_lacks(said: str) -> str:
        found = LISTENING.search(said)
        return await _unready(found[1]) if found else "it does not listen"

    return Plan(name, command, what_lacks, env)


def balancer(program: str, port: int, nodes: Mapping[str, int], room: Path) -> Plan:
    """HAProxy over the nodes, of which names and ports are given; its configuration is written into `room`."""
    servers = [f"    server {name} {HOST}:{its_port}" for name, its_port in nodes.items()]
    # Without a feed no node is ready, and all of them can still be read from.
    servers += [f"    server {name}-unready {HOST}:{its_port} backup no-check" for name, its_port in nodes.items()]
    config = room / "haproxy.cfg"
    config.write_text(BALANCER.read_text().format(bind=f"{HOST}:{port}", servers="\n".join(servers)))

    async def what_lacks(_: str) -> str:
        return await _unready(f"http://{HOST}:{port}")

    return Plan("balancer", [program, "-db", "-f", str(config)], what_lacks)


async def init(store: str, env: dict[str, str]) -> None:
    """Make the tables, or look at those that are there. Raises Failed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tidings", "store", "init", "--store", store),
        env={**os.environ, **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(INIT_S):
            said, _ = await process.communicate()
    except TimeoutError:
        raise Failed(f"tidings store init did not end within {INIT_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise Failed(said.decode(errors="replace").strip())


def reserve(port: int = 0) -> socket.socket:
    """A socket that keeps a port of the loopback, 0 for a free one: nobody is given it, who asks for it gets it.

    (Of sockets with SO_REUSEADDR any number may be bound to a port, as long as none listens.) Raises Failed if somebody
    listens there.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind((HOST, port))
    except OSError as error:
        held.close()
        why = f"can't be had ({error.strerror}); choose another --port, or 0 for a free one"
        raise Failed(f"{HOST}:{port} {why}") from None
    return held


def port_of(held: socket.socket) -> int:
    """The port that a socket keeps."""
    port: int = held.getsockname()[1]
    return port


async def _unready(url: str) -> str:
    """Why whoever is at this URL should get no calls; nothing if they should."""
    status, said = await _ask(f"{url}/readyz")
    return "" if status == 200 else said


async def _ask(url: str) -> tuple[int, str]:
    """The status with which it answers a GET, and its words; 0 if there is no answer."""
    return await asyncio.to_thread(_get, url)


def _get(url: str) -> tuple[int, str]:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=ANSWER_S) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, f"it answers {error.code}: {error.read(500).decode(errors='replace')}"
    except OSError as error:
        return 0, f"it does not answer: {error}"
