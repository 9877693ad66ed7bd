"""What all tests share: real servers, a client on one of them, and a way to say one line past pytest's capture."""

import os
import signal
from collections.abc import Callable, Iterator

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


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Notes a line that the run's summary shows even when the test passes."""

    def line(text: str) -> None:
        request.node.user_properties.append(("said", text))

    return line


@pytest.fixture
def tell_fault(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Notes a row of the table of faults, which the summary shows whole, whichever processes the tests ran in."""

    def row(*cells: object) -> None:
        request.node.user_properties.append(("fault", f"| {' | '.join(map(str, cells))} |"))

    return row


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests had to say, passed or failed: the seeds and histories of the fault runs, say."""
    for reports in list(terminalreporter.stats.values()):
        for report in reports:
            said = [text for name, text in getattr(report, "user_properties", ()) if name == "said"]
            if said and report.when == "call":
                terminalreporter.section(report.nodeid)
                terminalreporter.write_line("\n".join(said))
    tell_faults(terminalreporter)


def tell_faults(reporter: pytest.TerminalReporter) -> None:
    """Show the table of faults, if there were any."""
    reports = [
        report for reports in reporter.stats.values() for report in reports if getattr(report, "when", "") == "call"
    ]
    rows = sorted(text for report in reports for name, text in report.user_properties if name == "fault")
    if rows:
        reporter.section("what many nodes did under faults")
        reporter.write_line(
            "| fault | rounds | seconds | sends | unknown | reads | anomalies | hot again after (s, at most) |"
        )
        reporter.write_line("|---|---|---|---|---|---|---|---|")
        reporter.write_line("\n".join(rows))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test is a failure: something that the run needs was not installed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("CI"):
        return
    skipped = reporter.stats.get("skipped", [])
    if skipped and session.exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"\nCI is set, and {len(skipped)} tests were skipped: that fails the run", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
