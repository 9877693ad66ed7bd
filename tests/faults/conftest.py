"""What the fault tests share: a seed that can be given again."""

import os
import random
from collections.abc import Callable

import pytest


@pytest.fixture
def seed(say: Callable[[str], None]) -> int:
    """A random seed, told; FAULTS_SEED=N repeats one (as far as processes can be repeated)."""
    chosen = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(1 << 32))
    say(f"FAULTS_SEED={chosen}")
    return chosen
