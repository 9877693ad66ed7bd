"""Who follows whom, and in which ways: `every_way`, `cast`, and the next messages of a follower."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import get_args

import pytest

from tidings import Client
from tidings.client import Following
from tidings.client.calls import Way

WAYS: tuple[Way, ...] = get_args(Way)

every_way = pytest.mark.parametrize("way", WAYS)


@asynccontextmanager
async def cast(url: str) -> AsyncIterator[tuple[Client, str, str, str]]:
    """A client, Ann, Bob, and a group with both in it."""
    async with Client(url) as tidings:
        ann, bob = (await tidings.create_user("ann")).user_id, (await tidings.create_user("bob")).user_id
        hikers = (await tidings.create_group("hikers")).group_id
        await tidings.add_member(hikers, ann)
        await tidings.add_member(hikers, bob)
        yield tidings, ann, bob, hikers


async def texts(following: Following, count: int) -> list[str]:
    """The next messages' texts."""
    return [(await anext(following)).message for _ in range(count)]


async def collect(following: Following, got: list[str]) -> None:
    """Add the texts of all that comes, until something is raised."""
    async for message in following:
        got.append(message.message)
