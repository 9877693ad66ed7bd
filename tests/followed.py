"""Who follows whom: `cast`, and the next messages of a follower."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tidings import Client
from tidings.client import Following


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
