"""Stores that move: something of everything in one, the lines of its export, and a command that dies half-way."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.backends import LAG_MAX, Counting, gather_group, key, private, sign_up, to_group
from tests.shell import PATIENCE_S, Shell
from tidings.config import Settings
from tidings.model import Draft, Group, User, mint
from tidings.store import Store, open_store

BATCH = 2_000  # sends handed over at a time
CROWD_MAX = 200

# Runs a command in which the n-th call of a function is its death.
_DYING = """
import importlib, os, signal, sys
where, number, *command = sys.argv[1:]
module, _, path = where.partition(":")
*owners, name = path.split(".")
owner = importlib.import_module(module)
for one in owners:
    owner = getattr(owner, one)
real, left = getattr(owner, name), int(number)
def dying(*args, **named):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **named)
setattr(owner, name, dying)
from tidings.cli import main
sys.exit(main(command))
"""


def url_of(path: Path) -> str:
    """The --store of a file."""
    return f"sqlite:///{path}"


def die(shell: Shell, where: str, number: int, *command: object) -> None:
    """Run a command that is killed at the n-th call of `module:function`."""
    ended = _run(shell, where, number, command)
    assert ended.returncode == -signal.SIGKILL, ended


def untouched(shell: Shell, where: str, *command: object) -> None:
    """Run a command to its end that would be killed if it called `module:function` at all."""
    ended = _run(shell, where, 1, command)
    assert (ended.returncode, ended.stderr) == (0, ""), ended


def _run(shell: Shell, where: str, number: int, command: Sequence[object]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", _DYING, where, str(number), *map(str, command)],
        capture_output=True,
        text=True,
        env=shell.env,
        timeout=PATIENCE_S,
        check=False,
    )


def lines(file: Path) -> list[bytes]:
    """What a file has, but for its first line, which says which export it is, and the last, which has the clock."""
    return file.read_bytes().splitlines()[1:-1]


def of_kind(file: Path, *kinds: str) -> list[dict[str, Any]]:
    """Its lines of these kinds."""
    return [line for line in map(msgspec.json.decode, lines(file)) if line["kind"] in kinds]


def but_runs(file: Path) -> list[bytes]:
    """All lines that say nothing of servers."""
    return [line for line in lines(file) if b'"kind":"run"' not in line]


def made(path: Path, messages: int, *, texts: int = 20) -> list[str]:
    """Fill a file with something of everything, and so many messages at least; gives those who wrote and read most."""
    return asyncio.run(_made(path, messages, texts))


async def _made(path: Path, messages: int, texts: int) -> list[str]:
    settings = Settings(store=url_of(path), index_lag_max=LAG_MAX if messages < BATCH else 300)
    store = await open_store(settings, Counting())
    people = await fill(store, messages, texts)
    await store.close()
    return people


async def fill(store: Store, messages: int, texts: int = 20) -> list[str]:
    """Ann, Bob, Carol, Eve and their group; stays that ended and began again, blocks, keys, copies, odd texts."""
    ann, bob, carol, eve = [await sign_up(store, name) for name in ("ann", 'bob ü"\n', "carol", "eve")]
    await store.create_user(User(mint("user"), "dave"), key("dave"))
    hikers = await gather_group(store, ann, bob, carol, eve)
    await store.create_group(Group(mint("group"), ""), key("empty"))
    await store.block(bob, eve)
    await store.block(eve, eve)
    await store.block(eve, ann)
    await store.unblock(eve, ann)
    await store.send(to_group(ann, hikers, "before"))
    await store.remove_member(hikers, eve)
    await store.remove_member(hikers, carol)
    await store.send(to_group(bob, hikers, "meanwhile"), key("meanwhile"))
    await store.add_member(hikers, carol)
    await store.send(private(carol, carol, "to myself"))
    await store.send(private(ann, bob, 'odd: \u2028 \x00 \U0001f600 "\\'), key("odd"))
    people = [ann, carol, *[await sign_up(store, f"user {n}") for n in range(min(CROWD_MAX, messages // 20))]]
    groups = [hikers, *[await gather_group(store, carol) for _ in people[2:]]]
    for begin in range(0, messages, BATCH):
        await _send(
            store, [_draft(n, carol, people, groups, texts) for n in range(begin, min(begin + BATCH, messages))]
        )
    return people


def _draft(n: int, writer: str, people: Sequence[str], groups: Sequence[str], texts: int) -> Draft:
    """To a group, and to somebody, in turn; a mailbox takes one message a millisecond, so they are many."""
    text = f"{n} " + "x" * texts
    if n % 2:
        return to_group(writer, groups[n // 2 % len(groups)], text)
    return private(people[n // 2 % len(people)], people[(n // 2 + 1) % len(people)], text)


async def _send(store: Store, drafts: Sequence[Draft]) -> None:
    waits = asyncio.Semaphore(500)

    async def send(draft: Draft) -> None:
        async with waits:
            await store.send(draft)

    await asyncio.gather(*map(send, drafts))
