"""A closed store: nothing is acknowledged that its export does not have, whatever the nodes do; reads go on."""

import asyncio
import contextlib
import threading
from pathlib import Path

import httpx
import pytest

from tests.api_client import Api, refused
from tests.backends import DynamoPlace, private, sign_up
from tests.moved import of_kind, url_of
from tests.redis_nodes import eventually
from tests.server import ServerProcess, until
from tests.shell import Shell
from tests.standin import endpoint
from tests.standin.between import Between, Talk
from tidings.errors import Closed, StoreUnavailable, TidingsError
from tidings.store.dynamodb import DynamoStore
from tidings.store.moving import export_store, open_again

pytest_plugins = "tests.moving"


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The event loop that the server runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_a_server_acknowledged_is_in_the_export(workers: str, tmp_path: Path, shell: Shell) -> None:
    """Three senders send all the while: each message that was answered is in the file, no later one is; then again."""
    with ServerProcess.start(tmp_path, "--workers", workers) as server, Api(server.url) as api:
        ann, bob = api.user("ann"), api.user("bob")
        answered: list[str] = []
        told = (server.url, ann, bob, answered)
        senders = [threading.Thread(target=_send_until_closed, args=told, daemon=True) for _ in range(3)]
        for sender in senders:
            sender.start()
        until(lambda: len(answered) > 100)
        file = tmp_path / "moved.jsonl"
        shell.done("export", file, "--store", url_of(tmp_path / "tidings.db"), "--close")
        until(lambda: not any(sender.is_alive() for sender in senders))
        there = {line["messageId"] for line in of_kind(file, "message")}
        assert {*answered} <= there
        said = api.post("/v1/messages/send?type=private", {"senderId": ann, "receiverId": bob, "message": "late"})
        refused(said, 503, "store_closed")
        assert int(said.headers["retry-after"]) > 0
        refused(api.post("/v1/users/create", {"username": "eve"}), 503, "store_closed")
        refused(api.post(f"/v1/users/{ann}?op=block", {"blockedUserId": bob}), 503, "store_closed")
        assert {message["messageId"] for message in api.poll(bob)["messages"]} == there
        assert shell.done("store", "open", "--store", url_of(tmp_path / "tidings.db")).endswith("takes writes again")
        api.private(ann, bob, "again")
        assert server.wait_for_error("writes are taken again: store_closed")


def _send_until_closed(url: str, ann: str, bob: str, answered: list[str]) -> None:
    with httpx.Client(timeout=30) as line:
        while True:
            body = {"senderId": ann, "receiverId": bob, "message": "x"}
            answer = line.post(f"{url}/v1/messages/send?type=private", json=body)
            if answer.status_code == 503 and answer.json()["code"] == "store_closed":
                return
            assert answer.status_code == 200, answer.text
            answered.append(answer.json()["messageId"])


@pytest.mark.anyio
@pytest.mark.usefixtures("brisk")
async def test_what_nodes_acknowledged_is_in_the_export(tmp_path: Path) -> None:
    """Of two nodes that send all the while, one can't see the mark: it answers nothing that the file lacks."""
    place = DynamoPlace(tmp_path)
    async with Between(endpoint()).open() as door:
        seeing, blind = await place.serve(), await place.serve(through=door.url)
        people = [await sign_up(seeing, name) for name in ("ann", "bob", "carol", "eve")]
        answered: dict[DynamoStore, list[str]] = {seeing: [], blind: []}
        refusals: set[type[TidingsError]] = set()
        stop = asyncio.Event()
        lines = [(seeing, people[0], people[1]), (blind, people[2], people[3])]
        senders = [
            asyncio.create_task(_send(node, sender, receiver, answered[node], refusals, stop))
            for node, sender, receiver in lines
            for _ in range(3)
        ]
        await eventually(lambda: all(len(ids) > 5 for ids in answered.values()))
        door.fault = _hide_the_mark
        file = tmp_path / "moved.jsonl"
        await asyncio.to_thread(
            export_store, place.url, file, close=True, force=False, on_progress=lambda what, done, total: None
        )
        await eventually(lambda: {Closed, StoreUnavailable} <= refusals)
        there = {line["messageId"] for line in of_kind(file, "message")}
        assert {one for ids in answered.values() for one in ids} <= there
        assert (await asyncio.to_thread(open_again, place.url)).was_closed
        door.fault = lambda _: None
        await eventually(lambda: all(ids and ids[-1] not in there for ids in answered.values()))
        stop.set()
        await asyncio.gather(*senders)
    await place.close()


def _hide_the_mark(talk: Talk) -> None:
    if talk.operation == "GetItem" and talk.request["Key"].get("sk") == {"S": "generation"}:
        talk.is_lost = True


async def _send(
    node: DynamoStore, ann: str, bob: str, answered: list[str], refusals: set[type[TidingsError]], stop: asyncio.Event
) -> None:
    while not stop.is_set():
        try:
            answered.append((await node.send(private(ann, bob))).value.message_id)
        except StoreUnavailable as error:
            refusals.add(type(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await stop.wait()
