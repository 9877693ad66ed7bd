"""Store, feed, nodes and balancer on this machine, on loopback only, until Ctrl-C.

The store is a stand-in that keeps everything in memory, unless --store names another; settings of the nodes are taken
from TIDINGS_... variables, as ever.
"""

import argparse
import asyncio
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tools.cluster import parts, words
from tools.cluster.keeping import Failed, Keeper, Part

NODES_MAX = 16
FAILED, INTERRUPTED = 1, 130


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__)
    parser.add_argument("--store", metavar="URL", help="dynamodb://REGION/PREFIX[?endpoint=URL], instead of a stand-in")
    parser.add_argument("--feed", metavar="URL", help="redis://HOST:PORT/DB, instead of a server of its own")
    parser.add_argument("--port", type=int, default=8080, help="where the balancer listens; 0 takes a free one")
    parser.add_argument("--nodes", type=int, default=3, help="how many")
    parser.add_argument("--logs", type=Path, metavar="DIRECTORY", help="where the logs go, else build/cluster/PORT")
    chosen = parser.parse_args(arguments)
    if not 1 <= chosen.nodes <= NODES_MAX:
        parser.error(f"--nodes must be between 1 and {NODES_MAX}")
    return chosen


def main() -> int:
    """Gives the exit code: 0 if it was told to end, 1 if it could not begin or go on."""
    chosen = options()
    try:
        with ExitStack() as held:
            return asyncio.run(run(chosen, held))
    except Failed as error:
        print(f"make cluster: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:  # before there was anything to end
        return INTERRUPTED


async def run(chosen: argparse.Namespace, held: ExitStack) -> int:
    """Bring all of it up, and keep it until a signal; `held` keeps the ports meanwhile. Raises Failed."""
    programs = parts.find_programs(needs_feed=not chosen.feed)
    front = parts.port_of(held.enter_context(parts.reserve(chosen.port)))
    logs = (chosen.logs or parts.ROOT / "build" / "cluster" / str(front)).absolute()
    logs.mkdir(parents=True, exist_ok=True)
    keeper, told = Keeper(logs, say), asyncio.Event()
    _hear(keeper, told)
    rising = asyncio.create_task(rise(chosen, programs, front, logs, keeper, held))
    stopping = asyncio.create_task(told.wait())
    watched: list[asyncio.Future[Any]] = [rising, stopping, keeper.lost]
    try:
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        if rising.done():
            print(rising.result(), flush=True)
            await asyncio.wait(watched[1:], return_when=asyncio.FIRST_COMPLETED)
        if keeper.lost.done():
            raise Failed(keeper.lost.result())
        say("ending all of it")
    finally:
        for task in (rising, stopping):
            task.cancel()
        await asyncio.gather(rising, stopping, return_exceptions=True)
        await keeper.end()
    say("all of it has ended")
    return 0


def _hear(keeper: Keeper, told: asyncio.Event) -> None:
    """End in order at the first signal, at once at the second."""

    def hear() -> None:
        if told.is_set():
            keeper.kill()
        told.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, hear)


async def rise(
    chosen: argparse.Namespace, programs: tuple[str, str], front: int, logs: Path, keeper: Keeper, held: ExitStack
) -> str:
    """Start one part after the other; gives what there is to say once all are ready. Raises Failed."""

    def port() -> int:
        return parts.port_of(held.enter_context(parts.reserve()))

    started: list[Part] = []
    env = {} if chosen.store else parts.NO_KEYS
    store, feed = chosen.store, chosen.feed
    if not store:
        its_port = port()
        started += await keeper.start(parts.standin(its_port))
        store = f"dynamodb://local/tidings?endpoint=http://{parts.HOST}:{its_port}"
    await parts.init(store, env)
    if not feed:
        its_port = port()
        started += await keeper.start(parts.feed(programs[1], its_port))
        feed = f"redis://{parts.HOST}:{its_port}/0"
    nodes = {f"node-{number + 1}": port() for number in range(chosen.nodes)}
    started += await keeper.start(*(parts.node(name, its_port, store, feed, env) for name, its_port in nodes.items()))
    started += await keeper.start(parts.balancer(programs[0], front, nodes, logs))
    return words.ready(f"http://{parts.HOST}:{front}", started, nodes, (store, feed), logs)


def say(text: str) -> None:
    """Print a line with the time."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
