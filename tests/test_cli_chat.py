"""`tidings chat`: two people talk, at terminals or through pipes; what is typed is whole, what comes is shown once."""

import asyncio
import re
import subprocess
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from aiohttp import web

from tests.followed import every_way
from tests.scene import Foreign, scene
from tests.server import ServerProcess
from tests.shell import AWAY, COMMAND, PATIENCE_S, Shell, Terminal, plain
from tidings.client.calls import Way

CTRL_C, CTRL_D = "\x03", "\x04"


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    """A test that fails leaves nobody before a terminal."""
    yield
    while Terminal.left:
        Terminal.left[-1].close()


class Cast(NamedTuple):
    """Ann, Bob, and a group with both in it, on the module's server."""

    shell: Shell
    ann: str
    bob: str
    hikers: str

    def at_a_terminal(self, *arguments: str) -> Terminal:
        """Somebody begins to talk, and can."""
        terminal = Terminal(["chat", *arguments], self.shell.env)
        terminal.expect("ann>|bob>")
        return terminal


@pytest.fixture
def cast(server: ServerProcess, tmp_path: Path) -> Cast:
    """Everybody."""
    shell = Shell(server.url, tmp_path)
    ann, bob = (shell.done("user", "create", name) for name in ("ann", "bob"))
    hikers = shell.done("group", "create", "hikers")
    for user in (ann, bob):
        shell.done("group", "add", hikers, user)
    return Cast(shell, ann, bob, hikers)


def lines_of(terminal: Terminal, text: str) -> list[str]:
    """Each showing of a message: whatever stands before it in its line, without colours."""
    return [line for line in plain(terminal.text).splitlines() if line.rstrip().endswith(f"  {text}")]


def expect_prompt(terminal: Terminal, name: str, shown: str) -> None:
    """Wait for what is shown and for the prompt below it: while that is drawn anew, the terminal eats Ctrl-C and D."""
    terminal.expect(f"{name}>", terminal.expect(shown))


def test_two_people_talk(cast: Cast) -> None:
    """Ann writes while Bob types: his line is not torn, hers is shown above it; both see all once, with names."""
    ann = cast.at_a_terminal(cast.ann, "--with", cast.bob)
    bob = cast.at_a_terminal(cast.bob, "--with", cast.ann)
    ann.expect("Talking with .*bob.*; Ctrl-D ends it")
    bob.type("I am, if it does")
    bob.expect("does")
    ann.type("Who is coming?\r")
    came = bob.expect(r"Who is coming\?")
    bob.expect("bob> I am, if it does", came)  # the prompt stands below it again, with what was typed
    bob.type(" not rain\r")
    for terminal, name, shown in (
        (ann, "ann", "I am, if it does not rain"),
        (bob, "bob", "me +.{0,9}I am, if it does"),
    ):
        expect_prompt(terminal, name, shown)
        terminal.type(CTRL_D)
        assert terminal.wait() == 0
    (mine,) = lines_of(ann, "Who is coming?")
    (hers,) = lines_of(bob, "Who is coming?")
    assert re.search(r"\d\d:\d\d:\d\d +me +Who is coming\?", mine)
    assert re.search(rf"\d\d:\d\d:\d\d +ann #{cast.ann[-4:]} +Who is coming\?", hers)
    assert len(lines_of(ann, "I am, if it does not rain")) == len(lines_of(bob, "I am, if it does not rain")) == 1


@every_way
def test_in_a_group_and_in_no_other(cast: Cast, way: Way) -> None:
    """Bob talks in a group: what is said to him elsewhere is not shown there, whichever way it comes."""
    bob = cast.at_a_terminal(cast.bob, "--group", cast.hikers, "--transport", way)
    cast.shell.done("send", cast.ann, cast.bob, "between us")
    cast.shell.done("send", "--to-group", cast.ann, cast.hikers, "to all")
    expect_prompt(bob, "bob", "to all")
    bob.type("heard\r")
    expect_prompt(bob, "bob", "me +.{0,9}heard")
    bob.type(CTRL_C)
    assert bob.wait() == 130
    assert "between us" not in bob.text


