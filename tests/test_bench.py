"""The bench's own parts that could fail silently, and one short run of it, as anybody would start it."""

import os
import socket
import subprocess
import sys
import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.__main__ import exit_code, options, show
from bench.findings import Earlier, Finding, falls, middle_half, ratio
from bench.load import Plan, Request, Wrong, quantiles
from bench.processes import Failed, Load
from bench.report import Record, Unreadable, last, markdown, read, read_baseline, table, write, write_baseline
from bench.scenes import SCENES
from bench.scenes.memory import longest_pause
from bench.seed import Story, group_id, tell, user_id
from bench.world import Gained, Wire, without_news
from tests.pages import ROOT, rows
from tests.scene import scene
from tests.server import ServerProcess
from tidings import Client

MACHINE = dict.fromkeys(("cpu", "cores", "memory_gb", "system", "python", "sqlite", "date", "commit"), "?")


def test_quantiles_are_of_what_was_measured() -> None:
    """Of 1 to 100 ms the median is 50, 99 do not exceed 99, and the greatest is 100; of nothing there are none."""
    assert quantiles(array("d", range(100, 0, -1))) == (50, 99, 100)
    assert quantiles(array("d", [7])) == (7, 7, 7)
    with pytest.raises(Wrong):
        quantiles(array("d"))


def test_a_ratio_is_its_median_round() -> None:
    """One wild round moves neither the figure nor the middle half that is taken for its noise."""
    found = ratio("poll", "hot poll", [0.8, 0.9, 5.0, 0.7, 0.85], at_least=0.75)
    assert (found.value, found.middle) == (0.85, (0.8, 0.9))
    assert middle_half([0.5]) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("value", "budget", "verdict"),
    [
        (0.75, {"at_least": 0.75}, "met"),
        (0.74, {"at_least": 0.75}, "MISSED"),
        (float("nan"), {"at_least": 0.75}, "MISSED"),
        (50.0, {"at_most": 50.0}, "met"),
        (50.1, {"at_most": 50.0}, "MISSED"),
        (1, {"at_most": 0}, "MISSED"),
        (0.1, {}, ""),
    ],
)
def test_a_budget_is_met_or_missed(value: float, budget: dict[str, float], verdict: str) -> None:
    """What is on the line is met, what is beyond it is missed, and without a budget there is no verdict."""
    assert Finding("poll", "a figure", value, "x", **budget).verdict == verdict  # type: ignore[arg-type]  # pairs of one kind


def _now(value: float, noise: float, **more: Any) -> Finding:
    return ratio("poll", "hot poll", [value - noise, value, value + noise], **more)


@pytest.mark.parametrize(
    ("now", "is_fallen"),
    [
        (_now(0.80, 0.01), True),
        (_now(0.80, 0.50), False),  # its rounds reach what was
        (_now(0.98, 0.001), False),  # by less than a twentieth
        (_now(1.20, 0.01), False),
        (_now(1.20, 0.01, is_less_better=True), True),
        (_now(0.80, 0.01, is_less_better=True), False),
    ],
)
def test_a_ratio_fell_only_beyond_its_noise(now: Finding, is_fallen: bool) -> None:
    """A fall is told if the middle halves of both runs lie apart, by more than a twentieth, the worse way."""
    before = [Earlier("hot poll", 1.0, rounds=[0.99, 1.0, 1.01]), Earlier("another", 9.0)]
    assert bool(falls([now], before, "then")) is is_fallen


def test_other_figures_are_not_compared() -> None:
    """Seconds and bytes are the machine's; only ratios are held against earlier runs."""
    now = Finding("cold", "cold read", 50_000, "/s")
    assert not falls([now], [Earlier("cold read", 100_000)], "then")
    assert not falls([now], [Earlier("cold read", 100_000, "/s")], "then")


