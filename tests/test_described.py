"""Requests made from /openapi.json by schemathesis, alone and in chains: every answer is one that it describes.

All of schemathesis's checks are on. One of them wants every request that fits the description to be accepted, and
OpenAPI can't say all there is to fit: that cursor and timestamp, after and before exclude each other, that two
spellings of a field must agree, that a cursor is what an answer gave, that a key is new, which body goes with which
type. `made_whole` sees to these, in requests that mean to be right; those that mean to be wrong are left as they are.
Nor can it say what a handshake is: of the one operation that begins a WebSocket, no request is accepted here. And a
stream that is opened never ends: only nobody's is asked for.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any, ClassVar

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.api_client import Api
from tests.server import ServerProcess
from tidings.api import openapi
from tidings.config import Settings
from tidings.routes import ROUTES

SLOW_IS_FINE = list(hypothesis.HealthCheck)
NO_LONG_WAITS = Settings(wait_max_s=0.01)
SOCKET, STREAM = "openSocket", "streamMessages"
A_CURSOR = 60  # characters that a cursor has at least
described = schemathesis.openapi.from_dict(openapi.document(ROUTES, NO_LONG_WAITS))
new_key = count()


def made_whole(case: schemathesis.Case[Any]) -> None:
    """Make a request right where the description can't say how, if it means to be right."""
    if case.operation.definition.raw["operationId"] == STREAM:
        case.path_parameters["userId"] = "nobody"
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    query = case.query
    if query.get("cursor") and len(str(query["cursor"])) < A_CURSOR:
        query["cursor"] = "now"
    for one, other in (("cursor", "timestamp"), ("after", "before")):
        if query.get(one) not in (None, "") and other in query:
            del query[other]
    if isinstance(case.body, dict):
        for one, other in (("username", "userName"), ("receiverId", "recipientId"), ("groupId", "recipientId")):
            if one in case.body and other in case.body:
                del case.body[other]
        if "type" in query and "recipientId" not in case.body:
            query["type"] = "private" if "receiverId" in case.body else "group"
    if case.headers and "Last-Event-ID" in case.headers:
        case.headers["Last-Event-ID"] = "now"
    if case.headers and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = f"key-{next(new_key)}"


class Home:
    """Ann in a group of hers, by whose ids the made-up ones of a request are replaced."""

    def __init__(self, url: str) -> None:
        with Api(url) as api:
            self.ann = api.user("ann")
            self.group = api.group("hikers", self.ann)
            api.groupwide(self.ann, self.group, "hello")

    def moved_to(self, case: schemathesis.Case[Any]) -> None:
        """Ask for what is there, so that a request which means to be wrong is not refused for asking for nobody.

        Those that mean to be right find it every other time.
        """
        is_right = case.meta is None or case.meta.generation.mode.is_positive
        if case.operation.definition.raw["operationId"] == STREAM or (is_right and next(new_key) % 2):
            return
        modes = {} if case.meta is None else {place: info.mode for place, info in case.meta.components.items()}
        if modes.get(ParameterLocation.PATH, GenerationMode.POSITIVE).is_positive:
            for name, made in (("userId", self.ann), ("groupId", self.group)):
                if name in case.path_parameters:
                    case.path_parameters[name] = made
        if isinstance(case.query.get("userId"), str) and case.query["userId"]:
            case.query["userId"] = self.ann


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of the settings that are described."""
    flags = ("--wait-max-s", f"{NO_LONG_WAITS.wait_max_s:g}")
    with ServerProcess.start(tmp_path_factory.mktemp("described"), *flags) as process:
        yield process


@pytest.fixture(scope="module")
def home(server: ServerProcess) -> Home:
    return Home(server.url)


def is_socket(case: schemathesis.Case[Any]) -> bool:
    return bool(case.operation.definition.raw["operationId"] == SOCKET)


def settings(examples: int, **others: Any) -> hypothesis.settings:
    """The same requests each time."""
    return hypothesis.settings(
        max_examples=examples, derandomize=True, deadline=None, suppress_health_check=SLOW_IS_FINE, **others
    )


def tried(case: schemathesis.Case[Any], server: ServerProcess, home: Home) -> None:
    made_whole(case)
    home.moved_to(case)
    case.call_and_validate(base_url=server.url, excluded_checks=[positive_data_acceptance] if is_socket(case) else [])
    assert server.complaints == ""


def test_every_check_is_on() -> None:
    """None of the checks that schemathesis has is turned off by its defaults, or by a file of its settings."""
    load_all_checks()
    checks = described.config.checks_config_for()
    assert len(CHECKS.get_all_names()) >= 14
    assert [name for name in CHECKS.get_all_names() if not checks.get_by_name(name=name).enabled] == []


@described.parametrize()
@settings(25)
def test_whatever_is_asked_the_answer_is_among_those_described(
    case: schemathesis.Case[Any], server: ServerProcess, home: Home
) -> None:
    """Requests right and wrong: no 500, and every status, header, type and body is as described."""
    tried(case, server, home)


@pytest.mark.slow
@described.parametrize()
@settings(100)
def test_whatever_is_asked_at_length(case: schemathesis.Case[Any], server: ServerProcess, home: Home) -> None:
    """The same, many more."""
    tried(case, server, home)


class Workflow(described.as_state_machine()):  # type: ignore[misc]  # made from the links at run time
    """Chains of calls along the links of the description: what one made is used by the next."""

    url = ""
    ann = ""
    seen: ClassVar[Counter[tuple[str, int]]] = Counter()

    def before_call(self, case: schemathesis.Case[Any]) -> None:
        """A link can lead from a user or from a group, but not from both: who is added is ann."""
        made_whole(case)
        is_right = case.meta is None or case.meta.generation.mode is GenerationMode.POSITIVE
        if is_right and case.query.get("op") == "add":
            case.body = {"userId": self.ann}

    def after_call(self, response: Any, case: schemathesis.Case[Any]) -> None:
        super().after_call(response, case)
        self.seen[case.operation.definition.raw["operationId"], response.status_code] += 1

    def validate_response(self, response: Any, case: schemathesis.Case[Any], *args: Any, **named: Any) -> None:
        if not is_socket(case):  # which is asked alone, above
            super().validate_response(response, case, *args, **named)

    def get_call_kwargs(self, case: schemathesis.Case[Any]) -> dict[str, Any]:
        return {"base_url": self.url}


def chained(server: ServerProcess, examples: int, steps: int) -> set[str]:
    """Follow chains; gives the operations that were answered 200."""
    with Api(server.url) as api:
        Workflow.url, Workflow.ann = server.url, api.user("ann")
    Workflow.seen.clear()
    Workflow.run(settings=settings(examples, stateful_step_count=steps))
    assert server.complaints == ""
    return {operation for operation, status in Workflow.seen if status == 200}


def test_chains_of_calls_are_answered_as_described(server: ServerProcess) -> None:
    """Users and groups that were made are written to, read, joined and left, each call answered as described."""
    used = chained(server, 12, 15)
    assert used > {"createUser", "createGroup", "sendMessage", "readMessages", "showUser"}, Workflow.seen


@pytest.mark.slow
def test_long_chains_of_calls(server: ServerProcess) -> None:
    """The same, many more and longer."""
    used = chained(server, 60, 25)
    v1 = {o.name for path, methods in ROUTES.items() if path.startswith("/v1") for o in methods.values()}
    assert used == v1 - {SOCKET, STREAM}, Workflow.seen
