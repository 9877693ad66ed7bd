"""What the fault tests share: a way to say one line past pytest's capture, and a seed that can be given again."""

import os
import random
import sys
from collections.abc import Callable

import pytest


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints a line that is seen even when the test passes."""

    def line(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n  {text}\n")

    return line


@pytest.fixture
def seed(say: Callable[[str], None]) -> int:
    """A random seed, printed; FAULTS_SEED=N repeats one (as far as processes can be repeated)."""
    chosen = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(1 << 32))
    say(f"FAULTS_SEED={chosen}")
    return chosen
