"""The whole API against the reference model, on real servers, whatever their memory holds, restarts among the calls."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine import Machine, Restarting
from tests.served import SERVERS, Served

quick = settings(max_examples=6, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
restarting = settings(quick, max_examples=2)
long = settings(quick, max_examples=60, stateful_step_count=80)


@pytest.fixture
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    """A server with the flags of a kind."""
    with Served(tmp_path, SERVERS[request.param]) as made:
        yield made


every_server = pytest.mark.parametrize("served", SERVERS, indirect=True)


def run(machine: type[Machine], served: Served, profile: settings) -> None:
    """Run a machine, and prove that what is hard to meet was met."""
    run_state_machine_as_test(lambda: machine(served), settings=profile)  # type: ignore[arg-type]  # calls it, no more
    assert served.seen["equal timestamps"] > 0
    assert served.seen["more"] > 0


@every_server
def test_every_answer_is_what_the_model_says(served: Served) -> None:
    """Any mixture of calls, on servers that remember all, a little and nothing, with one process and with two."""
    run(Machine, served, quick)


@pytest.mark.parametrize("served", ["all in memory", "two workers, a little in memory"], indirect=True)
def test_restarts_change_no_answer(served: Served) -> None:
    """The same with the server killed or stopped, and started again, between the calls."""
    run(Restarting, served, restarting)


@pytest.mark.slow
@every_server
def test_every_answer_is_what_the_model_says_for_long(served: Served) -> None:
    """Longer mixtures, many more of them, then some with restarts."""
    run(Machine, served, long)
    run(Restarting, served, settings(restarting, max_examples=10))
