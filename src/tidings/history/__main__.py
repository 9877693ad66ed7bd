"""`python -m tidings.history FILE`: judge a history kept in a file; exits with 1 if anything is wrong with it."""

import sys
from pathlib import Path

from tidings.history import check, read_history


def main(arguments: list[str]) -> int:
    """Judge the one file named; gives the exit code: 0, 1 for anomalies, 2 for what is no history."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m tidings.history FILE\n")
        return 2
    try:
        verdict = check(read_history(Path(arguments[0])))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(verdict.report() + "\n")
    return 0 if verdict else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
