"""`tidings follow`: prints what comes, keeps its place, goes on there, and stops where it may not."""

import asyncio
import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from tests.scene import Foreign, scene
from tests.server import ServerProcess, until
from tests.shell import AWAY, Running, Shell


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    """A test that fails leaves no follower behind, who would ask a dead server for ever."""
    yield
    while Running.left:
        Running.left[-1].end(signal.SIGKILL)


class Chat:
    """Ann and Bob on a server; she sends by HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ann, self.bob = (
            httpx.post(f"{url}/v1/users/create", json={"username": name}).json()["userId"] for name in ("ann", "bob")
        )

    def send(self, *texts: str) -> None:
        """Ann sends to Bob."""
        for text in texts:
            body = {"senderId": self.ann, "receiverId": self.bob, "message": text}
            httpx.post(f"{self.url}/v1/messages/send?type=private", json=body).raise_for_status()


@pytest.fixture
def chat(server: ServerProcess) -> Chat:
    """Two people on the module's server."""
    return Chat(server.url)


@pytest.fixture
def shell(server: ServerProcess, tmp_path: Path) -> Shell:
    """Commands against the module's server."""
    return Shell(server.url, tmp_path)


def places(home: Path) -> list[Path]:
    """The files in which followers keep their places."""
    return [*(home / ".local" / "state" / "tidings").glob("*.json")]


def texts(running: Running) -> list[str]:
    """What a follower for programs has printed."""
    return [json.loads(line)["message"] for line in running.stdout.text.splitlines()]


def test_it_goes_on_where_it_ended(shell: Shell, chat: Chat, tmp_path: Path) -> None:
    """Messages are printed as they come; after Ctrl-C (130) and a new start, those since, and none again."""
    chat.send("one")
    first = shell.start("follow", chat.bob)
    first.expect(f"\t{chat.ann}\t{chat.bob}\tone$")
    chat.send("two")
    first.expect("\ttwo$")
    until(lambda: places(tmp_path))
    until(lambda: is_at_the_end(places(tmp_path)[0], chat))
    assert first.end(signal.SIGINT) == 130
    assert first.stderr.text == ""
    chat.send("three")
    second = shell.start("follow", chat.bob, "--json")
    second.expect("three")
    chat.send("four")
    second.expect("four")
    second.end(signal.SIGINT)
    assert texts(second) == ["three", "four"]
    assert [place.stat().st_mode & 0o777 for place in places(tmp_path)] == [0o600]


def is_at_the_end(place: Path, chat: Chat) -> bool:
    """Whether nothing is behind the cursor that is kept."""
    cursor = json.loads(place.read_text())["cursor"]
    return httpx.get(f"{chat.url}/v1/messages/{chat.bob}", params={"cursor": cursor}).json()["messages"] is None


def test_from_now_and_from_the_start(shell: Shell, chat: Chat) -> None:
    """Whatever was kept: --from-start prints everything again, --from-now only what comes."""
    chat.send("one")
    for _ in range(2):
        again = shell.start("follow", chat.bob, "--from-start", "--json")
        again.expect("one")
        again.end(signal.SIGINT)
        assert texts(again) == ["one"]
    chat.send("two")
    now = shell.start("follow", chat.bob, "--from-now", "--json", "--sent")
    waits = "tidings_waits 1"
    until(lambda: waits in httpx.get(f"{chat.url}/metrics").text)
    chat.send("three")
    now.expect("three")
    now.end(signal.SIGINT)
    assert texts(now) == ["three"]


def test_killed_it_loses_nothing(shell: Shell, chat: Chat) -> None:
    """Killed again and again while it prints: all is printed at least once, in order but for repeated ends."""
    wanted = [f"message {number}" for number in range(120)]
    printed: list[str] = []
    for round_ in range(4):
        chat.send(*wanted[30 * round_ : 30 * round_ + 30])
        running = shell.start("follow", chat.bob, "--json")
        running.expect(f"message {30 * round_ + 20}")
        running.end(signal.SIGKILL)
        printed += texts(running)
    last = shell.start("follow", chat.bob, "--json")
    chat.send("end")
    last.expect('"end"')
    last.end(signal.SIGKILL)
    printed += texts(last)
    assert [*dict.fromkeys(printed)] == [*wanted, "end"]


