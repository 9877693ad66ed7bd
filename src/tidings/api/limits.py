"""What is refused before anything is read: foreign web pages, foreign hosts, and what is too long.

A page of another origin may make a browser call us: it is known by `Origin`, or by `Sec-Fetch-Site` where a browser
sends none (an image, a script, a frame). A page may also rebind its own name to our address: it is known by `Host`.
"""

import ipaddress
from itertools import chain

from starlette.types import Scope

from tidings.config import Settings
from tidings.errors import Foreign, TidingsError, headers_too_large, uri_too_long

ELSEWHERE = (b"cross-site", b"same-site")  # a site is a host with any port: not what may read us
REMEMBERED = 1024  # Host and Origin values judged before; clients of one server send a handful


class Guard:
    """Judges requests by target and headers alone; about a microsecond each."""

    def __init__(self, settings: Settings) -> None:
        self._uri_max_bytes = settings.uri_max_bytes
        self._headers_max_bytes = settings.headers_max_bytes
        self._hosts = _listed(settings.allowed_hosts)
        self._origins = _listed(settings.allowed_origins)
        self._welcome: set[tuple[bytes | None, bytes | None]] = set()

    def find_plain(self, headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes] | None:
        """Headers by name, if they are plain, and neither host nor origin foreign: half the time of `refuses`."""
        by_name = dict(headers)
        if len(by_name) != len(headers) or b"sec-fetch-site" in by_name:
            return None
        host, origin = by_name.get(b"host"), by_name.get(b"origin")
        return by_name if (host, origin) in self._welcome or self._judge(host, origin) is None else None

    def refuses(self, scope: Scope) -> TidingsError | None:
        """The reason to refuse an ASGI http or websocket scope, None if there is none."""
        if len(scope["raw_path"]) + len(scope["query_string"]) + 1 > self._uri_max_bytes:
            return uri_too_long(self._uri_max_bytes)
        headers = scope["headers"]
        if sum(map(len, chain.from_iterable(headers))) > self._headers_max_bytes:
            return headers_too_large(self._headers_max_bytes)
        by_name = dict(headers)
        host, origin = by_name.get(b"host"), by_name.get(b"origin")
        if len(by_name) != len(headers) and _is_repeated(headers):
            return Foreign("foreign_host", "Host or Origin is given twice.")
        if origin is None and by_name.get(b"sec-fetch-site") in ELSEWHERE and not self._may_embed(by_name):
            return Foreign("foreign_origin", "A page of another origin may not use this.")
        return None if (host, origin) in self._welcome else self._judge(host, origin)

    def _judge(self, host: bytes | None, origin: bytes | None) -> TidingsError | None:
        host_text = (host or b"").decode("latin-1").lower()
        if not self._is_our_host(host_text):
            return Foreign("foreign_host", "Host must be localhost, an IP address, or one of --allowed-hosts.")
        if origin is not None and not self._is_our_origin(origin.decode("latin-1").lower(), host_text):
            return Foreign("foreign_origin", "Origin must be this server's own, or one of --allowed-origins.")
        if len(self._welcome) >= REMEMBERED:
            self._welcome.clear()
        self._welcome.add((host, origin))
        return None

    def _may_embed(self, headers: dict[bytes, bytes]) -> bool:
        """Of what another site's page makes a browser fetch, only a link that the user follows is let through."""
        return headers.get(b"sec-fetch-dest") == b"document" or "*" in self._origins

    def _is_our_host(self, host: str) -> bool:
        if "*" in self._hosts or host in self._hosts:
            return True
        name = _without_port(host)
        if name == "localhost" or name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True

    def _is_our_origin(self, origin: str, host: str) -> bool:
        if "*" in self._origins or origin in self._origins:
            return True
        # Either scheme, because TLS may end at a proxy; browsers leave a scheme's own port out of Origin and Host.
        return origin in (f"http://{host.removesuffix(':80')}", f"https://{host.removesuffix(':443')}")


def _listed(text: str) -> frozenset[str]:
    return frozenset(part.strip().lower().rstrip("/") for part in text.split(",") if part.strip())


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        return host
    return name if port.isdecimal() or not port else host


def _is_repeated(headers: list[tuple[bytes, bytes]]) -> bool:
    return any([header[0] for header in headers].count(name) > 1 for name in (b"host", b"origin"))
