"""Two nodes append thousands of messages to one mailbox at once: it is one log, and each is acknowledged once.

AT_ONCE_MESSAGES says how many; a stand-in whose look for a head goes through the whole mailbox takes long for many.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import aiohttp
import pytest

from tests.api_client import Api, Json
from tests.cluster import Nodes, api_of

MANY = int(os.environ.get("AT_ONCE_MESSAGES", "2000"))
AT_ONCE = 100  # calls at each node: two puts' worth
PATIENCE_S = 300.0 + MANY / 10  # for all of them


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["private", "group"])
def test_two_nodes_at_one_mailbox(two_nodes: Nodes, say: Callable[[str], None], kind: str) -> None:
    """Each is answered with a seq of its own, without a hole; read at either node, the mailbox is what was answered."""
    with api_of(two_nodes) as api:
        ann, bob = api.user("ann"), api.user("bob")
        there = bob if kind == "private" else api.group("hikers", ann, bob)
        body = {"senderId": ann, "recipientId": there}
        shares = [[{**body, "message": f"{n} by {node}"} for n in range(MANY // 2)] for node in range(2)]
        conflicts, begin = api.counted("tidings_store_conflicts_total"), time.monotonic()
        told = asyncio.run(answers(two_nodes.urls, f"/v1/messages/send?type={kind}", shares))
        took_s = time.monotonic() - begin
        conflicts = api.counted("tidings_store_conflicts_total") - conflicts
    say(f"{MANY} {kind} messages through two nodes in {took_s:.0f} s, {conflicts:.0f} conflicts")
    assert conflicts > 0
    assert sorted(one["message"] for one in told) == sorted(one["message"] for share in shares for one in share)
    assert len({one["messageId"] for one in told}) == MANY
    stored = sorted(told, key=lambda one: int(one["seq"]))
    assert [one["seq"] for one in stored] == list(range(1, MANY + 1))
    stamps = [int(one["timestamp"]) for one in stored]
    assert all(a < b for a, b in pairwise(stamps))
    for url in two_nodes.urls:
        with Api(url) as at:
            assert everything(at, bob) == stored
            if kind == "private":
                copies = [one for one in everything(at, ann, sent="include") if one.get("sent")]
                assert sorted(one["messageId"] for one in copies) == sorted(one["messageId"] for one in told)


async def answers(urls: Sequence[str], path: str, shares: Sequence[Sequence[Json]]) -> list[Json]:
    """What is answered to all of these, each share sent to a node of its own, all at once.

    Each has a key, and is repeated until it is done: on a busy machine a node may lose its turns for longer than it
    lets a caller wait.
    """
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit_per_host=AT_ONCE)) as session:

        async def insist(url: str, body: Json) -> Json:
            key = {"Idempotency-Key": body["message"].replace(" ", "-")}
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    async with session.post(url + path, json=body, headers=key) as response:
                        told: Json = await response.json()
                    if response.status != 503:
                        assert response.status == 200, told
                        return told

        calls = [insist(url, body) for url, share in zip(urls, shares, strict=True) for body in share]
        return await asyncio.gather(*calls)


def everything(api: Api, user: str, **more: str) -> list[Json]:
    """All that a user reads, page after page by cursor."""
    found: list[Json] = []
    query: dict[str, str | float] = {"limit": 1_000, **more}
    while True:
        page = api.poll(user, **query)
        found += page["messages"] or []
        if not page.get("more"):
            return found
        query["cursor"] = page["cursor"]
