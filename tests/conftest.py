"""What all tests share: real servers, and a client on one of them."""

import os
import signal
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, settings

from tests.api_client import Api
from tests.cluster import Nodes, api_of, nodes
from tests.server import ServerProcess

# How long an example takes is the machine's affair: no test fails by the clock.
settings.register_profile("tidings", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tidings")


def pytest_configure() -> None:
    """Let Ctrl-C reach what tests start: a shell ignores it for what it runs in the background, tests too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server process, shared by a module's tests."""
    with ServerProcess.start(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server with two worker processes, shared by a module's tests."""
    with ServerProcess.start(tmp_path_factory.mktemp("workers"), "--workers", "2") as process:
        yield process


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two nodes on one store and one feed, shared by a module's tests."""
    with nodes(tmp_path_factory.mktemp("nodes")) as opened:
        yield opened


@pytest.fixture(scope="module", params=["server", "two_nodes"], ids=["one machine", "two nodes"])
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    """A server of one machine, and two nodes that are asked in turn."""
    with api_of(request.getfixturevalue(request.param)) as opened:
        yield opened


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    """A client of the module's server."""
    with httpx.Client(base_url=server.url, timeout=30) as opened:
        yield opened


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests had to say, passed or failed: the seeds and histories of the fault runs."""
    for reports in list(terminalreporter.stats.values()):
        for report in reports:
            said = [text for name, text in getattr(report, "user_properties", ()) if name == "said"]
            if said and report.when == "call":
                terminalreporter.section(report.nodeid)
                terminalreporter.write_line("\n".join(said))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test is a failure: something that the run needs was not installed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("CI"):
        return
    skipped = reporter.stats.get("skipped", [])
    if skipped and session.exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"\nCI is set, and {len(skipped)} tests were skipped: that fails the run", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