def test_a_run_is_kept_and_found_again(tmp_path: Path) -> None:
    """The last run of the same pace is what the next one is compared with; a baseline has its ratios alone."""
    findings = [_now(0.9, 0.1), Finding("start", "ready", 0.5, "s", at_most=1.0)]
    for day in (1, 2):
        write(Record("full", MACHINE, findings), tmp_path / f"2026010{day}-000000.json")
    write(Record("quick", MACHINE, findings), tmp_path / "20260103-000000.json")
    (tmp_path / "20260104-000000.json").write_text('{"results": []}')  # of an older form
    assert last("full", tmp_path) == tmp_path / "20260102-000000.json"
    assert last("quick", tmp_path) == tmp_path / "20260103-000000.json"
    assert last("other", tmp_path) is None
    kept = read(tmp_path / "20260102-000000.json")
    assert [(f.name, f.value) for f in kept.findings] == [("hot poll", 0.9), ("ready", 0.5)]
    write_baseline(kept, tmp_path / "baseline.json")
    baseline = read_baseline(tmp_path / "baseline.json").findings
    assert [(f.name, f.value) for f in baseline] == [("hot poll", 0.9)]
    assert falls([_now(0.5, 0.01)], baseline, "baseline.json")
    with pytest.raises(Unreadable, match="20260104"):
        read(tmp_path / "20260104-000000.json")


def test_the_table_has_every_figure_and_verdict() -> None:
    """Names, values with units, budgets, verdicts, what was before and what failed, within 120 columns."""
    findings = [
        _now(0.9, 0.1, at_least=0.75, beside="40,000/s, bare 44,000/s"),
        Finding("start", "ready", 1.25, "s", at_most=1.0),
        Finding("cold", "cold read", 123456.7, "/s"),
    ]
    record = Record("full", MACHINE, findings, {"memory": "a wrong answer"})
    console = Console(width=120, file=StringIO())
    console.print(table(record, {"hot poll": 0.95}))
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO
    lines = {
        name: next(line for line in shown.splitlines() if name in line) for name in ("hot", "ready", "cold", "memory")
    }
    assert all(part in lines["hot"] for part in ("0.90", "0.80-1.00", ">= 0.75", "met", "0.95", "40,000/s"))
    assert all(part in lines["ready"] for part in ("1.25 s", "<= 1.00 s", "MISSED"))
    assert "123,457/s" in lines["cold"]
    assert all(part in lines["memory"] for part in ("FAILED", "a wrong answer"))
    assert max(map(len, shown.splitlines())) <= 120
    assert "| ready | 1.25 s |  | <= 1.00 s | MISSED |  |" in markdown(record)


def test_a_fall_since_an_earlier_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What fell is named below the table with both values; --strict makes a failure of it."""
    for name, value in (("last.json", 0.9), ("baseline.json", 1.5)):
        write(Record("full", MACHINE, [_now(value, 0.01)]), tmp_path / name)
    record = Record("full", MACHINE, [_now(0.9, 0.01, at_least=0.75)], seconds=1.0)
    fallen = show(record, [tmp_path / "last.json", tmp_path / "baseline.json"], tmp_path / "now.json")
    shown = capsys.readouterr().out
    assert "fell: hot poll: 0.90 (0.90 to 0.91), was 1.50 (1.50 to 1.50) in baseline.json" in shown
    assert shown.count("fell:") == 1
    assert (exit_code(record, fallen, strict=True), exit_code(record, fallen, strict=False)) == (1, 0)
    assert exit_code(record, [], strict=True) == 0


def test_a_missed_budget_fails_only_if_asked_to() -> None:
    """A busy machine misses budgets as well, so that is told and no failure; a scene that could not be measured is."""
    missed = Record("full", MACHINE, [_now(0.5, 0.01, at_least=0.75)])
    assert (exit_code(missed, [], strict=True), exit_code(missed, [], strict=False)) == (1, 0)
    assert exit_code(Record("full", MACHINE, [], {"poll": "a wrong answer"}), [], strict=False) == 1


@pytest.mark.parametrize("part", [["--quick"], ["--only", "poll"]])
def test_a_baseline_is_of_everything(part: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A part of the scenes, or shorter rounds, would leave ratios out that nobody would miss."""
    with pytest.raises(SystemExit):
        options(["--baseline", *part])
    assert "of all scenes, at full length" in capsys.readouterr().err
    assert options(["--baseline"]).baseline


