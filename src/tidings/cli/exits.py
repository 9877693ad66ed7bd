"""How a command ends: its exit code, and the one line on stderr that says what went wrong."""

import sys

FAILED = 1  # refused, or tried and failed
WRONG_USE = 2  # asked for wrongly: nothing was tried


def complain(text: str, code: int) -> int:
    """Say what went wrong in one line, whatever the text holds, and give the exit code back."""
    sys.stderr.write("tidings: " + " ".join(text.split()) + "\n")
    return code
