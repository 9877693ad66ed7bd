"""Servers of DynamoDB's API that tests start, each on a free port of its own, and end by pid.

TIDINGS_TEST_DYNAMODB names a server that is there already (http://HOST:PORT). Otherwise it is the first installed of:

- ministack (`make standin`, from PyPI, MIT): one thread, so that each call is atomic.
- dynoxide (`cargo install dynoxide-rs`, MIT or Apache): over SQLite; knows no point-in-time recovery.

Not dynalite: it has no transactions.

Besides, for what is written to the directory and appended to mailboxes, moto (`make standin`, from PyPI, Apache):
somebody else's reading of the same documents. Its transactions copy whole tables, so it is nothing for many messages.
"""

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
import urllib.request
from functools import cache
from pathlib import Path

import pytest
from botocore import session

from tests.server import until

INSTALLED = Path(__file__).parent.parent.parent / "build" / "standin" / "bin"
ENDPOINT = "TIDINGS_TEST_DYNAMODB"

# For each client botocore reads and parses the same megabytes. A server makes one client, its tests make thousands.
session.create_loader = cache(session.create_loader)


@cache
def endpoint() -> str:
    """The URL of a server that is ready; the test is skipped where there is none."""
    named = os.environ.get(ENDPOINT)
    invent_credentials()
    if named:
        return named
    dynoxide = _found("dynoxide", Path.home() / ".cargo" / "bin")
    if dynoxide and not _found("ministack", INSTALLED):
        port = _free_port()
        return _started([dynoxide, "--host", "127.0.0.1", "--port", str(port), "--log", "quiet"], port, {})
    return ministack()


@cache
def ministack() -> str:
    """The URL of ministack, which is ready; the test is skipped where it is not installed."""
    found = _found("ministack", INSTALLED)
    if not found:
        pytest.skip(f"no server of DynamoDB's API: ministack is not there (make standin), nor dynoxide, nor {ENDPOINT}")
    invent_credentials()
    port = _free_port()
    scope = {"SERVICES": "dynamodb", "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "LOG_LEVEL": "ERROR"}
    return _started([found], port, scope)


@cache
def moto() -> str:
    """The URL of moto's server, which is ready; the test is skipped where it is not installed."""
    if not (INSTALLED / "moto_server").exists():
        pytest.skip("moto is not there (make standin)")
    invent_credentials()
    port = _free_port()
    return _started([str(INSTALLED / "python"), str(Path(__file__).with_name("one_by_one.py")), str(port)], port, {})


def invent_credentials() -> None:
    """Have some, if only made up."""
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "tidings")  # any will do, but for AWS, where somebody set real ones
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "tidings")


def _found(name: str, where: Path) -> str | None:
    return shutil.which(name, path=str(where)) or shutil.which(name)


def _started(command: list[str], port: int, scope: dict[str, str]) -> str:
    home = tempfile.mkdtemp(prefix="tidings-standin-")
    process = subprocess.Popen(
        command,
        cwd=home,
        env={**os.environ, "TMPDIR": home, **scope},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def end() -> None:
        process.kill()
        process.wait()
        shutil.rmtree(home, ignore_errors=True)

    atexit.register(end)
    url = f"http://127.0.0.1:{port}"
    until(lambda: _answers(url), what=f"{command[0]} does not answer")
    return url


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
