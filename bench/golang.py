"""Go's `net/http`, where `go` is there: bare.go, built into the bench's own directory."""

import os
import shutil
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

from bench.processes import Failed, Server, serving

SOURCE = Path(__file__).parent / "bare.go"


def build(into: Path, within_s: float) -> Path:
    """The program, built without a network. Raises Failed if there is no go, or it does not build in time.

    The first build on a machine takes half a minute, since Go builds its own library then; later ones find it built.
    """
    go = shutil.which("go")
    if go is None:
        raise Failed("no go here")
    program = into / "bare-go"
    command = [go, "build", "-o", str(program), str(SOURCE)]
    env = {**os.environ, "GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": ""}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=within_s, check=False, env=env, cwd=into)
    except subprocess.TimeoutExpired:
        raise Failed(
            f"go did not build {SOURCE.name} within {within_s:.0f} s; the next run will find more built"
        ) from None
    if done.returncode:
        raise Failed(f"go could not build {SOURCE.name}: {done.stderr.strip()[:300]}")
    return program


def serve(core: int, program: Path, size: int) -> AbstractContextManager[Server]:
    """The bare Go server, answering so many bytes."""
    return serving(core, [str(program), str(size)])
