"""Where a store lives: `dynamodb://REGION/PREFIX`, or with `?endpoint=http://HOST:PORT` another server of that API."""

import re
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from tidings.errors import StartError

FORM = "dynamodb://REGION/PREFIX or dynamodb://REGION/PREFIX?endpoint=http://HOST:PORT"

_REGION = re.compile(r"[a-z0-9-]{1,64}")
_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,200}")  # what a table's name may be made of; that may have 255


class Address(NamedTuple):
    """Region, the beginning of the tables' names, and the server's URL; None for that of AWS in the region."""

    region: str
    prefix: str
    endpoint: str | None


def address_of(url: str) -> Address:
    """The address that a store's URL names. Raises StartError."""
    parts = urlsplit(url)
    prefix = parts.path.removeprefix("/")
    asked = parse_qs(parts.query, keep_blank_values=True)
    endpoints = asked.pop("endpoint", [])
    is_meant = _REGION.fullmatch(parts.netloc) and _PREFIX.fullmatch(prefix) and not asked and not parts.fragment
    if parts.scheme != "dynamodb" or not is_meant or len(endpoints) > 1:
        raise StartError(f"--store must be {FORM}, not {url!r}")
    if not endpoints:
        return Address(parts.netloc, prefix, None)
    endpoint = urlsplit(endpoints[0])
    if endpoint.scheme not in ("http", "https") or not endpoint.hostname:
        raise StartError(f"--store names an endpoint that is no http:// or https:// URL: {endpoints[0]!r}")
    return Address(parts.netloc, prefix, endpoints[0])
