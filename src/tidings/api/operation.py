"""What an operation is: its handler, and all that /openapi.json says of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidings.api.call import Handler
from tidings.api.parse import Form
from tidings.config import Settings
from tidings.model import Message

Schema = dict[str, Any]

USER = "user-018f3a5c7e1b9d4c2a7f60e1b35d"
OTHER = "user-018f3a5c81f3a60b4e92c7d5081f"
GROUP = "group-018f3a5c90aa5b7de0c4416f92ab"
MESSAGE = Message(USER, "Are you coming?", OTHER, "1715000000123", "message-018f3a5ca0bb0f1e2d3c4b5a6978", 1)

# What every operation that asks the store may answer, and every one that writes.
READS = ("overloaded", "shutting_down", "store_unavailable", "store_corrupt")
WRITES = (*READS, "store_full", "store_closed", "feed_unavailable")


@dataclass(frozen=True)
class Param:
    """A parameter of the query (or path, or header); its schema may depend on the settings."""

    name: str
    text: str
    schema: Schema | Callable[[Settings], Schema]
    example: object
    required: bool = False
    place: str = "query"


@dataclass(frozen=True)
class Link:
    """What a 200 can be used for next: an operation by name, its parameters and body as runtime expressions."""

    target: str
    text: str
    parameters: Mapping[str, str]
    body: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Operation:
    """One thing that can be asked. `codes` are those of its own; /openapi.json adds what every such call may answer.

    A `status` of 101 has no body: what follows it is another protocol.
    """

    name: str
    summary: str
    handler: Handler
    answer: type
    example: object
    bodies: Mapping[str, tuple[Form[Any], Mapping[str, str]]]
    params: Sequence[Param]
    codes: Sequence[str]
    media: str
    links: Sequence[Link]
    status: str = "200"


def operation(
    name: str,
    summary: str,
    *,
    answer: type,
    example: object,
    bodies: Mapping[str, tuple[Form[Any], Mapping[str, str]]] | None = None,
    params: Sequence[Param] = (),
    codes: Sequence[str] = (),
    media: str = "application/json",
    links: Sequence[Link] = (),
    status: str = "200",
) -> Callable[[Handler], Operation]:
    """Make a handler an operation. `bodies`: by name, the form and an example of what may be sent."""
    return lambda handler: Operation(
        name, summary, handler, answer, example, bodies or {}, params, codes, media, links, status
    )


def integer(least: int) -> Schema:
    """The schema of an integer in the query."""
    return {"type": "integer", "minimum": least}


def page_limit(settings: Settings) -> Schema:
    """The schema of `limit`."""
    return {**integer(1), "maximum": settings.page_max}


ASKER = Param("userId", "Who asks.", {"type": "string", "minLength": 1}, USER, required=True)
LIMIT = Param("limit", "At most so many; without it, a page's maximum.", page_limit, 100)
