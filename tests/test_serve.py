"""`tidings serve` as one process: it says when it is ready, refuses in one line, and ends without losing a word."""

import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.bad_input import Wire
from tests.server import DEADLINE_S, ServerProcess, StartFailed, store_url, until
from tidings.config import Settings
from tidings.listening import announce

PENDING = b"POST /v1/users/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that the test may end."""
    with ServerProcess.start(tmp_path) as server:
        yield server


def refused(data: Path, *flags: str) -> str:
    """The one line with which a server that can't start ends, with exit code 1."""
    with pytest.raises(StartFailed) as failed:
        ServerProcess.start(data, *flags)
    assert failed.value.code == 1
    assert re.fullmatch(r"tidings: [^\n]+\n", failed.value.stderr), failed.value.stderr
    return failed.value.stderr


def address(server: ServerProcess) -> tuple[str, int]:
    """Where a server listens."""
    url = httpx.URL(server.url)
    assert url.port
    return url.host, url.port


def send_half(server: ServerProcess) -> socket.socket:
    """A connection with a request that will never be whole; returns once the server waits for the rest."""
    half = socket.create_connection(address(server), DEADLINE_S)
    half.sendall(PENDING.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert half.recv(100).startswith(b"HTTP/1.1 100")  # the handler has asked for the body
    return half


def refuses_connections(server: ServerProcess) -> bool:
    """Whether nobody listens any more."""
    try:
        socket.create_connection(address(server), DEADLINE_S).close()
    except ConnectionError:
        return True
    return False


def test_the_banner_is_true(server: ServerProcess) -> None:
    """A fresh server says where it listens and where its data is, and its curl lines work when pasted."""
    until(lambda: server.output.endswith("\n\n"))
    assert f"\nIts data is in {server.data}/tidings.db\n" in server.output
    assert (server.data / "tidings.db").exists()
    banner, tried = server.output.split("or in another shell:\n")
    assert httpx.get(re.search(r"at (http://\S+/docs)", banner)[1]).status_code == 200  # type: ignore[index]
    assert all(len(line) < 80 for line in tried.splitlines())  # so that a terminal does not tear them
    pasted = subprocess.run(["bash", "-eu"], input=tried, capture_output=True, text=True, timeout=DEADLINE_S)
    said, read = pasted.stdout.splitlines()
    assert re.match(r'{"senderId":"user-\w+","message":"Hi"', said)
    assert read.startswith(f'{{"messages":[{said}],"cursor":')
    assert pasted.stderr == ""
    assert server.complaints == ""


def test_a_flag_wins_over_its_variable(tmp_path: Path) -> None:
    """Settings come from the environment, and the command line has the last word."""
    limits = {"TIDINGS_NAME_MAX_CHARS": "4", "TIDINGS_MESSAGE_MAX_BYTES": "4", "TIDINGS_KEEP_ALIVE_S": ""}
    with ServerProcess.start(tmp_path, "--name-max-chars", "5", env=limits) as server:
        ann = httpx.post(f"{server.url}/v1/users/create", json={"username": "Annie"})
        assert ann.status_code == 200
        assert httpx.post(f"{server.url}/v1/users/create", json={"username": "Robert"}).status_code == 400
        send = {"senderId": ann.json()["userId"], "receiverId": ann.json()["userId"], "message": "Hello"}
        assert httpx.post(f"{server.url}/v1/messages/send?type=private", json=send).status_code == 413


def test_a_second_server_on_one_file_is_refused(server: ServerProcess) -> None:
    """One file has one server; the second says so, and the first serves on."""
    assert "another server is serving" in refused(server.data)
    assert "another server is serving" in refused(server.data, "--workers", "2")
    assert httpx.get(f"{server.url}/readyz").status_code == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_in_use_is_refused(server: ServerProcess, tmp_path: Path, workers: str) -> None:
    """A taken port is told in one line, and the store is not touched."""
    port = str(address(server)[1])
    assert f"127.0.0.1:{port} is in use" in refused(tmp_path, "--port", port, "--workers", workers)
    assert not (tmp_path / "tidings.db").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_is_no_store_is_refused(tmp_path: Path, workers: str) -> None:
    """A file of something else is told in one line and left as it is."""
    (tmp_path / "tidings.db").write_text("Dear diary, " * 1000)
    assert "is not a Tidings store" in refused(tmp_path, "--workers", workers)
    assert (tmp_path / "tidings.db").read_text() == "Dear diary, " * 1000


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A directory that can't be made is told in one line."""
    (tmp_path / "file").touch()
    assert "can't be opened" in refused(tmp_path, "--store", store_url(tmp_path / "file"))


@pytest.mark.parametrize(
    ("host", "reason"), [("nobody.invalid", "can't find the host"), ("192.0.2.1", "can't listen on 192.0.2.1:0")]
)
def test_a_host_that_is_not_here_is_refused(tmp_path: Path, host: str, reason: str) -> None:
    """Names that don't resolve and addresses of other machines (RFC 5737 keeps this one free) are told in one line."""
    assert reason in refused(tmp_path, "--host", host)


def test_it_listens_on_ipv6(tmp_path: Path) -> None:
    """An IPv6 address is listened on and written as URLs have it."""
    with ServerProcess.start(tmp_path, "--host", "::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_an_open_door_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Who listens beyond loopback is warned, once, that there is no authentication; the curl lines go to loopback."""

    class Open(socket.socket):
        def getsockname(self) -> tuple[str, int]:
            return "0.0.0.0", 8080

    with Open() as listener:
        announce(Settings(host="0.0.0.0"), listener)
    shown = capsys.readouterr()
    assert re.fullmatch(r"tidings: warning: there is no authentication yet[^\n]+\n", shown.err)
    assert re.findall(r"http://127\S+", shown.out) == ["http://127.0.0.1:8080/docs,", "http://127.0.0.1:8080/v1"]


def test_sigterm_answers_those_who_wait(own: ServerProcess) -> None:
    """A long-poll in flight at SIGTERM is answered with its cursor, an idle connection closed, and the end is clean."""
    with httpx.Client(base_url=own.url, timeout=DEADLINE_S) as client:
        ann = client.post("/v1/users/create", json={"username": "Ann"}).json()["userId"]
        cursor = client.get(f"/v1/messages/{ann}?cursor=now").json()["cursor"]
        answers: list[httpx.Response] = []

        def wait() -> None:
            answers.append(
                httpx.get(f"{own.url}/v1/messages/{ann}", params={"cursor": cursor, "wait": 60}, timeout=DEADLINE_S)
            )

        waiting = threading.Thread(target=wait)
        waiting.start()
        until(lambda: "tidings_waits 1.0" in client.get("/metrics").text)
        assert own.terminate() == 0
        waiting.join(DEADLINE_S)
    assert answers[0].status_code == 200
    assert answers[0].json()["messages"] is None
    assert answers[0].json()["cursor"]
    assert own.complaints == ""


def test_sigterm_answers_what_came_behind_a_wait(own: ServerProcess) -> None:
    """Requests that a client sent behind its long-poll are answered, too: the server says that it is shutting down."""
    with httpx.Client(base_url=own.url, timeout=DEADLINE_S) as client, Wire(own.url) as wire:
        ann = client.post("/v1/users/create", json={"username": "Ann"}).json()["userId"]
        wait = f"GET /v1/messages/{ann}?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        wire.say(wait + wait + b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: "tidings_waits 1.0" in client.get("/metrics").text)
        own.signal(signal.SIGTERM)
        waited = [wire.hear(), wire.hear()]
        readiness = wire.hear()
        assert wire.ended()
    assert [said.json["messages"] for said in waited] == [None, None]
    assert (readiness.status, readiness.json["code"]) == (503, "shutting_down")
    assert readiness.headers["retry-after"]
    assert own.wait() == 0
    assert own.complaints == ""


def test_ctrl_c_is_a_clean_end(own: ServerProcess) -> None:
    """SIGINT, which a terminal sends, ends the server as SIGTERM does."""
    own.signal(signal.SIGINT)
    assert own.wait() == 0
    assert own.complaints == ""


def test_a_request_that_never_ends_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """What is still in flight after the grace time is cut off, without an answer that could be taken for one."""
    with ServerProcess.start(tmp_path, "--grace-s", "3") as server, send_half(server) as half:
        assert server.terminate() == 0
        assert half.recv(100) == b""
        assert "Traceback" not in server.errors


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    """Who presses Ctrl-C again, while a request is in flight, wants an end now."""
    with ServerProcess.start(tmp_path, "--grace-s", "600") as server, send_half(server):
        server.signal(signal.SIGINT)
        until(lambda: refuses_connections(server))
        server.signal(signal.SIGINT)
        assert server.wait() == 130


def test_more_connections_than_the_usual_limit(tmp_path: Path) -> None:
    """The server takes as many file descriptors as it may, not the soft limit it was started with."""
    with ServerProcess.start(tmp_path, prefix=("prlimit", "--nofile=64:4096")) as server:
        held = [socket.create_connection(address(server), DEADLINE_S) for _ in range(100)]
        assert httpx.get(f"{server.url}/healthz", timeout=DEADLINE_S).status_code == 200
        for connection in held:
            connection.close()
