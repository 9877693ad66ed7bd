"""/openapi.json: OpenAPI 3.1, made from the routes, the forms and the structs, so that it can't lag behind them."""

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from tidings import errors
from tidings.api.operation import USER, Link, Operation, Schema
from tidings.api.parse import Form, Name, Text
from tidings.api.replies import Problem
from tidings.config import Settings
from tidings.errors import TidingsError

REF = "#/components/schemas/{name}"

CODES: dict[type[TidingsError], tuple[str, ...]] = {
    errors.Malformed: (
        *("malformed", "missing_field", "wrong_type", "ambiguous_field", "empty_field", "name_too_long"),
        *("unknown_operation", "unknown_type", "both_cursor_and_timestamp", "bad_cursor", "bad_timestamp", "bad_limit"),
        *("bad_wait", "bad_sent", "bad_idempotency_key", "both_after_and_before", "bad_seq", "bad_subprotocol"),
    ),
    errors.Foreign: ("foreign_origin", "foreign_host"),
    errors.Refused: ("blocked", "not_a_member"),
    errors.Unknown: ("unknown_user", "unknown_group", "unknown_path"),
    errors.MethodNotAllowed: ("method_not_allowed",),
    errors.Conflict: (
        *("already_blocked", "not_blocked", "already_a_member", "not_a_member_of_it"),
        *("too_many_groups", "too_many_blocks", "group_full"),
    ),
    errors.AnotherHistory: ("cursor_of_another_history",),
    errors.TooLarge: ("body_too_large", "message_too_large"),
    errors.UriTooLong: ("uri_too_long",),
    errors.KeyReused: ("idempotency_key_reused",),
    errors.UpgradeRequired: ("upgrade_required",),
    errors.TooMany: ("mailbox_busy", "too_many_waits"),
    errors.HeadersTooLarge: ("headers_too_large",),
    errors.Internal: ("internal",),
    errors.Unavailable: ("overloaded", "shutting_down"),
    errors.StoreUnavailable: ("store_unavailable", "store_full", "store_corrupt", "store_closed"),
    errors.FeedUnavailable: ("feed_unavailable",),
}
KINDS = {code: kind for kind, codes in CODES.items() for code in codes}
STATUS = {code: kind.status for code, kind in KINDS.items()}

ALWAYS = ("foreign_origin", "foreign_host", "uri_too_long", "headers_too_large", "internal")
WITH_QUERY = ("malformed",)
WITH_BODY = (
    *("malformed", "missing_field", "wrong_type", "ambiguous_field", "empty_field", "body_too_large"),
    *("bad_idempotency_key", "idempotency_key_reused"),
)

ABOUT = """\
A messaging backend. HEAD is answered wherever GET is. A body is read as JSON whatever its Content-Type; unknown \
fields are ignored; if a required field is missing, names are matched again without regard to case. A path that \
does not exist answers 404 `unknown_path`, a method that does not fit 405 `method_not_allowed` with `Allow`. \
Errors are `application/problem+json`; their `code` is stable, `retry` says whether the same request may succeed \
later, and then `Retry-After` says when."""

KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Repeated with the same content within 24 hours, the call takes effect once and is answered alike.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    "example": "8f14e45f-ceea-4e7a-9d2b-6b1f0c7f2a11",
}
RETRY_AFTER = {"description": "Seconds after which to try again.", "schema": {"type": "integer", "minimum": 1}}


