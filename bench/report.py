"""What a bench found: a table for people, JSON for comparing, and the machine it was found on."""

import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import apsw
import msgspec

from bench.contest import Contest, Side

LIBRARIES = ("apsw", "httptools", "msgspec", "starlette", "uvicorn", "uvloop")


def table(contests: list[Contest]) -> str:
    """One line a contest: ratio (lowest and highest round), budget, CPU an answer, latency."""
    head = (
        f"{'':<36}{'bare/s':>8}{'ours/s':>8}{'ratio':>7}{'rounds':>12}{'budget':>12}"
        f"{'CPU us':>8}{'bare':>6}{'ratio':>7}{'p50 ms':>8}{'p99':>7}"
    )
    return "\n".join([head, *map(_line, contests)])


def _line(contest: Contest) -> str:
    budget = "" if contest.budget is None else f"{contest.budget} {'met' if contest.is_met else 'MISSED'}"
    spread = f"{min(contest.ratios):.2f}-{max(contest.ratios):.2f}"
    ours, bare = contest.ours, contest.bare
    return (
        f"{contest.name:<36}{bare.rate:>8,.0f}{ours.rate:>8,.0f}{contest.ratio:>7.2f}{spread:>12}{budget:>12}"
        f"{ours.cpu_us:>8.1f}{bare.cpu_us:>6.1f}{contest.cpu_ratio:>7.2f}{contest.p50_ms:>8.2f}{contest.p99_ms:>7.2f}"
    )


def machine() -> dict[str, Any]:
    """The processor, the cores, the versions and the date; nothing that names the machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "commit": _commit(),
        "load_average": os.getloadavg(),
    }


def write(path: Path, contests: list[Contest], about: dict[str, Any]) -> None:
    """Every round of every side, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    results = [
        {
            "name": contest.name,
            "budget": contest.budget,
            "is_met": contest.is_met,
            "ratio": contest.ratio,
            "ratios": contest.ratios,
            "cpu_ratio": contest.cpu_ratio,
            "p50_ms": contest.p50_ms,
            "p99_ms": contest.p99_ms,
            "ours": _side(contest.ours),
            "bare": _side(contest.bare),
        }
        for contest in contests
    ]
    path.write_bytes(msgspec.json.format(msgspec.json.encode({"machine": about, "results": results})) + b"\n")


def _side(side: Side) -> dict[str, Any]:
    return {
        "name": side.name,
        "per_second": side.rate,
        "cpu_us": side.cpu_us,
        "busy": side.busy,
        "others": side.others,
        "rounds": side.rounds,
    }


def _commit() -> str:
    """The state of the code, `-dirty` with changes; unknown outside a checkout."""
    describe = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(describe, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return done.stdout.strip() or "unknown"


def complain(text: str) -> int:
    """Say in one line what went wrong; gives the exit code."""
    print(f"bench: {text}", file=sys.stderr)
    return 1
