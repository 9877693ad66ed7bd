"""The command line, as its own process runs it, and what a test wants to know of a run."""

import io
import json
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple

from tests.server import DEADLINE_S
from tidings.cli import main


class Run(NamedTuple):
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def tidings(*arguments: object) -> Run:
    """Run a command in this process, which saves the half second that a new one takes to start."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main([str(argument) for argument in arguments])
    return Run(code, out.getvalue(), err.getvalue())


def own_process(*arguments: object) -> Run:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "tidings", *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=3 * DEADLINE_S, check=False)
    return Run(run.returncode, run.stdout, run.stderr)


def done(*arguments: object) -> dict[str, Any]:
    """What a command that must succeed tells as JSON."""
    run = tidings(*arguments, "--json")
    assert (run.returncode, run.stderr) == (0, ""), run
    told: dict[str, Any] = json.loads(run.stdout)
    return told


def refused(*arguments: object, code: int = 1) -> str:
    """The one line with which a command that must fail does so."""
    run = tidings(*arguments)
    assert run.returncode == code, run
    assert run.stdout == ""
    assert re.fullmatch(r"tidings: [^\n]+\n", run.stderr), run.stderr
    return run.stderr
