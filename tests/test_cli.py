"""The commands that ask a server: what they print for pipes and programs, and how they end."""

import asyncio
import json
import re
import subprocess
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from tests.scene import Foreign, scene
from tests.server import ServerProcess
from tests.shell import COMMAND, Shell

ID = r"{}-[0-9a-f]{{28}}"


@pytest.fixture
def shell(server: ServerProcess, tmp_path: Path) -> Shell:
    """Commands against the module's server."""
    return Shell(server.url, tmp_path)


@pytest.fixture
def ann(client: httpx.Client) -> str:
    """Ann's id."""
    return str(client.post("/v1/users/create", json={"username": "ann"}).json()["userId"])


@pytest.fixture
def bob(client: httpx.Client, ann: str) -> str:
    """Bob's id; he blocks nobody yet."""
    return str(client.post("/v1/users/create", json={"username": "bob"}).json()["userId"])


def test_into_a_pipe_comes_what_the_next_command_needs(shell: Shell) -> None:
    """Creating prints an id and nothing else, sending the message's; reading, a line a message with tabs in it."""
    ann, bob = shell.done("user", "create", "ann"), shell.done("user", "create", "bob")
    hikers = shell.done("group", "create", "hikers")
    assert re.fullmatch(ID.format("user"), ann)
    assert re.fullmatch(ID.format("group"), hikers)
    for user in (ann, bob):
        assert shell.done("group", "add", hikers, user) == ""
    sent = shell.done("send", ann, bob, "Any\ttidings?\nReally any?")
    assert re.fullmatch(ID.format("message"), sent)
    shell.done("send", "--to-group", ann, hikers, "-", stdin="from standard input\n")
    assert shell.done("user", "show", bob).splitlines() == [f"user\t{bob}\tbob", f"group\t{hikers}\thikers"]
    assert shell.done("group", "show", hikers, "--as", bob).splitlines() == [
        f"group\t{hikers}\thikers",
        *(f"member\t{user}\t{name}" for user, name in sorted([(ann, "ann"), (bob, "bob")])),
    ]
    first, second = (line.split("\t") for line in shell.done("read", bob).splitlines())
    assert first[1:] == [ann, bob, r"Any\ttidings?\nReally any?"]
    assert second[1:] == [ann, hikers, "from standard input"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", first[0])
    assert shell.done("block", bob, ann) == ""
    assert f"block\t{ann}" in shell.done("user", "show", bob).splitlines()
    assert shell.done("unblock", bob, ann) == ""
    assert shell.done("group", "remove", hikers, bob) == ""
    assert shell.done("user", "show", bob) == f"user\t{bob}\tbob"


def test_for_programs_every_command_answers_json(shell: Shell) -> None:
    """With --json, each answer is the API's own, in one line."""
    ann, bob = (shell.json("user", "create", name)["userId"] for name in ("ann", "bob"))
    hikers = shell.json("group", "create", "hikers")["groupId"]
    for user in (ann, bob):
        assert shell.json("group", "add", hikers, user) == {}
    message = shell.json("send", ann, bob, "Any\ttidings?\nReally any?")
    assert (message["senderId"], message["message"], message["seq"]) == (ann, "Any\ttidings?\nReally any?", 1)
    later = shell.json("send", "--to-group", ann, hikers, "to all")
    assert shell.json("block", bob, ann) == {}
    assert shell.json("user", "show", bob) == {
        "userId": bob,
        "username": "bob",
        "groups": [{"groupId": hikers, "groupName": "hikers", "joinedSeq": 0}],
        "blocks": [ann],
    }
    assert shell.json("unblock", bob, ann) == {}
    group = shell.json("group", "show", hikers, "--as", bob)
    assert (group["groupName"], sorted(member["username"] for member in group["members"])) == ("hikers", ["ann", "bob"])

    page = shell.json("read", bob, "--limit", "1")
    assert (page["messages"], page["more"]) == ([message], True)
    assert shell.json("read", bob, "--cursor", page["cursor"])["messages"] == [later]
    assert shell.json("read", bob, "--since", message["timestamp"])["messages"] == [later]
    assert shell.json("read", bob, "--since", "2020-02-02T20:20")["messages"] == [message, later]
    assert shell.json("read", bob, "--since", "2120-01-01")["messages"] == []
    assert [each["sent"] for each in shell.json("read", ann, "--sent")["messages"] if "sent" in each] == [True]
    assert shell.json("group", "remove", hikers, bob) == {}


def test_a_send_run_again_with_its_key_is_sent_once(shell: Shell, ann: str, bob: str) -> None:
    """A script that does not know whether its send got through runs it again with the same key."""
    first = shell.done("send", ann, bob, "once", "--key", "deploy-17")
    assert shell.done("send", ann, bob, "once", "--key", "deploy-17") == first
    assert len(shell.json("read", bob)["messages"]) == 1


def test_more_is_said(shell: Shell, ann: str, bob: str) -> None:
    """When a page is not all, stderr says how to go on; what it says leads on."""
    for text in ("one", "two", "three"):
        shell.done("send", ann, bob, text)
    for begin in ((), ("--since", "1")):
        ended = shell.run("read", bob, "--limit", "2", *begin)
        place = re.fullmatch(r"tidings: there is more; go on with (--\w+ \S+)\n", ended.stderr)
        assert place
        assert shell.done("read", bob, *place[1].split()).endswith("\tthree")


REFUSED = {
    "an unknown user": (1, ["user", "show", "nobody"], "unknown_user", "There is no user 'nobody'"),
    "blocked": (1, ["send", "ANN", "BOB", "hello"], "blocked", "does not take messages"),
    "already blocked": (1, ["block", "BOB", "ANN"], "already_blocked", "already"),
    "a message too long": (1, ["send", "ANN", "ANN", "x" * 20_000], "message_too_large", "longer than 16384 bytes"),
    "an empty message": (2, ["send", "ANN", "ANN", ""], "empty_field", "message is empty"),
    "a cursor that is none": (2, ["read", "ANN", "--cursor", "x"], "bad_cursor", "cursor"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_refusal_is_one_line_and_an_exit_code(
    why: str, shell: Shell, client: httpx.Client, ann: str, bob: str
) -> None:
    """What the server refuses is said in a line for people, in a line of JSON for programs; the code tells which."""
    client.post(f"/v1/users/{bob}?op=block", json={"blockedUserId": ann}).raise_for_status()
    code, given, name, words = REFUSED[why]
    arguments = [{"ANN": ann, "BOB": bob}.get(argument, argument) for argument in given]
    said = shell.run(*arguments)
    assert (said.returncode, said.stdout) == (code, "")
    assert re.fullmatch(r"tidings: [^\n]+\n", said.stderr)
    assert words in said.stderr
    told = shell.run(*arguments, "--json")
    assert (told.returncode, told.stdout) == (code, "")
    error = json.loads(told.stderr)
    assert (error["code"], error["retry"]) == (name, False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sned", "ann", "bob", "hello"], "No such command 'sned'"),
        (["send", "ann", "bob"], "TEXT"),
        (["read", "bob", "--limit", "0"], "--limit"),
        (["read", "bob", "--limit", "ten"], "--limit"),
        (["read", "bob", "--cursor", "x", "--since", "1"], "--cursor and --since"),
        (["read", "bob", "--since", "yesterday"], "Unix milliseconds"),
        (["follow", "bob", "--from-now", "--from-start"], "--from-now and --from-start"),
        (["group", "show", "hikers"], "--as"),
        (["user", "show", "ann", "--server", "nowhere"], "http://127.0.0.1:8080"),
        (["user", "create", b"\xff".decode(errors="surrogateescape")], "no text"),
    ],
    ids=lambda value: " ".join(value).encode(errors="replace").decode() if isinstance(value, list) else "",
)
def test_wrong_use_is_said_and_tried_by_nobody(arguments: list[str], words: str, shell: Shell) -> None:
    """What can't be meant ends with 2 and one line, without a word to any server."""
    shell.env["TIDINGS_URL"] = "http://127.0.0.1:1"
    ended = shell.run(*arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(r"tidings: [^\n]+\n", ended.stderr), ended.stderr
    assert words in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "path"),
    [(["sned"], "tidings"), (["send", "ann"], "tidings send"), (["group", "add", "x", "--as"], "tidings group add")],
    ids=" ".join,
)
def test_wrong_use_leads_to_the_help(arguments: list[str], path: str, shell: Shell) -> None:
    """Whoever has mistyped a command is told which page explains it, and that page is there."""
    assert shell.refused(*arguments, code=2).endswith(f". See: {path} --help\n")
    assert shell.done(*path.split()[1:], "--help").startswith(f"Usage: {path} ")


def test_no_server_is_said_with_what_to_do(shell: Shell, tmp_path: Path) -> None:
    """Where nobody listens, the line says so and names the command that starts a server; the exit code is 3."""
    with ServerProcess.start(tmp_path / "data") as gone:
        pass
    ended = shell.run("user", "show", "ann", "--server", gone.url)
    assert ended.returncode == 3
    words = f"tidings: nobody listens on {gone.url}; is the server running? Start it with: tidings serve\n"
    assert ended.stderr == words
    told = shell.run("user", "show", "ann", "--server", gone.url, "--json")
    assert (told.returncode, json.loads(told.stderr)["code"]) == (3, "no_answer")


@scene
async def test_another_web_server_is_said(tmp_path: Path) -> None:
    """Where something else answers, it is not taken for Tidings, and what it says does not reach the terminal raw."""

    async def answer(request: web.Request) -> web.Response:
        if "nobody" in request.path:
            return web.Response(status=404, text="File not found")
        if "show" in request.path:
            return web.Response(text="<h1>Hello</h1>", content_type="text/html")
        body = '{"code": "no", "detail": "\\u001b]0;owned\\u0007\\u202egnihton"}'
        return web.Response(status=403, text=body, content_type="application/problem+json")

    async with Foreign(answer) as foreign:
        shell = Shell(foreign.url, tmp_path)
        ended = await asyncio.to_thread(shell.run, "user", "show", "show")
        assert (ended.returncode, ended.stderr) == (3, f"tidings: What answers at {foreign.url} is not Tidings.\n")
        ended = await asyncio.to_thread(shell.run, "user", "create", "ann")
        assert (ended.returncode, ended.stderr) == (1, "tidings: \\x1b]0;owned\\x07\\u202egnihton\n")
        ended = await asyncio.to_thread(shell.run, "user", "show", "nobody")
        words = f"tidings: {foreign.url} answers HTTP 404, and not as Tidings does; is another program there?\n"
        assert (ended.returncode, ended.stderr) == (3, words)


def test_a_reader_that_leaves_is_no_fault(shell: Shell, client: httpx.Client, ann: str) -> None:
    """`tidings read | head`: nothing is printed about the pipe that was closed while much more was to come."""
    for _ in range(20):
        body = {"senderId": ann, "receiverId": ann, "message": "x" * 16_000}
        client.post("/v1/messages/send?type=private", json=body).raise_for_status()
    command = f"{' '.join(COMMAND)} read {ann} | head -c 1"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=shell.env, check=True)
    assert (ended.stdout, ended.stderr) == ("2", "")


