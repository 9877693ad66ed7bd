"""What nodes share: a server of DynamoDB's API with a store's tables, and a Redis, both on the loopback, for one run.

The server of tables is the one of `make standin`, which has everything in memory and is written in Python: what it
takes a second is stated wherever that is the limit. `--dynamodb URL` names another one.
"""

import asyncio
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.processes import END_S, START_S, Failed, Lacking, pinned
from tidings.store import Uncounted
from tidings.store.dynamodb.address import address_of
from tidings.store.dynamodb.driver import connected
from tidings.store.dynamodb.tables import tables
from tools.cluster import keeping, parts

LOOK_S = 0.05


@dataclass(frozen=True)
class Backends:
    """The URLs of a store and a feed; what they are served by, in words."""

    store: str
    feed: str
    server: str

    @property
    def flags(self) -> tuple[str, ...]:
        """For a node's command line, behind the store."""
        return ("--feed", self.feed)


@contextmanager
def backends(room: Path, core: int, dynamodb: str) -> Iterator[Backends]:
    """Both, with empty tables. Raises Lacking, in words that say what to install; Failed."""
    with ExitStack() as stack:
        try:
            feed = stack.enter_context(_feed(room, core))
            endpoint = dynamodb or stack.enter_context(_standin(room, core))
            stack.enter_context(_credentials(is_ours=not dynamodb))
            store = f"dynamodb://eu-central-1/bench-{secrets.token_hex(4)}?endpoint={endpoint}"
            asyncio.run(parts.init(store, {}))
        except keeping.Failed as error:
            raise Failed(str(error)) from None
        if dynamodb:
            stack.callback(lambda: asyncio.run(_forget(store)))
        yield Backends(store, feed, f"the server at {dynamodb}" if dynamodb else "the stand-in")


@contextmanager
def _feed(room: Path, core: int) -> Iterator[str]:
    program = shutil.which("redis-server", path=parts.WHERE) or shutil.which("valkey-server", path=parts.WHERE)
    if program is None:
        raise Lacking(
            "there is no redis-server, nor a valkey-server; on Debian and Ubuntu: apt-get install redis-server"
        )
    with parts.reserve() as held:
        port = parts.port_of(held)
        with _running(parts.feed(program, port), room, core):
            yield f"redis://{parts.HOST}:{port}/0"


@contextmanager
def _standin(room: Path, core: int) -> Iterator[str]:
    with parts.reserve() as held:
        port = parts.port_of(held)
        try:
            plan = parts.standin(port)
        except keeping.Failed as error:
            raise Lacking(f"{error}".replace("--store", "--dynamodb")) from None
        with _running(plan, room, core):
            yield f"http://{parts.HOST}:{port}"


@contextmanager
def _running(plan: keeping.Plan, room: Path, core: int) -> Iterator[None]:
    """A part of a cluster, from when it is ready to its end. Raises Failed."""
    home = room / plan.name
    home.mkdir(parents=True)
    log = room / f"{plan.name}.log"
    with log.open("wb") as output, pinned(core):
        process = subprocess.Popen(
            plan.command,
            cwd=home,
            env={**os.environ, "TMPDIR": str(home), **plan.env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + START_S
        while lacks := asyncio.run(_look(plan)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the {plan.name}'s server did not start: {lacks}; {log.read_text()[-300:]}")
            time.sleep(LOOK_S)
        yield
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _look(plan: keeping.Plan) -> str:
    return await plan.what_lacks("")


@contextmanager
def _credentials(*, is_ours: bool) -> Iterator[None]:
    """Let all that is started within have some: any will do for a server of ours, where no real ones should get."""
    before = dict(os.environ)
    os.environ.update(parts.NO_KEYS if is_ours else {**parts.NO_KEYS, **before})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


async def _forget(store: str) -> None:
    """Delete the tables."""
    address = address_of(store)
    async with connected(address, Uncounted()) as driver:
        for table in tables(address.prefix):
            await driver.ask("delete_table", TableName=table.name)
