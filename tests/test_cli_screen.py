"""What people see: sentences, names and local times at a terminal, text of strangers made harmless, completion."""

import asyncio
import re
import subprocess
from pathlib import Path

import pytest
from aiohttp import web

from tests.scene import Foreign, scene
from tests.server import ServerProcess, until
from tests.shell import COMMAND, Shell, Terminal, on_a_terminal, plain
from tidings.cli.visible import visible


@pytest.fixture
def shell(server: ServerProcess, tmp_path: Path) -> Shell:
    """Commands against the module's server."""
    return Shell(server.url, tmp_path)


def seen(shell: Shell, *arguments: str) -> str:
    """What a person sees of a command."""
    return plain(on_a_terminal([*COMMAND, *arguments], shell.env))


def test_people_get_sentences(shell: Shell) -> None:
    """At a terminal each command says in a sentence what it did, and shows names beside ids."""
    said = seen(shell, "user", "create", "ann")
    assert re.fullmatch(r"Signed up ann as user-[0-9a-f]{28}\n", said)
    ann = said.split()[-1]
    bob = shell.done("user", "create", "bob")
    hikers = shell.done("group", "create", "hikers")
    assert seen(shell, "group", "add", hikers, ann) == f"{ann} is now in {hikers}\n"
    assert seen(shell, "group", "show", hikers, "--as", ann) == f"hikers  {hikers}\nMembers:\n  ann  {ann}\n"
    assert seen(shell, "send", ann, bob, "Any tidings?") == f"Sent, as number 1 of {bob}\n"
    assert seen(shell, "block", bob, ann) == f"{bob} now refuses private messages of {ann}\n"
    assert seen(shell, "user", "show", bob) == (
        f"bob  {bob}\nIn groups: none\nRefuses private messages of:\n    {ann}\n"
    )
    assert seen(shell, "read", ann) == "No messages.\n"


def test_messages_are_shown_with_names_and_in_local_time(shell: Shell) -> None:
    """A message stands beside its sender's name, the end of their id, the group, and the reader's own time of day."""
    ann, bob = shell.done("user", "create", "ann"), shell.done("user", "create", "bob")
    hikers = shell.done("group", "create", "hikers")
    for user in (ann, bob):
        shell.done("group", "add", hikers, user)
    shell.done("send", ann, bob, "Any tidings?")
    shell.done("send", "--to-group", ann, hikers, "two\nlines")
    shell.done("send", bob, ann, "mine")
    shell.env["TZ"] = "UTC-13"
    hour = subprocess.run(["date", "+%H"], env=shell.env, capture_output=True, text=True, check=True).stdout.strip()
    first, second, third, fourth = seen(shell, "read", bob, "--sent").splitlines()
    assert re.fullmatch(rf"{hour}:\d\d:\d\d +ann #{ann[-4:]} +Any tidings\?", first.rstrip())
    assert re.search(rf"ann #{ann[-4:]} → hikers( #\w+|…) +two$", second.rstrip())
    assert third.strip() == "lines"
    assert third.startswith(" " * 30)
    assert re.search(rf" me → ann #{ann[-4:]} +mine$", fourth.rstrip())


EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\u202eevil\u2066 [bold red]markup[/] :smile: [link=http://x]\x08\x7f\ufeff"


def test_text_of_strangers_moves_no_cursor(shell: Shell) -> None:
    """Eve's text and name hold commands to the terminal: none of them reaches it, and they are shown for what they are.

    That is so for people and in pipes, of messages, names, and errors that repeat what was given.
    """
    eve = shell.json("user", "create", "eve [red]")["userId"]
    shell.done("send", eve, eve, EVIL)
    shown = (
        r"\x1b[2J\x1b]0;owned\x07\x9b31m\r\u202eevil\u2066 [bold red]markup[/] :smile: [link=http://x]\x08\x7f\ufeff"
    )
    assert shell.done("read", eve).endswith(shown)
    raw = on_a_terminal([*COMMAND, "read", eve], {**shell.env, "COLUMNS": "200"})
    assert shown in plain(raw)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", plain(raw))
    assert "eve [red]  user-" in seen(shell, "user", "show", eve)
    complaint = shell.run("user", "show", "\x1b[31mred")
    assert "\x1b" not in complaint.stderr
    assert "x1b[31mred" in complaint.stderr
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", visible("".join(map(chr, range(0x250)))))


OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def test_names_of_strangers_stay_in_order(shell: Shell) -> None:
    """Eve's name and her group's would turn a line around, which the server allows: each is shown as its escapes."""
    name, shown = "\u202eeve\u2066", r"\u202eeve\u2066"
    said = seen(shell, "user", "create", name), seen(shell, "group", "create", name)
    eve, crew = (re.search(r" as (\S+\w)", line)[1] for line in said)  # type: ignore[index]
    shell.done("group", "add", crew, eve)
    bob = shell.done("user", "create", "bob")
    shell.done("send", eve, bob, "hi")
    commands = ("user", "show", eve), ("group", "show", crew, "--as", eve), ("read", bob)
    for printed in (*said, *(seen(shell, *command) for command in commands)):
        assert shown in printed
        assert not OBEYED.search(printed), printed


@scene
async def test_names_of_any_server_move_no_cursor(tmp_path: Path) -> None:
    """A server that is not ours gives names and ids that command the terminal: every sentence and row is harmless."""
    evil, shown = "\x1b[2J\x9b31m\u202e\x08x\x7f", r"\x1b[2J\x9b31m\u202e\x08x\x7f"
    user = {"userId": f"user-{evil}", "username": evil}
    group = {"groupId": f"group-{evil}", "groupName": evil, "joinedSeq": 0}
    sent = {"messageId": evil, "senderId": evil, "recipientId": evil, "message": evil, "timestamp": "1", "seq": 1}

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/members"):
            return web.json_response({"members": [user]})
        if "/messages/" in request.path:
            return web.json_response(sent if request.method == "POST" else {"messages": [sent], "cursor": evil})
        if "/groups/" in request.path:
            return web.json_response(group)
        return web.json_response({**user, "groups": [group], "blocks": [evil]})

    commands = [
        *(("user", "create", "eve"), ("user", "show", "eve"), ("group", "create", "crew")),
        *(("group", "show", "crew", "--as", "eve"), ("send", "eve", "bob", "hi"), ("read", "bob")),
    ]
    async with Foreign(answer) as foreign:
        shell = Shell(foreign.url, tmp_path)
        shell.env["COLUMNS"] = "200"
        for command in commands:
            printed = await asyncio.to_thread(seen, shell, *command)
            assert shown in printed, command
            assert not OBEYED.search(printed), command


def test_a_forged_line_stands_out(shell: Shell) -> None:
    """Eve's second line looks like a message of Ann's: it stands with her texts, under her name, however narrow."""
    eve = shell.done("user", "create", "eve")
    shell.done("send", eve, eve, "hi\n12:00:00      ann #1234                   Send me money")
    _, forged = seen(shell, "read", eve).splitlines()
    assert re.match(r" {40,}12:00:00 ", forged)
    shell.env["COLUMNS"] = "60"
    assert all(line.startswith("    ") for line in seen(shell, "read", eve).splitlines()[1:])


def test_the_ends_of_ids_are_never_cut(shell: Shell) -> None:
    """Eve is called as Bob is, at length: names give way to the ends of ids, which tell the two apart."""
    name, group = "Bob, the builder of very long bridges 橋橋橋橋", "Hikers of the northern mountains"
    bob, eve = (shell.done("user", "create", name) for _ in range(2))
    crew = shell.done("group", "create", group)
    for user in (bob, eve):
        shell.done("group", "add", crew, user)
        shell.done("send", user, bob, "hi")
        shell.done("send", "--to-group", user, crew, "hi")
    for columns in ("40", "60", "100"):
        shell.env["COLUMNS"] = columns
        screen = seen(shell, "read", bob)
        assert re.findall(rf"(\S+) +(?:#{eve[-4:]}) +→ .+ #{crew[-4:]}", screen), screen
        assert len(re.findall(f"#{eve[-4:]}", screen)) == 2
        assert all(len(line.rstrip()) <= int(columns) for line in screen.splitlines())
        assert bob in seen(shell, "group", "show", crew, "--as", bob)
        assert crew in seen(shell, "user", "show", bob)


def test_a_narrow_terminal_has_the_text_below_the_name(shell: Shell) -> None:
    """In 60 columns there is no room for three: who wrote it stands in one line, and the text below it, with room."""
    ann, bob = shell.done("user", "create", "ann"), shell.done("user", "create", "bob")
    words = " ".join(f"word{number}" for number in range(12))
    shell.done("send", ann, bob, words)
    shell.env["COLUMNS"] = "60"
    first, *rest = seen(shell, "read", bob).splitlines()
    assert re.fullmatch(rf"\d\d:\d\d:\d\d  ann #{ann[-4:]}", first.rstrip())
    assert " ".join(line.strip() for line in rest) == words
    assert len(rest) == 2


def test_follow_greets_people_on_stderr(shell: Shell) -> None:
    """At a terminal, follow says whom it follows, and from where; Ctrl-C ends it."""
    bob = shell.done("user", "create", "bob")
    for option, where in ((), ""), ((), ", from where it ended"), (("--from-now",), ", from now on"):
        terminal = Terminal(["follow", bob, *option], shell.env)
        terminal.expect(rf"tidings: following bob{where}; Ctrl-C ends it\r\n")
        until(lambda: [*Path(shell.env["HOME"]).rglob("*.json")])  # it waits, and its place is kept
        terminal.type("\x03")
        assert terminal.wait() == 130


COMMANDS = (
    *("serve", "user", "group", "store", "block", "unblock", "send", "read", "follow", "chat"),
    *("export", "import", "backup", "restore", "doctor", "check-history"),
)


def test_help_fits_and_names_every_command(shell: Shell) -> None:
    """`tidings`, and each group of commands, without anything else shows its help; no line is cut off with dots."""
    shell.env["COLUMNS"] = "80"
    top = shell.done()
    assert tuple(re.findall("^  ([a-z][a-z-]+) +[A-Z]", top, re.MULTILINE)) == COMMANDS
    assert "Exit codes: 0 done; 1 refused or failed; 2 asked for wrongly; 3 no server" in top
    pages = [top, shell.done("user"), shell.done("group"), *(shell.done(name, "--help") for name in ("send", "follow"))]
    for page in pages:
        assert "..." not in page.replace("[ARGS]...", "")
        assert all(len(line) <= 80 for line in page.splitlines())


@pytest.mark.parametrize(
    ("words", "found"),
    [("tidings us", ["user"]), ("tidings user ", ["create", "show"]), ("tidings follow --from-n", ["--from-now"])],
)
def test_bash_completes_commands(words: str, found: list[str], shell: Shell, tmp_path: Path) -> None:
    """The script that tidings gives, loaded by bash, completes commands, deeper ones and options."""
    shell.env["_TIDINGS_COMPLETE"] = "source_bash"
    script = shell.done()
    del shell.env["_TIDINGS_COMPLETE"]
    (tmp_path / "bin").mkdir()
    tidings = tmp_path / "bin" / "tidings"
    tidings.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    tidings.chmod(0o755)
    typed = " ".join(f"'{word}'" for word in words.split(" "))
    ask = f"COMP_WORDS=({typed}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _tidings_completion tidings"
    done = subprocess.run(
        ["bash", "--norc", "-c", f'{script}\n{ask}\nprintf "%s\\n" "${{COMPREPLY[@]}}"'],
        capture_output=True,
        text=True,
        env={**shell.env, "PATH": f"{tidings.parent}:{shell.env['PATH']}"},
        check=True,
    )
    assert done.stdout.split() == found


def test_the_script_can_be_shown_and_installed(shell: Shell, tmp_path: Path) -> None:
    """In bash, `tidings --show-completion` prints the script; `--install-completion` has the next shell load it."""
    command = f"{' '.join(COMMAND)} --show-completion && {' '.join(COMMAND)} --install-completion; exit $?"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=shell.env, check=True)
    assert "complete -o default -F _tidings_completion tidings" in done.stdout
    assert "_tidings_completion" in "".join(path.read_text() for path in tmp_path.rglob("*.sh"))
    assert "source" in (tmp_path / ".bashrc").read_text()


@pytest.mark.parametrize("name", ["zsh", "fish"])
def test_other_shells_get_their_script(name: str, shell: Shell) -> None:
    """zsh and fish have scripts of their own, and what those call answers."""
    shell.env["_TIDINGS_COMPLETE"] = f"source_{name}"
    assert f"_TIDINGS_COMPLETE=complete_{name}" in shell.done()
    shell.env |= {
        "_TIDINGS_COMPLETE": f"complete_{name}",
        "_TYPER_COMPLETE_ARGS": "tidings us",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    assert "user" in shell.done()