def test_output_that_can_t_be_written_is_said(shell: Shell, ann: str) -> None:
    """The disk behind standard output is full: one line, exit code 1."""
    with open("/dev/full", "w") as full:
        command = [*COMMAND, "user", "show", ann]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=shell.env, check=False)
    assert (ended.returncode, ended.stderr) == (1, "tidings: can't write: No space left on device\n")


def test_letters_that_a_terminal_lacks_are_numbers(shell: Shell, ann: str) -> None:
    """Where only ASCII is spoken, other letters are shown as their numbers, and JSON is UTF-8 all the same."""
    shell.done("send", ann, ann, "schön 🌲")
    shell.env["PYTHONIOENCODING"] = "ascii"
    printed = [
        subprocess.run([*COMMAND, "read", ann, *form], stdout=subprocess.PIPE, env=shell.env, check=True).stdout
        for form in ((), ("--json",))
    ]
    assert printed[0].endswith(b"sch\\xf6n \\U0001f332\n")
    assert "schön 🌲" in printed[1].decode()
    bad = subprocess.run([*COMMAND, "send", ann, ann, "-"], input=b"\xff", stderr=-1, env=shell.env, check=False)
    assert (bad.returncode, bad.stderr) == (2, b"tidings: standard input is not UTF-8\n")


def test_a_server_starts_where_the_url_of_one_is_set(tmp_path: Path) -> None:
    """TIDINGS_URL is no setting of a server, but not refused as a misspelt one; its neighbours are."""
    with ServerProcess.start(tmp_path, env={"TIDINGS_URL": "http://127.0.0.1:1"}) as server:
        assert server.is_running()


def test_a_command_imports_what_it_needs() -> None:
    """Starting a server brings in neither a terminal's colours nor a client: it would be ready later for nothing."""
    program = (
        "import sys, tidings.cli, tidings.server\n"
        "tidings.cli.main(['--version'])\n"
        "print(*sorted({'aiohttp', 'rich', 'tidings.client'} & {*sys.modules}))"
    )
    printed = subprocess.run([COMMAND[0], "-c", program], capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"tidings [\d.]+\n\n", printed)
