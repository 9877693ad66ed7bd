"""The command `tidings` as programs and people run it: `Shell`, and `on_a_terminal` for what people see."""

import codecs
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from tests.server import DEADLINE_S, Output
from tidings.cli import main

COMMAND = [sys.executable, "-W", "error", "-m", "tidings"]

Json = dict[str, Any]

# Of a server that was just killed; the latter by who came while it died, and was not accepted any more.
AWAY = r"Connection (refused|reset by peer)\. Trying again"

PATIENCE_S = 3 * DEADLINE_S  # a command takes half a second of CPU to begin, and tests run several at a time


class Run(NamedTuple):
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


class Shell:
    """Runs commands in surroundings of its own, against one server or (`Shell()`) none; `run` gives all that came."""

    def __init__(self, url: str = "", home: Path = Path("/nowhere")) -> None:
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("TIDINGS_", "XDG_"))},
            "HOME": str(home),
            **({"TIDINGS_URL": url} if url else {}),
            "TZ": "UTC",
            "COLUMNS": "100",
            "TERM": "xterm",
        }

    def run(self, *arguments: object, stdin: str = "") -> Run:
        """Run a command to its end, in this process, which saves the half second that a new one takes to start."""
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name in os.environ:
                patch.delenv(name)
            for name, value in self.env.items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8"))
            time.tzset()
            try:
                code = main([str(argument) for argument in arguments])
            except SystemExit as exit_:  # how completion ends
                code = int(exit_.code or 0)
            out.seek(0)
            err.seek(0)
            ended = Run(code, out.read(), err.read())
        time.tzset()
        return ended

    def apart(self, *arguments: object) -> Run:
        """Run a command in a process of its own: one that may not end by itself, and then fails the test."""
        ended = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=self.env,
            timeout=PATIENCE_S,
            check=False,
        )
        return Run(ended.returncode, ended.stdout, ended.stderr)

    def done(self, *arguments: object, stdin: str = "") -> str:
        """What a command prints that must succeed, and says nothing on stderr."""
        ended = self.run(*arguments, stdin=stdin)
        assert (ended.returncode, ended.stderr) == (0, ""), ended
        return ended.stdout.rstrip("\n")

    def json(self, *arguments: object) -> Json:
        """What a command answers with --json, in one line."""
        (line,) = self.done(*arguments, "--json").splitlines()
        value: Json = json.loads(line)
        return value

    def refused(self, *arguments: object, code: int = 1) -> str:
        """The one line on stderr with which a command that must fail does so."""
        ended = self.run(*arguments)
        assert (ended.returncode, ended.stdout) == (code, ""), ended
        assert re.fullmatch(r"tidings: [^\n]+\n", ended.stderr), ended.stderr
        return ended.stderr

    def start(self, *arguments: str) -> "Running":
        """Start a command that goes on."""
        return Running([*COMMAND, *arguments], self.env)


class Running:
    """A command that goes on; what it prints is read as it comes. `left` are those that did not end yet."""

    left: ClassVar[list["Running"]] = []

    def __init__(self, command: list[str], env: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )
        assert self.process.stdout
        assert self.process.stderr
        self.stdout, self.stderr = Output(self.process.stdout), Output(self.process.stderr)
        self.left.append(self)

    def expect(self, pattern: str, *, on_stderr: bool = False) -> str:
        """Wait for a match in what it prints, and give it."""
        output = self.stderr if on_stderr else self.stdout
        match = output.find(re.compile(pattern, re.MULTILINE), PATIENCE_S)
        assert match, f"no {pattern!r}, but: {self.stdout.text!r} and {self.stderr.text!r}"
        return match[0]

    def end(self, number: int) -> int:
        """Send a signal; gives the exit code once all that it printed is read."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """The exit code, once all that it printed is read."""
        code = self.process.wait(PATIENCE_S)
        self.left.remove(self)
        assert self.stdout.ended(DEADLINE_S)
        assert self.stderr.ended(DEADLINE_S)
        return code


def on_a_terminal(command: list[str], env: Mapping[str, str], stdin: str = "", within_s: float = DEADLINE_S) -> str:
    """Everything that a command, run at a terminal to its end, sends there, line ends as \\n."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True)
    os.close(theirs)
    got = bytearray()

    def drain() -> None:
        try:
            while piece := os.read(ours, 65_536):
                got.extend(piece)
        except OSError:  # EIO: nobody holds the terminal any more
            pass

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    os.write(ours, stdin.encode())
    try:
        process.wait(within_s)
    finally:
        process.kill()
        thread.join(DEADLINE_S)
        os.close(ours)
    return got.decode().replace("\r\n", "\n")


class Terminal:
    """A command at a terminal with somebody before it, who reads and types. `left` are those that did not end yet."""

    left: ClassVar[list["Terminal"]] = []

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        quiet = {**env, "PROMPT_TOOLKIT_NO_CPR": "1"}  # nobody here answers where the cursor is
        # Made the controlling terminal (setsid(1)), as a shell's is: else Ctrl-C reaches only who reads keys just then.
        command = ["setsid", "--ctty", *COMMAND, *arguments]
        self._process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=quiet)
        os.close(theirs)
        self.text = ""
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()
        self.left.append(self)

    def _drain(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        try:
            while piece := os.read(self._ours, 65_536):
                with self._news:
                    self.text += decoder.decode(piece)
                    self._news.notify_all()
        except OSError:  # EIO: nobody holds the terminal any more
            pass

    def expect(self, pattern: str, after: int = 0) -> int:
        """Wait for a match in what stood on it behind a place; gives the place behind the match."""
        wanted = re.compile(pattern)
        with self._news:
            self._news.wait_for(lambda: wanted.search(self.text, after), PATIENCE_S)
            match = wanted.search(self.text, after)
        assert match, f"no {pattern!r}, but: {self.text[after:]!r}"
        return match.end()

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def wait(self) -> int:
        """The exit code, once it has ended."""
        code = self._process.wait(PATIENCE_S)
        self.close()
        return code

    def close(self) -> None:
        """End it, if it did not."""
        self._process.kill()
        self._process.wait()
        self._thread.join(DEADLINE_S)
        os.close(self._ours)
        self.left.remove(self)


def plain(text: str) -> str:
    """What is left to read when the terminal has obeyed the colours that rich sets (SGR)."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
