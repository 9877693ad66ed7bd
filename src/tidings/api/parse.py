"""Reading bodies, as JSON whatever their Content-Type, under every spelling that is accepted."""

import re
from typing import Annotated, Any, Generic, NoReturn, TypeVar, get_type_hints

import msgspec
from msgspec import UNSET, UnsetType

from tidings.api.call import Call
from tidings.api.replies import ClientGone
from tidings.config import Settings
from tidings.errors import Malformed, TooLarge

T = TypeVar("T", bound=msgspec.Struct)


Id = Annotated[str, "an id"]
Name = Annotated[str, "a name"]
Text = Annotated[str, "what a message says"]

CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Form(Generic[T]):
    """How a body becomes a `T`, a struct of Id, Name and Text; `spellings` gives a field its other name in JSON."""

    def __init__(self, wanted: type[T], **spellings: str) -> None:
        self.wanted = wanted
        hints = get_type_hints(wanted, include_extras=True)
        self.fields: tuple[tuple[tuple[str, ...], Any], ...] = tuple(
            ((field.encode_name, *spellings.get(field.name, "").split()), hints[field.name])
            for field in msgspec.structs.fields(wanted)
        )
        self._names = [names[0] for names, _ in self.fields] + [
            other for names, _ in self.fields for other in names[1:]
        ]
        self._all_checks = [(index, names[0], kind) for index, (names, kind) in enumerate(self.fields)]
        self._checks = [check for check in self._all_checks if check[2] is not Id]  # of what is not empty
        self._no_others = (UNSET,) * (len(self._names) - len(self.fields))
        found = msgspec.defstruct(f"{wanted.__name__}Found", [(name, str | UnsetType, UNSET) for name in self._names])
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(found)

    def read(self, body: bytes, settings: Settings) -> T:
        """The body's fields. Raises Malformed for every way in which they can be wrong, TooLarge for a long message."""
        return self.wanted(*self.values(body, settings))

    def values(self, body: bytes, settings: Settings) -> tuple[str, ...]:
        """The same, without a struct for them."""
        found = msgspec.structs.astuple(_decoded(self._decoder, body))
        values, others, checks = found[: len(self.fields)], found[len(self.fields) :], self._checks
        if others != self._no_others or not all(values):  # UNSET is false, too
            checks = self._all_checks
            if others != self._no_others or UNSET in values:
                values = self._chosen(dict(zip(self._names, found, strict=True)), body)
        for index, name, kind in checks:
            value = values[index]
            if not value:
                raise Malformed("empty_field", f"{name} is empty.")
            if kind is Text:
                _check_text(value, settings)
            elif kind is Name:
                _check_name(name, value, settings)
        return values

    def _chosen(self, found: dict[str, str | UnsetType], body: bytes) -> tuple[Any, ...]:
        """Of each field the spelling that is given; if one is missing, all names matched again without regard to case.

        That is how the original reads every body (Go's encoding/json).
        """
        values = [_only(names, [found[name] for name in names]) for names, _ in self.fields]
        if UNSET not in values:
            return tuple(values)
        given = _decoded(_ANY, body)
        for index, (names, _) in enumerate(self.fields):
            folded = {name.casefold() for name in names}
            raws = [raw for name, raw in given.items() if name.casefold() in folded]
            values[index] = _only(names, [_decoded(_TEXT, bytes(raw), names[0]) for raw in raws])
            if values[index] is UNSET:
                raise Malformed("missing_field", f"{' or '.join(names)} is missing.")
        return tuple(values)


_ANY = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)


def _decoded(decoder: "msgspec.json.Decoder[Any]", body: bytes, field: str = "") -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _refuse(error, field)


def _refuse(error: Exception, field: str) -> NoReturn:
    if isinstance(error, msgspec.ValidationError):  # its text names types and fields, never values
        raise Malformed("wrong_type", f"{field + ': ' if field else ''}{error}.") from None
    if isinstance(error, msgspec.MsgspecError):
        raise Malformed("malformed", f"The body is not JSON: {error}.") from None
    if isinstance(error, UnicodeDecodeError):
        raise Malformed("malformed", "The body is not UTF-8.") from None
    raise Malformed("malformed", "The body is nested too deeply.") from None


def _only(names: tuple[str, ...], values: list[str | UnsetType]) -> str | UnsetType:
    given = [value for value in values if value is not UNSET]
    if len(given) > 1 and len(set(given)) > 1:
        raise Malformed("ambiguous_field", f"{' and '.join(names)} are one field, given with different values.")
    return given[0] if given else UNSET


def _check_name(field: str, name: str, settings: Settings) -> None:
    if len(name) > settings.name_max_chars:
        raise Malformed("name_too_long", f"{field} is longer than {settings.name_max_chars} characters.")
    if CONTROL.search(name):
        raise Malformed("malformed", f"{field} has control characters.")


def _check_text(text: str, settings: Settings) -> None:
    most = settings.message_max_bytes
    if len(text) > most or (4 * len(text) > most and len(text.encode()) > most):
        raise TooLarge("message_too_large", f"The message is longer than {most} bytes of UTF-8.")


async def parse(call: Call, form: Form[T]) -> T:
    """The body as the form reads it. Raises ClientGone, and what the form raises."""
    return form.read(await read_body(call), call.settings)


async def read_body(call: Call) -> bytes:
    """The whole body, which the protocol bounds. Raises ClientGone."""
    body = bytearray()
    while True:
        message = await call.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone  # half a body is none, even where it happens to be JSON
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)
