"""`python -m bench`: all budgets in some four minutes; `--quick`: in under one, with more noise."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from bench.processes import Failed, two_cores
from bench.report import complain, machine, table, write
from bench.scenes import Pace, durable_sends, hot_polls

# Many short rounds, because on a shared machine noise comes and goes within seconds.
FULL = Pace(rounds=11, seconds=1.5, warm_s=0.25)
QUICK = Pace(rounds=5, seconds=0.5, warm_s=0.15)
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Measure, print, write; a missed budget is told but is no failure, since a busy machine misses it as well."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter rounds")
    parser.add_argument("--only", choices=("poll", "send"), help="one scene alone")
    parser.add_argument("--data", type=Path, help="where the stores are put for the time; the disk counts")
    options = parser.parse_args()
    pace = QUICK if options.quick else FULL
    about = machine()
    contests = []
    try:
        cores = two_cores()
        print(f"{about['cpu']}, {about['cores']} cores; server on core {cores.server}, load on core {cores.load}\n")
        with tempfile.TemporaryDirectory(prefix="tidings-bench-", dir=options.data) as data:
            if options.only != "send":
                contests += hot_polls(Path(data) / "polls", cores, pace)
            if options.only != "poll":
                contests += durable_sends(Path(data), cores, pace)
    except Failed as error:
        return complain(str(error))
    path = RESULTS / time.strftime("%Y%m%d-%H%M%S.json", time.gmtime())
    write(path, contests, about)
    noise = max(side.others for contest in contests for side in (contest.ours, contest.bare))
    print(f"\n{table(contests)}\n\nOthers took up to {noise:.0%} of both cores. Every round: {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
