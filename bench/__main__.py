"""The budgets of Tidings, as ratios and figures measured on this machine, each with its verdict."""

import argparse
import http.client
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from rich.console import Console

from bench import machine
from bench.findings import Fall, falls
from bench.processes import Cores, Failed, Lacking, Load, two_cores
from bench.report import (
    BASELINE,
    RESULTS,
    Record,
    Unreadable,
    last,
    markdown,
    read,
    read_baseline,
    table,
    told,
    write,
    write_baseline,
)
from bench.scenes import SCENES
from bench.stage import FULL, QUICK, Pace, Stage
from bench.talk import Talk
from tidings.errors import TidingsError

# What ends a scene: a wrong answer, or none at all. Any other exception is a fault of the bench.
UNMEASURED = (Failed, TidingsError, OSError, http.client.HTTPException)
QUIET = 0.05  # of both cores: what others may take before it is mentioned
WIDTH = 120  # where the output goes to a file or a pipe


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer, shorter rounds and smaller stores: under a minute")
    parser.add_argument("--only", action="append", choices=SCENES, metavar="SCENE", help="this scene; repeatable")
    parser.add_argument("--list", action="store_true", help="name the scenes, and measure nothing")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with that run, not the last one")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a budget is missed or a ratio fell")
    parser.add_argument("--baseline", action="store_true", help=f"keep the ratios in bench/{BASELINE.name}")
    parser.add_argument("--markdown", action="store_true", help="print the last run as Markdown, and measure nothing")
    parser.add_argument("--data", type=Path, help="where the stores are put for the time; the disk counts")
    parser.add_argument(
        "--dynamodb",
        metavar="URL",
        default=os.environ.get("TIDINGS_TEST_DYNAMODB", ""),
        help="a server of DynamoDB's API for the scenes of nodes, in place of that of make standin",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where runs are kept")
    chosen = parser.parse_args(arguments)
    if chosen.baseline and (chosen.only or chosen.quick):
        parser.error("a --baseline is of all scenes, at full length")
    return chosen


def main() -> int:
    """Measure, print, keep, compare; 1 if a scene failed, or under --strict."""
    chosen = options()
    if chosen.list:
        for name, scene in SCENES.items():
            print(f"{name:<14}{scene.title}")
        return 0
    pace = QUICK if chosen.quick else FULL
    try:
        if chosen.markdown:
            return _print_last(pace, chosen.results)
        earlier = _earlier(chosen.against, pace, chosen.results)
        cores = two_cores()
        record = _run(pace, chosen.only or list(SCENES), cores, chosen.data, chosen.dynamodb)
    except (Failed, Unreadable) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    path = chosen.results / time.strftime("%Y%m%d-%H%M%S.json", time.gmtime())
    write(record, path)
    fallen = show(record, earlier, path)
    if chosen.baseline and not record.failed and not record.skipped:  # what it lacks would never be compared again
        write_baseline(record)
    return exit_code(record, fallen, strict=chosen.strict)


def exit_code(record: Record, fallen: list[Fall], *, strict: bool) -> int:
    """1 if a scene failed; under `strict` also if a budget was missed or a ratio fell."""
    is_missed = any(finding.is_met is False for finding in record.findings)
    return 1 if record.failed or (strict and (fallen or is_missed)) else 0


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


def _print_last(pace: Pace, results: Path) -> int:
    path = last(pace.name, results)
    if path is None:
        raise Unreadable(f"there is no {pace.name} run in {results}")
    print(markdown(read(path)))
    return 0


def _earlier(against: Path | None, pace: Pace, results: Path) -> list[Path]:
    """The runs to compare with: the one named; else the last of this pace, and the baseline."""
    if against is not None:
        read_baseline(against)
        return [against]
    found = [last(pace.name, results), BASELINE if BASELINE.exists() else None]
    return [path for path in found if path is not None]


def _run(pace: Pace, names: list[str], cores: Cores, data: Path | None, dynamodb: str) -> Record:
    """Play scenes; one that fails, or for which something is not there, is told, and the others go on."""
    about = machine.describe()
    record = Record(pace.name, about, [], {})
    began = time.monotonic()
    console = _console()
    console.print(
        f"{about['cpu']}, {about['cores']} cores; server on core {cores.server}, load on core {cores.load};"
        f" {pace.name} pace: {pace.rounds} rounds of {pace.seconds:g} s",
        highlight=False,
    )
    with (
        tempfile.TemporaryDirectory(prefix="tidings-bench-", dir=data) as room,
        Load(cores.load) as load,
        Talk(console) as talk,
        ExitStack() as held,
    ):
        stage = Stage(cores, pace, load, talk, Path(room), held, dynamodb)
        for number, name in enumerate(names, 1):
            talk.scene(f"{number} of {len(names)}, {name}", SCENES[name].title)
            try:
                record.findings = [*record.findings, *SCENES[name].play(stage)]
            except Lacking as lacking:
                talk.say(f"skipped: {lacking}")
                record.skipped = {**record.skipped, name: str(lacking)}
            except UNMEASURED as error:
                reason = str(error) or type(error).__name__
                talk.say(f"failed: {reason}")
                record.failed = {**record.failed, name: reason}
    record.seconds = time.monotonic() - began
    record.others = median(stage.others) if stage.others else 0.0
    return record


def show(record: Record, earlier: list[Path], path: Path) -> list[Fall]:
    """Print the table and what fell; gives the falls."""
    fallen: list[Fall] = []
    before: dict[str, float] = {}
    for other in earlier:
        findings = read_baseline(other).findings
        fallen += falls(record.findings, findings, other.name)
        before = before or {finding.name: finding.value for finding in findings}
    console = _console()
    console.print()
    console.print(table(record, before))
    for line in told(fallen):
        console.print(line, style="bold red", highlight=False)
    held = " and ".join(other.name for other in earlier) or "nothing earlier"
    if record.others > QUIET:
        console.print(
            f"\nothers took {record.others:.0%} of both cores: what is said above is said with that much noise"
        )
    console.print(
        f"\n{record.seconds:.0f} s. Compared with {held}. Every round of it: {path.name}",
        highlight=False,
        soft_wrap=True,
    )
    return fallen


if __name__ == "__main__":
    sys.exit(main())
