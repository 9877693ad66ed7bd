"""The judge of histories, at random: it passes what a correct server shows, and finds what is planted into it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.histories.plants import PLANTS, Plant
from tests.histories.world import World
from tidings.history import check


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_right_histories_pass(seed: int) -> None:
    """What a correct server shows to overlapping clients, cut calls and joinings included, is never accused."""
    verdict = check(World(random.Random(seed)).history(400))
    assert verdict, verdict.report()


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_fault_planted_anywhere_is_found(plant: Plant, seed: int) -> None:
    """One random fault of each kind in a large right history is found, under its name."""
    rng = random.Random(seed)
    events = World(rng).history(400)
    kind, faulty = plant(events, rng)
    assert kind in check(faulty).kinds()