def document(routes: Mapping[str, Mapping[str, Operation]], settings: Settings) -> Schema:
    """The whole description, as plain dictionaries."""
    operations = [operation for methods in routes.values() for operation in methods.values()]
    types = [Problem, *{o.answer for o in operations if issubclass(o.answer, msgspec.Struct)}]
    _, schemas = msgspec.json.schema_components(sorted(types, key=lambda t: t.__name__), ref_template=REF)
    paths = {
        path: {method.lower(): _operation(path, method, operation, settings) for method, operation in methods.items()}
        for path, methods in routes.items()
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tidings",
            "version": "1",
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(path: str, method: str, operation: Operation, settings: Settings) -> Schema:
    made: Schema = {"operationId": operation.name, "summary": operation.summary}
    made["parameters"] = list(_parameters(path, operation, settings))
    codes = [*ALWAYS, *operation.codes]
    if operation.params:
        codes += WITH_QUERY
    if method == "POST":
        codes += WITH_BODY
        made["parameters"].append(KEY)
        made["requestBody"] = _body(operation, settings)
    answer = _answer(operation) if operation.status == "200" else {"description": operation.summary, "content": {}}
    made["responses"] = {operation.status: answer, **_problems(set(codes))}
    return made


def _parameters(path: str, operation: Operation, settings: Settings) -> Iterable[Schema]:
    for name in re.findall(r"{(\w+)}", path):
        schema = {"type": "string", "minLength": 1}
        yield {"name": name, "in": "path", "required": True, "schema": schema, "example": USER}
    for param in operation.params:
        yield {
            "name": param.name,
            "in": param.place,
            "description": param.text,
            "required": param.required,
            "schema": param.schema(settings) if callable(param.schema) else param.schema,
            "example": param.example,
        }


def _body(operation: Operation, settings: Settings) -> Schema:
    schemas = [_form(form, settings) for form, _ in operation.bodies.values()]
    content = {
        "schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas},
        "examples": {name: {"value": example} for name, (_, example) in operation.bodies.items()},
    }
    return {"required": True, "content": {"application/json": content}}


def _form(form: Form[Any], settings: Settings) -> Schema:
    """A form's schema: every spelling is a property, and of each field one must be there."""
    properties: Schema = {}
    needed = []
    for names, kind in form.fields:
        for name in names:
            properties[name] = _field(kind, settings)
            if name != names[0]:
                properties[name]["description"] = f"Another spelling of {names[0]}."
        needed.append({"anyOf": [{"required": [name]} for name in names]})
    return {"type": "object", "description": form.wanted.__doc__, "properties": properties, "allOf": needed}


def _field(kind: object, settings: Settings) -> Schema:
    if kind is Name:
        # The pattern leaves out control characters.
        return {
            "type": "string",
            "minLength": 1,
            "maxLength": settings.name_max_chars,
            "pattern": r"^[^\x00-\x1f\x7f]*$",
        }
    if kind is Text:
        text = f"At most {settings.message_max_bytes} bytes of UTF-8."
        return {"type": "string", "minLength": 1, "description": text}
    return {"type": "string", "minLength": 1}


def _answer(operation: Operation) -> Schema:
    if issubclass(operation.answer, msgspec.Struct):
        schema: Schema = {"$ref": REF.format(name=operation.answer.__name__)}
    else:
        is_stream = operation.media == "text/event-stream"  # of events, which OpenAPI 3.1 has no words for
        schema = {} if is_stream else {"type": "object" if operation.answer is dict else "string"}
    example = msgspec.to_builtins(operation.example)
    made: Schema = {"description": operation.summary}
    made["content"] = {operation.media: {"schema": schema, "example": example}}
    if operation.links:
        made["links"] = {f"{link.target}{index}": _link(link) for index, link in enumerate(operation.links, 1)}
    return made


def _link(link: Link) -> Schema:
    made: Schema = {"operationId": link.target, "description": link.text, "parameters": dict(link.parameters)}
    if link.body is not None:
        made["requestBody"] = dict(link.body)
    return made


def _problems(codes: set[str]) -> Schema:
    """The answers by status, each with the codes that it may bear."""
    by_status: dict[int, list[str]] = {}
    for code in sorted(codes):
        by_status.setdefault(STATUS[code], []).append(code)
    return {str(status): _problem(status, by_status[status]) for status in sorted(by_status)}


def _problem(status: int, codes: list[str]) -> Schema:
    schema = {
        "allOf": [
            {"$ref": REF.format(name=Problem.__name__)},
            {"properties": {"code": {"enum": codes}, "status": {"const": status}}},
        ]
    }
    retry = status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    titles = sorted({KINDS[code].title for code in codes})
    example = Problem("about:blank", KINDS[codes[0]].title, status, "What exactly is wrong.", codes[0], retry)
    made: Schema = {
        "description": f"{'; '.join(titles)}: {', '.join(codes)}",
        "content": {"application/problem+json": {"schema": schema, "example": msgspec.to_builtins(example)}},
    }
    if retry:
        made["headers"] = {"Retry-After": RETRY_AFTER}
    return made