def test_the_longest_pause_is_that_of_any_generation() -> None:
    """Each generation has a histogram of its own; the bound is the least that holds for all pauses of all of them."""
    counts = {"0": (8, 9, 9), "2": (0, 0, 1)}
    samples = [
        ("tidings_gc_pause_seconds_bucket", f'generation="{generation}",le="{bound}"', float(count))
        for generation, row in counts.items()
        for bound, count in zip(("0.001", "0.01", "+Inf"), row, strict=True)
    ]
    assert longest_pause(samples[:3]) == (0.01, 9)
    assert longest_pause(samples) == (float("inf"), 10)
    with pytest.raises(Failed):
        longest_pause([("tidings_polls_total", "", 1.0)])


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """A server that gives the same bytes to each request of a connection in turn; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            for answer in answers:
                if not connection.recv(65536):
                    return
                connection.sendall(answer[:20])  # a right answer may come in parts
                connection.sendall(answer[20:])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join(20)
        listener.close()


def _http(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


RIGHT = _http(b"right")


@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        ((RIGHT, _http(b"wrong")), "got b'HTTP/1.1 200 OK"),
        ((RIGHT, _http(b"right", b"503 Service Unavailable")), "503"),
        ((RIGHT, _http(b"not quite right")), "not quite right"),
        ((RIGHT,), "closed a connection"),
    ],
)
def test_a_wrong_answer_ends_a_round(answers: tuple[bytes, ...], complaint: str) -> None:
    """Whatever is not the expected 200 is told, and no figure is made of it; the load lives on for the next round."""
    plan = [Request("GET / HTTP/1.1\r\n\r\n", "right")]
    with Load(min(os.sched_getaffinity(0))) as load:
        with answering(*answers) as port, pytest.raises(Failed, match=complaint):
            load.run(Plan(port, plan, [], [0], seconds=20.0))
        with answering(RIGHT, RIGHT, RIGHT) as port:
            measured = load.run(Plan(port, plan, [], [0], asks=3))
    assert measured.answers == measured.measured == 3


@scene
async def test_a_seeded_store_is_one_that_the_server_serves(tmp_path: Path) -> None:
    """What is written into a store's file is read over HTTP: seqs, groups, copies; and writing goes on behind it."""
    tell(tmp_path / "tidings.db", Story(users=4, groups=3, groups_each=1, joiners=1, messages=70))
    with ServerProcess.start(tmp_path) as server:
        async with Client(server.url) as tidings:
            seqs: dict[str, list[int]] = {}
            for message in (await tidings.read(user_id(3))).messages:
                seqs.setdefault(message.recipient_id, []).append(message.seq)
            assert seqs.keys() == {user_id(3), *map(group_id, range(3))}
            assert all(numbers == list(range(1, 11)) for numbers in seqs.values())
            copies = (await tidings.read(user_id(1), with_sent=True)).messages
            assert [message.seq for message in copies if message.sent] == list(range(1, 11))
            assert (await tidings.send_to_group(user_id(3), group_id(0), "next")).seq == 11
            members = {member.user_id async for member in tidings.members(group_id(0), user_id(3))}
            assert members == {user_id(0), user_id(3)}


@scene
async def test_what_the_server_counted_is_held_against_what_was_asked(server: ServerProcess) -> None:
    """A poll with news is no hot poll to measure with, and polls that were not counted are noticed."""
    wire = Wire(int(server.url.rpartition(":")[2]))
    async with Client(server.url) as tidings:
        ann = (await tidings.create_user("ann")).user_id
        wire.get(f"/v1/messages/{ann}?timestamp=5")
        gained = Gained(wire)
        wire.get(f"/v1/messages/{ann}?timestamp=5")
        assert gained.after(1)["hot"] == 1
        with pytest.raises(Failed, match="0 polls were answered, but 1 counted"):
            gained.after(0)
        await tidings.send(ann, ann, "news")
    with pytest.raises(Failed, match="no news"):
        without_news(wire, f"/v1/messages/{ann}?timestamp=5")


def test_every_scene_is_explained() -> None:
    """docs/benchmarks.md says of each scene what it measures, and of no other."""
    table = rows(ROOT / "docs" / "benchmarks.md", "## The scenes")
    assert {row[0].strip("`") for row in table} - {""} == SCENES.keys()


def test_a_bench_runs_from_end_to_end(tmp_path: Path) -> None:
    """One scene, as a user starts it: progress, a table with verdicts, a run that is kept and shown again."""
    command = [sys.executable, "-m", "bench", "--quick", "--only", "old", "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "6/6  round 3  poll by a timestamp of last week" in done.stdout
    (kept,) = tmp_path.glob("*.json")
    record = read(kept)
    assert record.machine["cores"]
    assert [f.verdict for f in record.findings] == ["", "", "met"]
    assert record.findings[2].name == "store calls in polls with cursors and timestamps of last week"
    again = subprocess.run([*command[:-2], "--markdown", *command[-2:]], capture_output=True, text=True, check=True)
    assert again.stdout == markdown(record) + "\n"
