"""Garbage collection: what is held in large numbers is not looked into by the collector, and its pauses are shown."""

import gc
import re
import socket
from contextlib import ExitStack

from tests.api_client import Api
from tests.server import ServerProcess, until
from tidings.cache import Cache
from tidings.directory import Entry, entry_of
from tidings.model import Batch, Head, Membership, Message, Posted, Profile, User, own, room
from tidings.tail import Tail

MANY = 5_000


def walked() -> int:
    """How many objects a full collection walks, once it has left out what it can."""
    gc.collect()
    return len(gc.get_objects())


def profile(number: int) -> Profile:
    """A user in two groups."""
    stays = tuple(Membership(f"group-{(number + n) % 100}", "friends", number * 2**40 + n, 7) for n in range(2))
    return Profile(User(f"user-{number}", "ann"), stays)


def test_the_collector_does_not_walk_users_and_heads() -> None:
    """Thousands of entries and heads are held, and a full collection has no more to walk than before."""
    entries, heads = Cache[Entry](10 * MANY), Cache[Head](10 * MANY)
    before = walked()
    for number in range(MANY):
        entry = entry_of(profile(number))
        entries.put(entry.mailboxes[-1], entry)
        for mailbox in entry.mailboxes:
            heads.put(mailbox, Head(number, 10 * number))
    assert walked() - before < MANY / 50
    assert (len(entries), len(heads)) == (MANY, MANY + 100)


def test_the_collector_does_not_walk_the_tail() -> None:
    """Thousands of messages are held, in small mailboxes and a large one, and there is no more to walk than before."""
    tail = Tail(600, 2**30)
    tail.reset(0)
    before = walked()
    for number in range(MANY):
        small = Message("user-a", "hello", f"user-{number}", str(number), f"m{number}", 1)
        large = Message("user-a", "hello", "group-1", str(number), f"n{number}", number + 1)
        news = (
            Posted(2 * number + 1, own(small.recipient_id), small, number + 1),
            Posted(2 * number + 2, room(large.recipient_id), large, 0),
        )
        tail.apply(Batch(2 * number, 2 * number + 2, news))
    assert walked() - before < MANY / 50
    assert tail.messages == 2 * MANY


def test_an_entry_is_what_the_store_said() -> None:
    """Packed into an entry and unpacked again, a profile is the same."""
    for number in (0, 3, 2**62):
        assert entry_of(profile(number % 2**20)).profile == profile(number % 2**20)


def test_pauses_are_counted(server: ServerProcess) -> None:
    """Two hundred long-polls are held, which are thousands of objects: the collector worked, and /metrics says so."""

    def number(name: str) -> float:
        found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", api.get("/metrics").text, re.MULTILINE)
        return sum(map(float, found))

    with Api(server.url) as api, ExitStack() as stack:
        assert re.search('^tidings_gc_pause_seconds_count{generation="2"} ', api.get("/metrics").text, re.MULTILINE)
        before = number("tidings_gc_pause_seconds_count")
        port = int(server.url.rpartition(":")[2])
        for _ in range(20):
            user = api.user("ann")
            for _ in range(10):
                waiting = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                waiting.sendall(f"GET /v1/messages/{user}?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        until(lambda: number("tidings_waits") == 200)
        assert number("tidings_gc_pause_seconds_count") > before
        assert number("tidings_gc_pause_seconds_sum") > 0
