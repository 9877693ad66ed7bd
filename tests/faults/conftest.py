"""What the fault tests share: a way to say one line past pytest's capture, and a seed that can be given again."""

import os
import random
from collections.abc import Callable

import pytest


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Notes a line that the run's summary shows even when the test passes (tests/conftest.py)."""

    def line(text: str) -> None:
        request.node.user_properties.append(("said", text))

    return line


@pytest.fixture
def seed(say: Callable[[str], None]) -> int:
    """A random seed, told; FAULTS_SEED=N repeats one (as far as processes can be repeated)."""
    chosen = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(1 << 32))
    say(f"FAULTS_SEED={chosen}")
    return chosen