def test_a_server_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """The server is killed and comes back: the follower says once that it is away, and misses nothing."""
    data = tmp_path / "data"
    with ServerProcess.start(data) as server:
        chat, shell = Chat(server.url), Shell(server.url, tmp_path)
        running = shell.start("follow", chat.bob, "--json")
        chat.send("one")
        running.expect("one")
        server.kill()
        running.expect(rf"tidings: No answer from .*: {AWAY} \.\.\.", on_stderr=True)
        with ServerProcess.start(data, "--port", server.url.rpartition(":")[2]):
            chat.send("two")
            running.expect("two")
            running.end(signal.SIGINT)
    assert texts(running) == ["one", "two"]
    assert running.stderr.text.count("Trying again") == running.stderr.text.count("The server answers again.") == 1


def test_a_place_is_one_followers_own(shell: Shell, chat: Chat, tmp_path: Path) -> None:
    """A second follower of the same file is refused; so is a file of somebody else, or of no use; none is touched."""
    file = tmp_path / "places" / "bob"
    chat.send("one")
    first = shell.start("follow", chat.bob, "--cursor-file", str(file))
    until(file.exists)
    second = shell.apart("follow", chat.bob, "--cursor-file", str(file))
    assert (second.returncode, second.stdout) == (1, "")
    assert "another process keeps its place" in second.stderr
    first.end(signal.SIGINT)
    kept = file.read_text()
    assert f"is for {chat.bob}" in shell.apart("follow", chat.ann, "--cursor-file", str(file)).stderr
    assert file.read_text() == kept
    diary = tmp_path / "diary.txt"
    diary.write_text("Dear diary")
    ended = shell.apart("follow", chat.bob, "--cursor-file", str(diary))
    assert (ended.returncode, "does not hold a place" in ended.stderr) == (1, True)
    assert diary.read_text() == "Dear diary"
    nowhere = shell.apart("follow", chat.bob, "--cursor-file", "/proc/nowhere/bob")
    assert (nowhere.returncode, "can't keep the place" in nowhere.stderr) == (1, True)


def test_where_history_broke_off_it_stops(tmp_path: Path) -> None:
    """An older copy of the store was put back: it ends with 1 and what to do; told to go on, it says so and goes on."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    data.mkdir()
    with ServerProcess.start(data) as server:
        chat, shell = Chat(server.url), Shell(server.url, tmp_path)
        chat.send("one")
        port = server.url.rpartition(":")[2]
        server.terminate()
    shutil.copytree(data, copy)
    with ServerProcess.start(data, "--port", port):
        chat.send("lost")
        running = shell.start("follow", chat.bob, "--json")
        running.expect("lost")
        until(lambda: places(tmp_path))
        running.end(signal.SIGINT)
    shutil.rmtree(data)
    shutil.copytree(copy, data)
    with ServerProcess.start(data, "--port", port):
        stopped = shell.apart("follow", chat.bob, "--json")
        assert (stopped.returncode, stopped.stdout) == (1, "")
        assert "--from-start or --from-now" in stopped.stderr
        goes_on = shell.start("follow", chat.bob, "--json", "--go-on")
        goes_on.expect("one")
        assert "does not continue the history" in goes_on.stderr.text
        goes_on.end(signal.SIGINT)


@scene
async def test_where_a_message_is_missing_it_stops(tmp_path: Path) -> None:
    """A server skips a message: what was before is printed, then it ends with 1, and what to do if one may go on."""

    async def answer(request: web.Request) -> web.Response:
        if request.path.startswith("/v1/users"):
            return web.json_response({"userId": "bob", "username": "bob", "groups": [], "blocks": []})
        told = {"senderId": "ann", "recipientId": "bob", "timestamp": "1"}
        messages = [{**told, "message": f"text {seq}", "messageId": f"m{seq}", "seq": seq} for seq in (1, 3)]
        return web.json_response({"messages": messages, "cursor": "after"})

    async with Foreign(answer) as foreign:
        shell = Shell(foreign.url, tmp_path)
        ended = await asyncio.to_thread(shell.apart, "follow", "bob", "--json")
    assert ended.returncode == 1
    assert [json.loads(line)["message"] for line in ended.stdout.splitlines()] == ["text 1"]
    assert ended.stderr.startswith("tidings: After seq 1 of 'bob' comes 2; the server gave 3.")
    assert "--go-on" in ended.stderr
