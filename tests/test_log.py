"""What the server says on stderr: its start, its stop, what is slow and what fails; never what anybody wrote."""

import fcntl
import json
import re
import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.api_client import Api, refused
from tests.faults.calls import Line, line_to
from tests.readers import Events
from tests.server import ServerProcess
from tests.sockets import asked, opened
from tidings.store.sqlite.file import connect

SECRET = "xyzzy-the-words-of-ann"
NAME = "plugh-the-name-of-ann"
WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


def events(errors: str) -> list[dict[str, Any]]:
    """The lines of a log for programs; every line must be one."""
    return [json.loads(line) for line in errors.splitlines()]


@WORKERS
def test_start_and_stop_for_programs(tmp_path: Path, workers: str) -> None:
    """Each line is a JSON object with time, level, event and pid; start has the settings that differ, stop the why."""
    flags = ("--log-format", "json", "--workers", workers, "--page-max", "7")
    with ServerProcess.start(tmp_path, *flags) as server:
        assert server.terminate() == 0
    told = events(server.errors)
    assert [event["event"] for event in told] == ["start", "ready", "stopping", "stop"]
    for event in told:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])
        assert (event["level"], event["pid"]) == ("info", server.pid)
        assert event["text"]
    start, ready, stopping, stop = told
    assert start["url"] == server.url
    assert start["store"] == str(tmp_path / "tidings.db")
    assert re.fullmatch(r"\d+\.\d+\.\d+", start["version"])
    several = {"workers": 2} if workers == "2" else {}
    assert start["settings"] == {
        "port": 0,
        "store": f"sqlite:///{tmp_path}/tidings.db",
        "page_max": 7,
        "log_format": "json",
        **several,
    }
    assert ready["ms"] > 0
    assert stopping["signal"] == stop["signal"] == "SIGTERM"
    assert stop["seconds"] >= 0


@WORKERS
@pytest.mark.parametrize("form", ["text", "json"])
def test_calls_leave_no_lines(tmp_path: Path, workers: str, form: str) -> None:
    """Answers and refusals, polls hot and cold, sends, streams and sockets: not a line for any of them."""
    with ServerProcess.start(tmp_path, "--workers", workers, "--log-format", form) as server:
        server.wait_for_error("ready")
        before = server.errors
        with Api(server.url) as api:
            ann = api.user("ann")
            api.block(ann, api.user("bob"))
            api.add(api.group("hikers"), ann)
            refused(api.post("/v1/messages/send?type=private", {}), 400, "missing_field")
            refused(api.get("/nowhere"), 404, "unknown_path")
            with opened(api.url, ann) as socket, closing(Events(api.url, ann, "now")) as stream:
                assert asked(socket, receiverId=ann, message="hi")["type"] == "sent"
                assert stream.next()["message"] == "hi"
            cursor = api.poll(ann)["cursor"]
            for _ in range(20):
                assert api.poll(ann, cursor=cursor)["messages"] is None
        assert server.errors == before
        assert server.terminate() == 0  # so that all it says is here
        assert [line for line in server.errors.removeprefix(before).splitlines() if "stop" not in line] == []


@WORKERS
def test_start_and_stop_for_people(tmp_path: Path, workers: str) -> None:
    """The same in sentences; a level above them leaves nothing to say."""
    with ServerProcess.start(tmp_path, "--workers", workers, "--page-max", "7") as server:
        server.terminate()
    assert re.search(rf" INFO tidings \S+ on {server.url}, store {tmp_path}/tidings.db, .*page_max=7", server.errors)
    for said in (r"ready in \d+ ms", "stopping, told by SIGTERM", r"stopped in \d+\.\d s"):
        assert re.search(f" INFO {said}", server.errors), said
    with ServerProcess.start(tmp_path, "--workers", workers, "--log-level", "warning") as server:
        server.terminate()
    assert server.errors == ""


def test_what_is_cut_at_the_end_is_counted(tmp_path: Path) -> None:
    """A request that is not finished in the grace time is cut, and the stop says so."""
    with ServerProcess.start(tmp_path, "--log-format", "json", "--grace-s", "4") as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 20) as half:
            half.sendall(b"POST /v1/users/create HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n")
            half.sendall(b"Content-Length: 100\r\n\r\n")
            assert half.recv(100).startswith(b"HTTP/1.1 100")
            server.terminate()
    assert events(server.errors)[-1]["cut"] == 1


def test_slow_calls_are_told(tmp_path: Path) -> None:
    """A send that waited for the store is a line, by its route; one that waited for news as it was asked to is none."""
    flags = ("--log-format", "json", "--slow-call-s", "1.5")
    with ServerProcess.start(tmp_path, *flags) as server, line_to(server.url) as line, line_to(server.url) as other:
        ann = line.post("/v1/users/create", {"username": NAME}).data["userId"]
        cursor = line.get(f"/v1/messages/{ann}", cursor="now").data["cursor"]
        body = {"senderId": ann, "receiverId": ann, "message": SECRET}
        with (tmp_path / "tidings.db.turn").open() as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            sending = threading.Thread(target=line.post, args=("/v1/messages/send?type=private", body))
            sending.start()
            assert other.get(f"/v1/messages/{ann}", cursor=cursor, wait=2).data["messages"] is None
        sending.join()
        server.wait_for_error("slow_call")
        server.terminate()
    (slow,) = (event for event in events(server.errors) if event["event"] == "slow_call")
    assert (slow["route"], slow["method"], slow["status"]) == ("/v1/messages/send", "POST", "200")
    assert slow["seconds"] > 1.5
    assert ann not in server.errors


