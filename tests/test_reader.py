"""The reader of docs/delivery.md loses nothing, whatever is killed."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.pages import ROOT, SHOWN, Fence, fences, surroundings
from tests.server import Output, ServerProcess, until

DELIVERY = ROOT / "docs" / "delivery.md"


class Reader:
    """The reader of docs/delivery.md as a process; `printed` is all that any of its lives printed."""

    def __init__(self, program: str, user_id: str, home: Path) -> None:
        (home / "reader.py").write_text(program)
        self._command = [sys.executable, "-I", "-W", "error", "reader.py", user_id, str(home / "place")]
        self._home = home
        self._earlier = ""
        self.start()

    def start(self) -> None:
        env = surroundings(self._home)
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self._home, env=env
        )
        assert self._process.stdout
        self._output = Output(self._process.stdout)

    def end(self) -> None:
        """SIGKILL."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._output.ended(20)
        self._earlier += self._output.text

    def expect(self, line: str) -> None:
        """Wait for a line of this life."""
        found = self._output.find(re.compile(f"^{re.escape(line)}$", re.MULTILINE), 20)
        assert found, f"no {line!r}, but: {self._output.text}"

    @property
    def printed(self) -> list[str]:
        return (self._earlier + self._output.text).splitlines()


def _program() -> Fence:
    (program,) = (block for block in fences(DELIVERY) if block.language == "python")
    return program


def test_the_reader_loses_nothing(tmp_path: Path) -> None:
    """The program of docs/delivery.md gets all once, whoever is killed, and says when history broke off."""
    data, copy, home = tmp_path / "data", tmp_path / "copy", tmp_path / "home"
    data.mkdir()
    home.mkdir()
    server = ServerProcess.start(data)
    flags = ("--port", server.url.rpartition(":")[2])
    ann, bob = (
        httpx.post(f"{server.url}/v1/users/create", json={"username": name}).json()["userId"] for name in ("ann", "bob")
    )

    def send(*texts: str) -> None:
        for text in texts:
            body = {"senderId": ann, "receiverId": bob, "message": text}
            httpx.post(f"{server.url}/v1/messages/send?type=private", json=body).raise_for_status()

    send("one", "two")
    reader = Reader(_program().text.replace(SHOWN, server.url), bob, home)
    try:
        reader.expect("two")
        send("three")
        reader.expect("three")
        server.kill()
        server = ServerProcess.start(data, *flags)
        send("four")
        reader.expect("four")
        _until_kept(home / "place", server.url, bob)
        reader.end()
        send("five")
        reader.start()
        reader.expect("five")
        assert reader.printed == ["one", "two", "three", "four", "five"]
        server.kill()
        shutil.copytree(data, copy)
        server = ServerProcess.start(data, *flags)
        send("lost")
        reader.expect("lost")
        server.kill()
        shutil.rmtree(data)
        shutil.copytree(copy, data)
        server = ServerProcess.start(data, *flags)
        send("six")
        reader.expect("six")
        said, *again = reader.printed[6:]
        assert "another" in said
        assert again == ["one", "two", "three", "four", "five", "six"]
    finally:
        reader.end()
        server.kill()


def _until_kept(place: Path, url: str, user_id: str) -> None:
    """Wait until the reader has kept a cursor behind which there is nothing: it prints first."""

    def is_kept() -> bool:
        answer = httpx.get(f"{url}/v1/messages/{user_id}", params={"cursor": place.read_text()})
        return bool(answer.json()["messages"] is None)

    until(is_kept)