def test_text_of_strangers_moves_no_cursor(cast: Cast) -> None:
    """Eve's name and words would clear the screen: they are shown as what they are, above an unharmed prompt."""
    eve = cast.shell.done("user", "create", "\u202eeve")
    bob = cast.at_a_terminal(cast.bob, "--with", eve)
    cast.shell.done("send", eve, cast.bob, "\x1b[2J\x1b]0;owned\x07\u202ered")
    expect_prompt(bob, "bob", re.escape(r"\x1b[2J\x1b]0;owned\x07\u202ered"))
    bob.type(CTRL_D)
    assert bob.wait() == 0
    assert not {"\u202e", "\x1b[2J", "\x07"} & {*re.findall("\u202e|\x1b\\[2J|\x07", bob.text)}


def piped(cast: Cast, said: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Talk with lines that are piped in."""
    command = [*COMMAND, "chat", *arguments]
    return subprocess.run(
        command, input=said, capture_output=True, text=True, env=cast.shell.env, timeout=PATIENCE_S, check=False
    )


def test_through_pipes(cast: Cast) -> None:
    """Lines that are piped in are sent in order, each once; the command ends when all were sent and have come back."""
    said = [f"line {number}" for number in range(300)]
    ended = piped(cast, "\n".join(["", *said, "  "]), cast.ann, "--with", cast.bob)
    assert (ended.returncode, ended.stderr) == (0, "")
    shown = [line.split("\t") for line in ended.stdout.splitlines()]
    assert [(sender, to, text) for _, sender, to, text in shown] == [(cast.ann, cast.bob, text) for text in said]


def test_what_is_not_sent_is_said(cast: Cast) -> None:
    """Bob blocks Ann while she talks: what he refuses is said with its reason, and the command ends with 1."""
    cast.shell.done("block", cast.bob, cast.ann)
    ended = piped(cast, "hello?\n", cast.ann, "--with", cast.bob)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(r"tidings: not sent: hello\? \(.+\)\n", ended.stderr)


def test_who_and_with_whom(cast: Cast) -> None:
    """Nobody to talk to, or two at once, is wrong use; nobody by that name, or a group of others, is refused."""
    assert "either --with or --group" in cast.shell.refused("chat", cast.ann, code=2)
    both = ("--with", cast.bob, "--group", cast.hikers)
    assert "either --with or --group" in cast.shell.refused("chat", cast.ann, *both, code=2)
    assert "nobody" in cast.shell.refused("chat", cast.ann, "--with", "nobody")
    eve = cast.shell.done("user", "create", "eve")
    assert cast.shell.refused("chat", eve, "--group", cast.hikers)


def test_what_is_typed_while_the_server_is_away(tmp_path: Path) -> None:
    """The server is killed under Ann's words: they are sent when it is back, once, in order, and Bob sees them so."""
    data, said = tmp_path / "data", ["is anybody", "still", "there"]
    with ServerProcess.start(data) as server:
        shell = Shell(server.url, tmp_path)
        cast = Cast(shell, shell.done("user", "create", "ann"), shell.done("user", "create", "bob"), "")
        ann, bob = (
            cast.at_a_terminal(*pair) for pair in ((cast.ann, "--with", cast.bob), (cast.bob, "--with", cast.ann))
        )
        port = server.url.rpartition(":")[2]
        server.kill()
        for line in said:
            ann.type(f"{line}\r")
        ann.expect(f"not sent yet: {said[0]} .*Connection refused")
        with ServerProcess.start(data, "--port", port):
            for terminal, name in ((ann, "ann"), (bob, "bob")):
                expect_prompt(terminal, name, said[-1] + r"\s")
                terminal.type(CTRL_D)
                assert terminal.wait() == 0
            kept = [message["message"] for message in shell.json("read", cast.bob)["messages"]]
    assert kept == said
    for terminal in (ann, bob):
        assert [len(lines_of(terminal, line)) for line in said] == [1, 1, 1]
        assert terminal.text.count("The server answers again.") == 1


@scene
async def test_a_line_whose_answer_is_lost_is_tried_again_under_its_key(tmp_path: Path) -> None:
    """The answer says to come back later than a call waits: chat does, with the same key, so nothing is sent twice."""
    person = {"userId": "ann", "username": "ann", "groups": [], "blocks": []}
    message = {"senderId": "ann", "recipientId": "ann", "message": "hi", "timestamp": "1", "messageId": "m", "seq": 1}
    keys: list[str] = []
    is_sent = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if request.method == "POST":
            keys.append(request.headers["Idempotency-Key"])
            if len(keys) == 1:
                busy = {"code": "store_unavailable", "detail": "Perhaps.", "retry": True}
                return web.json_response(busy, status=503, headers={"Retry-After": "60"})
            is_sent.set()
            return web.json_response(message)
        if request.path.startswith("/v1/users"):
            return web.json_response(person)
        if request.query["cursor"] != "now" and "wait" in request.query:
            await is_sent.wait()
        return web.json_response({"messages": [message] if is_sent.is_set() else None, "cursor": f"c{len(keys)}"})

    async with Foreign(answer) as foreign:
        chat = await asyncio.create_subprocess_exec(
            *(*COMMAND, "chat", "ann", "--with", "ann", "--transport", "poll"),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=Shell(foreign.url, tmp_path).env,
        )
        assert chat.stdin
        assert chat.stderr
        chat.stdin.write(b"hi\n")
        assert await chat.stderr.readline() == b"tidings: not sent yet: hi (Perhaps.) Trying again ...\n"
        chat.stdin.close()
        out, errors = await chat.communicate()  # nothing more is said: what is left is tried once more, at once
    assert (chat.returncode, errors) == (0, b"")
    assert out.endswith(b"\tann\tann\thi\n")
    assert len(keys) == 2
    assert len({*keys}) == 1


@pytest.mark.parametrize(("key", "code"), [(CTRL_D, 1), (CTRL_C, 130)], ids=["Ctrl-D", "Ctrl-C"])
def test_what_was_never_sent_is_said(tmp_path: Path, key: str, code: int) -> None:
    """The server does not come back: ended, chat says what was perhaps not sent, and what surely was not."""
    with ServerProcess.start(tmp_path / "data") as server:
        shell = Shell(server.url, tmp_path)
        bob = shell.done("user", "create", "bob")
        talking = Cast(shell, bob, bob, "").at_a_terminal(bob, "--with", bob)
        server.kill()
        talking.type("one\rtwo\r")
        expect_prompt(talking, "bob", "not sent yet: one")
        talking.type(key)
        talking.expect("not sent: two", talking.expect("perhaps not sent: one"))
        assert talking.wait() == code


def test_a_server_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """The server is killed while Bob talks, and comes back: it is said once, and what is said later is shown."""
    data = tmp_path / "data"
    with ServerProcess.start(data) as server:
        shell = Shell(server.url, tmp_path)
        bob = shell.done("user", "create", "bob")
        port = server.url.rpartition(":")[2]
        talking = Cast(shell, bob, bob, "").at_a_terminal(bob, "--with", bob)
        server.kill()
        talking.expect(AWAY)
        with ServerProcess.start(data, "--port", port) as again:
            body = {"senderId": bob, "receiverId": bob, "message": "still there"}
            httpx.post(f"{again.url}/v1/messages/send?type=private", json=body).raise_for_status()
            expect_prompt(talking, "bob", "still there")
            talking.type(CTRL_D)
            assert talking.wait() == 0
    assert talking.text.count("Trying again") == 1