def _live(line: Line) -> tuple[str, str]:
    line.post("/v1/users/create", {"username": NAME}, f"{SECRET}-2")
    ann = line.post("/v1/users/create", {"username": NAME}).data["userId"]
    body = {"senderId": ann, "receiverId": ann, "message": SECRET}
    for n in range(5):
        assert line.post("/v1/messages/send?type=private", body, f"{SECRET}-{n}").status == 200
    return ann, line.get(f"/v1/messages/{ann}").data["cursor"]


def _spoil(data: Path, deed: str) -> None:
    db = connect(data / "tidings.db")
    for _ in db.execute(deed):
        pass
    db.close()


DEEDS = {  # done to the file under a running server: what each then stumbles upon
    "a time that is a text": f"UPDATE messages SET timestamp = '{SECRET}'",
    "a seq that is a text": f"UPDATE messages SET seq = '{SECRET}' || seq",
    "a key's answer that is none": f"UPDATE keys SET position = NULL, answer = '{SECRET}'",
    "a table that is gone": "DROP TABLE memberships; DROP TABLE keys",
    "a clock that is a text": f"UPDATE clock SET position = '{SECRET}', timestamp = '{SECRET}'",
    "damaged pages": "",
}


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("deed", DEEDS)
def test_no_line_holds_what_somebody_wrote(tmp_path: Path, deed: str, form: str) -> None:
    """Whatever fails while messages pass, the log has the fault, and neither text, name, key nor cursor."""
    tiny = ("--tail-max-bytes", "0", "--directory-max-users", "1", "--directory-max-heads", "1")
    flags = ("--log-format", form, "--log-level", "debug", "--slow-call-s", "0.001")
    with ServerProcess.start(tmp_path, *flags, *tiny) as server, line_to(server.url) as line:
        ann, cursor = _live(line)
        bob, _ = _live(line)
        if DEEDS[deed]:
            _spoil(tmp_path, DEEDS[deed])
        else:
            for name in ("tidings.db", "tidings.db-wal"):
                with (tmp_path / name).open("r+b") as file:
                    file.write(SECRET.encode() * 1000)
        statuses = set()
        for user in (ann, bob):
            body = {"senderId": user, "receiverId": ann, "message": SECRET}
            for query in ({}, {"cursor": cursor}, {"timestamp": 1, "limit": 2}, {"cursor": cursor, "wait": 0.1}):
                statuses.add(line.get(f"/v1/messages/{user}", **query).status)
            statuses.add(line.post("/v1/messages/send?type=private", body, f"{SECRET}-1").status)
            statuses.add(line.post("/v1/messages/send?type=private", body).status)
            line.get(f"/v1/users/{user}")
            line.post(f"/v1/users/{user}?op=block", {"blockedUserId": SECRET})
            statuses.add(line.post("/v1/users/create", {"username": NAME}, f"{SECRET}-2").status)
        line.hang_up("/v1/messages/send?type=private", json.dumps({"senderId": ann, "message": SECRET}).encode())
        line.hang_up(f"/v1/messages/{SECRET}?cursor={cursor}")
        server.kill()
    assert statuses & {0, 500, 503}, "nothing failed"
    assert re.search("WARNING|ERROR|warning|error", server.errors), server.errors
    for private in (SECRET, SECRET[:12], NAME, cursor, cursor[:40]):
        assert private not in server.errors
    if form == "json":
        assert all(event["event"] for event in events(server.errors))


def test_a_storm_of_faults_is_a_few_lines(tmp_path: Path) -> None:
    """Of a fault that each of many calls meets, five lines are written, and at the end how many were left out."""
    flags = ("--log-format", "json", "--tail-max-bytes", "0", "--slow-call-s", "60")
    with ServerProcess.start(tmp_path, *flags) as server, line_to(server.url) as line:
        ann, _ = _live(line)
        _spoil(tmp_path, DEEDS["a time that is a text"])
        for _ in range(50):
            assert line.get(f"/v1/messages/{ann}", timestamp=1).status == 500
        server.terminate()
    told = events(server.errors)
    faults = [event for event in told if event["event"] == "fault"]
    assert len(faults) == 5
    assert all(fault["what"] == "GET /v1/messages/{userId}" and fault["frames"] for fault in faults)
    (left,) = (event for event in told if event["event"] == "left_out")
    assert (left["count"], left["of"]) == (45, "fault")


UNFORESEEN = {
    "the program": f"raise ValueError('{SECRET}')",
    "a cause": f"try:\n  int('{SECRET}')\nexcept ValueError as e:\n  raise KeyError('{SECRET}') from e",
    "a thread": f"import threading\nt = threading.Thread(target=lambda: int('{SECRET}'))\nt.start()\nt.join()",
    "an end": f"class A:\n  def __del__(self): int('{SECRET}')\nA()",
    "a task": "import asyncio, gc\nfrom tidings.log import watch\nasync def fail():\n  int('" + SECRET + "')\n"
    "async def go():\n  watch(asyncio.get_running_loop())\n  t = asyncio.ensure_future(fail())\n"
    "  await asyncio.wait([t])\n  del t\n  gc.collect()\nasyncio.run(go())",
    "another's line": f"import logging\nlogging.getLogger('uvicorn.error').error('failed\\n{SECRET}')",
}


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("what", UNFORESEEN)
def test_what_nobody_foresaw(what: str, form: str) -> None:
    """An exception in the program, a thread, a task or a destructor comes by its kind and place, not by its text."""
    program = f"from tidings.log import set_up\nset_up('{form}', 'info')\n{UNFORESEEN[what]}"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert SECRET not in run.stderr
    assert re.search('ERROR|"error"', run.stderr), run.stderr
    assert what == "another's line" or "Error" in run.stderr
    if form == "json":
        (told,) = events(run.stderr)
        if what != "another's line":
            assert told["kind"] == ("KeyError from ValueError" if what == "a cause" else "ValueError")
            assert told["frames"]
