"""How a command ends: its exit code, and the one line on stderr that says what went wrong."""

import sys

from tidings.cli.visible import visible

FAILED = 1  # refused, or tried and failed
WRONG_USE = 2  # asked for wrongly
UNREACHABLE = 3  # no Tidings server answered, or it can't now: a later try may do
INTERRUPTED = 130  # Ctrl-C, as shells have it: 128 + SIGINT

CODES = """\
Each command explains itself: tidings COMMAND --help.

Exit codes: 0 done; 1 refused or failed; 2 asked for wrongly; 3 no server answered, or it can't now;
130 ended by Ctrl-C."""


def complain(text: str, code: int) -> int:
    """Say what went wrong in one line, whatever the text holds, and give the exit code back."""
    sys.stderr.write(f"tidings: {visible(' '.join(text.split()))}\n")
    return code
