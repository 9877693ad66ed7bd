"""One call to a server: sent, answered or refused, and tried again where that can help."""

import asyncio
import os
import random
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import msgspec
from yarl import URL

from tidings.client.refusals import NotUnderstood, Unreachable, refusal
from tidings.client.transports import Broken, Unfit
from tidings.errors import Malformed, TidingsError

T = TypeVar("T")

PAUSE_S = 0.1  # before the second attempt; doubled before each further one, up to:
PAUSE_MAX_S = 5.0
JITTER = 0.25  # a pause is up to so much longer, so that those refused together don't come back together
ANSWER_MAX_BYTES = 64 << 20  # a page of the largest default messages, with every character escaped, is a tenth of it

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True)
class Retries:
    """How long a call is tried; whichever bound is reached first ends it with the last error.

    A call ends within `total_s + 2 * answer_s`, and what a long-poll may wait.
    """

    total_s: float = 30.0  # after the first failure: a server is restarted in seconds; people give up later than that
    attempts_max: int = 10  # half a minute of pauses
    answer_s: float = 15.0  # for one attempt: over the 10 s after which a server says itself that it can't
    connect_s: float = 5.0  # of which, for the connection: TCP alone would give up after minutes


class Wire:
    """Calls over kept connections. Raises ValueError for a URL that is none."""

    def __init__(self, url: str, retries: Retries, connections_max: int) -> None:
        _check(url)
        self.url = url.rstrip("/")
        self.retries = retries
        self._connections_max = connections_max
        self._session: aiohttp.ClientSession | None = None
        self._readers: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Begin; within a running loop."""
        connector = aiohttp.TCPConnector(limit=self._connections_max)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self.retries.connect_s)
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout)

    async def close(self) -> None:
        """Close all connections; whoever reads from a stream ends."""
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def keep(self, reader: "asyncio.Task[None]") -> None:
        """A task that reads from a connection of ours, until it ends or we do."""
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)

    async def get(
        self, decoder: "msgspec.json.Decoder[T]", *path: str, wait_s: float = 0.0, **query: str | float | None
    ) -> T:
        """Ask. Raises TidingsError."""
        return await self._call(decoder, "GET", self._address(path, query), None, {}, wait_s)

    async def post(
        self, decoder: "msgspec.json.Decoder[T]", *path: str, body: Mapping[str, str], key: str, **query: str | None
    ) -> T:
        """Change something, once, however often it has to be tried. Raises TidingsError."""
        if not _KEY.fullmatch(key):
            raise Malformed("bad_idempotency_key", "A key must be 1 to 255 visible ASCII characters.")
        try:
            content = msgspec.json.encode(body)
        except UnicodeEncodeError:
            raise Malformed("malformed", "Half a surrogate pair is no text.") from None
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        return await self._call(decoder, "POST", self._address(path, query), content, headers, 0.0)

    @asynccontextmanager
    async def answer(
        self, path: tuple[str, ...], query: Mapping[str, str | None], headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is read as it comes, however long that takes. Raises Unreachable, Broken."""
        with self._told():
            asking = self._opened().get(self._address(path, query), headers=headers, allow_redirects=False)
            async with asking as response:
                yield response

    @asynccontextmanager
    async def socket(
        self, path: tuple[str, ...], query: Mapping[str, str | None], protocol: str
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket. Raises Unreachable, Broken, and Unfit where none is to be had."""
        with self._told():
            connecting = self._opened().ws_connect(
                self._address(path, query), protocols=(protocol,), max_msg_size=ANSWER_MAX_BYTES
            )
            try:
                socket = await connecting
            except aiohttp.WSServerHandshakeError as error:
                passing = refusal(error.status, b"", None)  # a proxy's word for a server that is away, perhaps
                what = f"{self.url} answers with HTTP {error.status} where a WebSocket was asked for."
                raise Unfit(NotUnderstood(what) if passing.retry_s is None else passing) from None
            async with socket:
                yield socket

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What becomes of a connection, in our words: could not be had, or had and lost."""
        try:
            yield
        except aiohttp.ConnectionTimeoutError:
            raise Unreachable(f"No connection to {self.url} in {self.retries.connect_s:.0f} s.") from None
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable(error) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Broken(str(self._unreachable(error))) from None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client is not open: `async with Client(...) as tidings:`")
        return self._session

    def _address(self, path: tuple[str, ...], query: Mapping[str, str | float | None]) -> URL:
        try:
            steps = "/".join(quote(step, safe="") for step in path)
            asked = urlencode({name: value for name, value in query.items() if value is not None})
        except UnicodeEncodeError:
            raise Malformed("malformed", "Half a surrogate pair is no text.") from None
        return URL(f"{self.url}/v1/{steps}" + (f"?{asked}" if asked else ""), encoded=True)

    async def _call(
        self,
        decoder: "msgspec.json.Decoder[T]",
        method: str,
        address: URL,
        content: bytes | None,
        headers: Mapping[str, str],
        wait_s: float,
    ) -> T:
        loop = asyncio.get_running_loop()
        deadline = None
        attempt = 0
        while True:
            attempt += 1
            try:
                body = await self._attempt(method, address, content, headers, self.retries.answer_s + wait_s)
                return _decoded(decoder, body)
            except TidingsError as error:
                deadline = deadline or loop.time() + self.retries.total_s
                if error.retry_s is None or attempt >= self.retries.attempts_max:
                    raise
                pause_s = pause(attempt, error.retry_s)
                if loop.time() + pause_s > deadline:
                    raise
            await asyncio.sleep(pause_s)

    async def _attempt(
        self, method: str, address: URL, content: bytes | None, headers: Mapping[str, str], attempt_s: float
    ) -> bytes:
        session = self._opened()
        timeout = aiohttp.ClientTimeout(total=attempt_s, sock_connect=self.retries.connect_s)
        try:
            async with session.request(
                method, address, data=content, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                body = await _read(response)
        except TimeoutError:
            raise Unreachable(f"No answer from {self.url} in {attempt_s:.0f} s.") from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from None
        if response.status == 200:
            if response.content_type != "application/json":
                raise NotUnderstood(f"What answers at {self.url} is not Tidings.")
            return body
        if response.status < 400:
            raise NotUnderstood(f"{self.url} answers with HTTP {response.status}, which Tidings never does.")
        raise refusal(response.status, body, seconds(response.headers.get("Retry-After", "")))

    def _unreachable(self, error: Exception) -> Unreachable:
        reason = str(error) or type(error).__name__
        is_refused = False
        if isinstance(error, aiohttp.ClientConnectorError):
            is_refused = not isinstance(error, aiohttp.ClientConnectorDNSError)
            number = error.os_error.errno or 0  # negative ones are of the look-up of names
            reason = os.strerror(number) if number > 0 else error.os_error.strerror or reason
        return Unreachable(f"No answer from {self.url}: {reason}.", is_refused=is_refused)


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")  # as it is looked up; UnicodeError is a ValueError
        is_one = parts.scheme in ("http", "https") and host and b" " not in host and not parts.query + parts.fragment
        is_one = is_one and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise ValueError(f"a server's URL is like http://127.0.0.1:8080, not {url!r}")


def pause(attempt: int, least_s: float) -> float:
    """Seconds before the attempt after this one (the first is 1): at least what the server asked for, jittered."""
    doubled_s = min(PAUSE_S * 2.0 ** min(attempt - 1, 16), PAUSE_MAX_S)
    jitter = 1 + JITTER * random.random()  # noqa: S311  # spreads load; no secret
    return max(doubled_s, least_s) * jitter


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > ANSWER_MAX_BYTES:
            raise NotUnderstood(f"The answer is longer than {ANSWER_MAX_BYTES} bytes.")
    return bytes(body)


def _decoded(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise NotUnderstood(f"The answer is not as Tidings answers: {error}.") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):  # cut short, where a proxy does not tell lengths
        raise NotUnderstood("The answer is not JSON.", retry_s=0.0) from None


def seconds(text: str) -> float | None:
    """What a Retry-After says, if it is a number."""
    return float(text) if text.isascii() and text.isdigit() else None
