"""/openapi.json is valid, complete, and says of every route and code what is so."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.api_client import Api, Json
from tests.server import ServerProcess
from tidings.api.openapi import STATUS
from tidings.routes import ROUTES

SOURCE = Path(__file__).parent.parent / "src" / "tidings"


@pytest.fixture(scope="module")
def document(server: ServerProcess) -> Iterator[Json]:
    with Api(server.url) as api:
        yield api.description.document


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_it_is_a_valid_openapi_3_1_document(document: Json) -> None:
    """The description passes the standard's own schema."""
    assert document["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(document).validate()


def test_every_route_is_described_under_a_name_of_its_own(document: Json) -> None:
    """What can be called is in the description, and nothing else."""
    described = {(path, method.upper()) for path, method, _ in operations(document)}
    assert described == {(path, method) for path, methods in ROUTES.items() for method in methods}
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)


def test_every_code_in_the_source_is_described() -> None:
    """No error travels under a code that the description does not know, and it knows none that nothing raises."""
    source = "".join(path.read_text() for path in SOURCE.rglob("*.py") if path.name != "openapi.py")
    kinds = "Malformed|Foreign|Refused|Unknown|MethodNotAllowed|Conflict|AnotherHistory|TooLarge|UriTooLong"
    kinds += "|KeyReused|UpgradeRequired|Closed"
    raised = re.findall(rf'(?:{kinds}|TooMany|HeadersTooLarge|Internal|\w*Unavailable)\(\s*"(\w+)"', source)
    assert set(raised) == set(STATUS)


def test_every_code_is_among_the_answers_of_some_operation(document: Json) -> None:
    """A client can find each code where it occurs; paths and methods that are not there have no operation."""
    listed: set[str] = set()
    for _, _, operation in operations(document):
        for status, answer in operation["responses"].items():
            if status not in ("101", "200"):
                codes = answer["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"]["code"][
                    "enum"
                ]
                assert {STATUS[code] for code in codes} == {int(status)}
                listed.update(codes)
    assert set(STATUS) - listed == {"unknown_path", "method_not_allowed"}


def test_every_example_is_what_it_is_an_example_of(document: Json) -> None:
    """Examples of bodies, parameters and answers fit their own schemas."""
    for path, method, operation in operations(document):
        for schema, example in examples(operation):
            errors = list(Draft202012Validator({**schema, "components": document["components"]}).iter_errors(example))
            assert not errors, (path, method, errors)


def examples(operation: Json) -> Iterator[tuple[Json, Any]]:
    for parameter in operation["parameters"]:
        yield parameter["schema"], parameter["example"]
    for content in operation.get("requestBody", {"content": {}})["content"].values():
        for example in content["examples"].values():
            yield content["schema"], example["value"]
    for answer in operation["responses"].values():
        for content in answer["content"].values():
            yield content["schema"], content["example"]


def test_every_post_takes_an_idempotency_key_and_every_object_in_the_path_is_named(document: Json) -> None:
    """Parameters are complete: those in the path, and the header on every POST."""
    for path, method, operation in operations(document):
        named = {(parameter["in"], parameter["name"]) for parameter in operation["parameters"]}
        assert {name for place, name in named if place == "path"} == set(re.findall(r"{(\w+)}", path))
        assert (("header", "Idempotency-Key") in named) == (method == "post")
