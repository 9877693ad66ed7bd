"""Reading what stands in the query and the headers: strictly, each value under a code of its own."""

import re
from urllib.parse import unquote_plus

from tidings.api.call import Call
from tidings.errors import Malformed
from tidings.model import Key
from tidings.service import key

MOST = 2**63 - 1  # what the store can compare; a larger number means the same
KEY_CHARS = 255

_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_VISIBLE = re.compile(rf"[\x21-\x7e]{{1,{KEY_CHARS}}}")


def query(call: Call, *known: str) -> dict[str, str]:
    """The known parameters that are given, unquoted; unknown ones are ignored. Raises Malformed for a repeated one."""
    return parameters(call.scope["query_string"].decode("latin-1"), *known)


def parameters(raw: str, *known: str) -> dict[str, str]:
    """The same, from a query as it stands in a target."""
    found: dict[str, str] = {}
    for pair in raw.split("&") if raw else ():
        name, _, value = pair.partition("=")
        if "%" in pair or "+" in pair:
            name, value = unquote_plus(name), unquote_plus(value)
        if name in found:
            raise Malformed("malformed", f"{name} is given twice.")
        if name in known:
            found[name] = value
    return found


def required(given: dict[str, str], name: str) -> str:
    """A parameter that must be given. Raises Malformed `missing_field`."""
    value = given.get(name)
    if not value:
        raise Malformed("missing_field", f"The parameter {name} is missing.")
    return value


def find_timestamp(given: dict[str, str]) -> int | None:
    """`timestamp`: Unix ms, any integer; empty, zero or negative is none."""
    text = given.get("timestamp")
    if not text:
        return None
    number = _find_integer(text)
    if number is None:
        raise Malformed("bad_timestamp", "timestamp must be an integer: Unix milliseconds.")
    return number if number > 0 else None


def find_limit(given: dict[str, str], most: int) -> int | None:
    """`limit`: 1 to the page's maximum."""
    text = given.get("limit")
    if text is None:
        return None
    number = _find_integer(text)
    if number is None or not 1 <= number <= most:
        raise Malformed("bad_limit", f"limit must be an integer from 1 to {most}.")
    return number


def wait_s(given: dict[str, str], most: float) -> float:
    """`wait`: seconds, fractions too; 0 if not given."""
    text = given.get("wait")
    if text is None:
        return 0.0
    number = float(text) if _NUMBER.fullmatch(text) else -1.0
    if not 0 <= number <= most:
        raise Malformed("bad_wait", f"wait must be a number of seconds from 0 to {most:g}.")
    return number


def with_sent(given: dict[str, str]) -> bool:
    """`sent`: `include`, or nothing."""
    text = given.get("sent", "")
    if text not in ("", "include"):
        raise Malformed("bad_sent", "sent can only be include.")
    return text == "include"


def find_seq(given: dict[str, str], name: str) -> int | None:
    """A place in a mailbox: 0 or more."""
    text = given.get(name)
    if text is None:
        return None
    number = _find_integer(text)
    if number is None or number < 0:
        raise Malformed("bad_seq", f"{name} must be a seq: an integer from 0 on.")
    return number


def _find_integer(text: str) -> int | None:
    if not _INTEGER.fullmatch(text):
        return None
    digits = text.lstrip("+-").lstrip("0") or "0"
    number = int(digits) if len(digits) <= 19 else MOST  # int() refuses more than 4,300 digits
    return -min(number, MOST) if text.startswith("-") else min(number, MOST)


def find_key(call: Call, operation: str, *fields: str, scope: str | None = None) -> Key | None:
    """The Idempotency-Key of this call, bound to its operation and parsed fields; scope: the route, unless given."""
    given = [value for name, value in call.scope["headers"] if name == b"idempotency-key"]
    if len(given) > 1:
        raise Malformed("bad_idempotency_key", "Idempotency-Key is given twice.")
    return key_of(given[0], scope or call.route, operation, *fields) if given else None


def key_of(given: bytes, scope: str, operation: str, *fields: str) -> Key:
    """The same, from the header's value."""
    return key(scope, key_named(given.decode("latin-1")), operation, *fields)


def key_named(name: str) -> str:
    """The name of an idempotency key, wherever it was given. Raises Malformed."""
    if not _VISIBLE.fullmatch(name):
        raise Malformed("bad_idempotency_key", f"Idempotency-Key must be 1 to {KEY_CHARS} visible ASCII characters.")
    return name
