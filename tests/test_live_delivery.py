"""The same cases of delivery over every transport, from one table; one cursor serves them all."""

import random
from collections.abc import Iterator

import pytest

from tests.api_client import Api, Json
from tests.cluster import api_of
from tests.readers import READERS, reading, texts

TRANSPORTS = list(READERS)


@pytest.fixture(
    scope="module", params=["server", "two_workers", "two_nodes"], ids=["one worker", "two workers", "two nodes"]
)
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    """A server of one and of two processes, and two nodes: with two, senders and readers are at either."""
    with api_of(request.getfixturevalue(request.param)) as opened:
        yield opened


@pytest.fixture
def ann(api: Api) -> str:
    return api.user("ann")


@pytest.fixture
def bob(api: Api) -> str:
    return api.user("bob")


@pytest.fixture
def others(api: Api) -> Iterator[list[Api]]:
    """More connections to the server: over both of its processes."""
    opened = [Api(*api.urls) for _ in range(4)]
    yield opened
    for one in opened:
        one.client.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_each_message_comes_once_in_order(api: Api, others: list[Api], ann: str, bob: str, transport: str) -> None:
    """Private and to a group, some before Bob reads on and some while he does: each once, a mailbox's in order."""
    hikers = api.group("hikers", ann, bob)
    cursor = api.poll(bob)["cursor"]
    sent: list[Json] = []

    def send(n: int) -> None:
        one = others[n % len(others)]
        sent.append(one.groupwide(ann, hikers, str(n)) if n % 3 else one.private(ann, bob, str(n)))

    for n in range(10):
        send(n)
    with reading(transport, api.url, bob, cursor) as reader:
        read = [reader.next() for _ in range(5)]
        for n in range(10, 30):
            send(n)
        read += [reader.next() for _ in range(25)]
    for mailbox in (bob, hikers):
        assert [m for m in read if m["recipientId"] == mailbox] == [m for m in sent if m["recipientId"] == mailbox]
    assert api.poll(bob, cursor=reader.cursor)["messages"] is None


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_from_now_on(api: Api, ann: str, bob: str, transport: str) -> None:
    """Without a place to go on from, Bob is given what comes, nothing that was, and a cursor before anything."""
    api.private(ann, bob, "before")
    with reading(transport, api.url, bob) as reader:
        assert reader.cursor
        api.private(ann, bob, "after")
        assert reader.next()["message"] == "after"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_sent_copies(api: Api, ann: str, bob: str, transport: str) -> None:
    """Ann's second device is given what she sent, marked as such, beside what she was sent; Bob's is not."""
    with reading(transport, api.url, ann, sent=True) as both, reading(transport, api.url, ann) as received:
        first = api.private(ann, bob, "to Bob")
        second = api.private(bob, ann, "to Ann")
        to_herself = api.private(ann, ann, "to herself")
        assert {**first, "seq": 1, "sent": True} == both.next()
        assert [both.next() for _ in range(2)] == [second, to_herself]
        assert [received.next() for _ in range(2)] == [second, to_herself]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_who_was_removed_is_given_nothing_more(api: Api, others: list[Api], ann: str, bob: str, transport: str) -> None:
    """Bob comes and goes: nothing that was sent after a removal was answered is ever his, all between is."""
    hikers = api.group("hikers", ann)
    with reading(transport, api.url, bob) as reader:
        expected = []
        for n in range(8):
            one, two, three = (random.choice(others) for _ in range(3))
            one.add(hikers, bob)
            two.groupwide(ann, hikers, f"in {n}")
            expected.append(reader.next()["message"] == f"in {n}")
            three.remove(hikers, bob)
            one.groupwide(ann, hikers, f"out {n}")
            two.private(ann, bob, f"ask {n}")
            expected.append(texts(reader, f"ask {n}") == [f"ask {n}"])
        assert all(expected)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_who_joins_is_given_what_comes_after(api: Api, others: list[Api], ann: str, bob: str, transport: str) -> None:
    """Groups that Bob is let into while he reads: what was said before is not for him, the next word is."""
    with reading(transport, api.url, bob) as reader:
        for n in range(5):
            group = api.group(f"group {n}", ann)
            others[n % 4].groupwide(ann, group, "before")
            others[(n + 1) % 4].add(group, bob)
            others[(n + 2) % 4].groupwide(ann, group, f"after {n}")
            assert reader.next()["message"] == f"after {n}"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_block_binds_at_once(api: Api, others: list[Api], ann: str, bob: str, transport: str) -> None:
    """Bob blocks Ann and takes it back: what was refused between never comes, group messages do."""
    hikers = api.group("hikers", ann, bob)
    with reading(transport, api.url, bob) as reader:
        for n in range(4):
            others[n].block(bob, ann)
            body = {"senderId": ann, "receiverId": bob, "message": "refused"}
            assert others[(n + 1) % 4].post("/v1/messages/send?type=private", body).status_code == 403
            others[(n + 2) % 4].groupwide(ann, hikers, f"to all {n}")
            api.post(f"/v1/users/{bob}?op=unblock", {"blockedUserId": ann})
            others[(n + 3) % 4].private(ann, bob, f"again {n}")
            assert texts(reader, f"again {n}") == [f"to all {n}", f"again {n}"]


@pytest.mark.parametrize("second", TRANSPORTS)
@pytest.mark.parametrize("first", TRANSPORTS)
def test_one_cursor_serves_every_transport(api: Api, ann: str, bob: str, first: str, second: str) -> None:
    """Bob goes on over another transport, and back, from any place: each message once."""
    hikers = api.group("hikers", ann, bob)
    cursor = api.poll(bob)["cursor"]
    sent = [(api.groupwide(ann, hikers, str(n)) if n % 2 else api.private(ann, bob, str(n))) for n in range(12)]
    read = []
    for n in range(12):
        with reading((first, second)[n % 2], api.url, bob, cursor) as reader:
            read.append(reader.next())
            cursor = reader.cursor
    assert sorted(read, key=lambda m: m["messageId"]) == sorted(sent, key=lambda m: m["messageId"])
    assert api.poll(bob, cursor=cursor)["messages"] is None


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_long_backlog(api: Api, ann: str, bob: str, transport: str) -> None:
    """More than a page waits for Bob, in a few groups, and more comes while he takes it: all, in order."""
    groups = [api.group(f"group {n}", ann, bob) for n in range(3)]
    cursor = api.poll(bob)["cursor"]
    sent = [api.groupwide(ann, groups[n % 3], str(n)) for n in range(250)]
    with reading(transport, api.url, bob, cursor) as reader:
        read = [reader.next() for _ in range(50)]
        sent += [api.groupwide(ann, groups[n % 3], f"more {n}") for n in range(20)]
        read += [reader.next() for _ in range(220)]
    for group in groups:
        assert [m for m in read if m["recipientId"] == group] == [m for m in sent if m["recipientId"] == group]
