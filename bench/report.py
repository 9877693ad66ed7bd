"""What a bench found: a table for people, Markdown for a page, JSON for comparing."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from rich.table import Table
from rich.text import Text

from bench.findings import RATIO, Earlier, Fall, Finding

T = TypeVar("T")

RESULTS = Path(__file__).parent / "results"
BASELINE = Path(__file__).parent / "baseline.json"

_PLACES = {RATIO: 2, "us": 2, "ms": 1, "s": 2, "MB": 1, "%": 2, "/s": 0, "bytes": 0, "a poll": 2, "": 0}


class Unreadable(Exception):
    """A file that is no result of a bench."""


class Record(msgspec.Struct):
    """One run, as it is kept. `failed` are the scenes that could not be measured, with the reason.

    `skipped` are those for which the machine lacks something, with what that is.

    `others` is the part of both cores that went to anything but server and load: the median of all rounds.
    """

    pace: str
    machine: Mapping[str, Any]
    findings: Sequence[Finding]
    failed: Mapping[str, str] = {}
    seconds: float = 0.0
    others: float = 0.0
    skipped: Mapping[str, str] = {}


class Baseline(msgspec.Struct):
    """The ratios of a run that later ones are held against."""

    pace: str
    machine: Mapping[str, Any]
    findings: Sequence[Earlier]


def write(record: Record, path: Path) -> None:
    """Keep a run, with every round of every side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")


def write_baseline(record: Record, path: Path = BASELINE) -> None:
    """Keep a run's ratios alone."""
    ratios = [Earlier(f.name, f.value, f.unit, f.rounds, f.is_less_better) for f in record.findings if f.unit == RATIO]
    baseline = Baseline(
        record.pace, record.machine, [msgspec.structs.replace(r, rounds=_short(r.rounds)) for r in ratios]
    )
    path.write_bytes(msgspec.json.format(msgspec.json.encode(baseline)) + b"\n")


def _short(rounds: Iterable[float]) -> list[float]:
    return [round(value, 4) for value in rounds]


def read(path: Path) -> Record:
    """A run that was kept. Raises Unreadable."""
    return _decode(path, Record)


def read_baseline(path: Path) -> Baseline:
    """What a run is held against: a kept run, or a baseline. Raises Unreadable."""
    return _decode(path, Baseline)


def _decode(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise Unreadable(f"{path}: {error}") from None


def last(pace: str, results: Path = RESULTS) -> Path | None:
    """The newest kept run of that pace; None if there is none."""
    for path in sorted(results.glob("*.json"), reverse=True):
        try:
            if read_baseline(path).pace == pace:
                return path
        except Unreadable:  # of an older form
            continue
    return None


def shown(value: float, unit: str) -> str:
    """A value as people read it."""
    number = f"{value:,.{_PLACES[unit]}f}"
    if not unit or unit == RATIO:
        return number
    return number + unit if unit in ("%", "/s") else f"{number} {unit}"


def _budget(finding: Finding) -> str:
    if finding.at_least is not None:
        return f">= {shown(finding.at_least, finding.unit)}"
    return "" if finding.at_most is None else f"<= {shown(finding.at_most, finding.unit)}"


def _spread(finding: Finding) -> str:
    if len(finding.rounds) < 2:
        return ""
    places = _PLACES[finding.unit]
    return f"{min(finding.rounds):,.{places}f}-{max(finding.rounds):,.{places}f}"


def _rows(record: Record, before: Mapping[str, float]) -> Iterable[tuple[str, ...]]:
    for f in record.findings:
        then = shown(before[f.name], f.unit) if f.name in before else ""
        yield f.scene, f.name, shown(f.value, f.unit), _spread(f), _budget(f), f.verdict, then, f.beside


HEADS = ("scene", "what", "found", "rounds", "budget", "", "before", "beside it")


def table(record: Record, before: Mapping[str, float]) -> Table:
    """One row a finding; `before` has the values of an earlier run, by name."""
    made = Table(show_edge=False, pad_edge=False, expand=False, row_styles=("", ""))
    for head in HEADS[1:]:
        is_number = head in ("found", "rounds", "budget", "before")
        made.add_column(head, justify="right" if is_number else "left", no_wrap=is_number or not head, overflow="fold")
    scene = ""
    for row in _rows(record, before):
        if scene and row[0] != scene:
            made.add_section()
        scene = row[0]
        style = {"met": "green", "MISSED": "bold red"}.get(row[5], "")
        made.add_row(*(Text(cell, style if cell == row[5] else "") for cell in row[1:]))
    for name, reason in record.failed.items():
        made.add_section()
        made.add_row(Text(f"{name}: not measured"), *[""] * 3, Text("FAILED", "bold red"), "", Text(reason[:160]))
    for name, reason in record.skipped.items():
        made.add_section()
        made.add_row(Text(f"{name}: not measured"), *[""] * 3, Text("skipped", "yellow"), "", Text(reason[:160]))
    return made


def markdown(record: Record) -> str:
    """The table for docs/benchmarks.md, with the machine it was found on."""
    machine = record.machine
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']},"
        f" Python {machine['python']}, SQLite {machine['sqlite']}; {machine['date']}, commit {machine['commit']};"
        f" {record.pace} pace, {record.seconds:.0f} s.",
        "",
        "| what | found | rounds | budget | | beside it |",
        "|---|---|---|---|---|---|",
    ]
    for _, name, found, spread, budget, verdict, _, beside in _rows(record, {}):
        lines.append(f"| {name} | {found} | {spread} | {budget} | {verdict} | {beside} |")
    lines += [f"| {name} | not measured | | | FAILED | {reason} |" for name, reason in record.failed.items()]
    lines += [f"| {name} | not measured | | | skipped | {reason} |" for name, reason in record.skipped.items()]
    return "\n".join(lines)


def told(falls: Sequence[Fall]) -> list[str]:
    """A line for each ratio that fell."""
    return [f"fell: {fall}" for fall in falls]
