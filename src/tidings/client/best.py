"""News in the best way that can be had: the first of several transports, or the next one where that does not work."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tidings.client.pages import Page
from tidings.client.transports import Broken, Flow, Transport, Unfit
from tidings.client.wire import pause
from tidings.errors import TidingsError

AGAIN_S = 1.0  # until a way that could not be had is tried again; doubled at each failure in a row, up to:
AGAIN_MAX_S = 600.0
LIVED_S = 10.0  # a stream that lasted so long, or gave a message, was good
BREAKS_MAX = 3  # in a row, of streams that were not: then another way is tried


@dataclass
class _Standing:
    failures: int = 0  # in a row
    not_before: float = 0.0  # by the loop's clock


class Best:
    """Pages from one of the `transports`, best first; where there is no cursor yet, the first page is `first`'s."""

    def __init__(self, transports: Sequence[Transport], first: Transport) -> None:
        self._transports = transports
        self._first = first
        self._standing = {transport.name: _Standing() for transport in transports}
        self._used: Transport = first
        self._flow: Flow | None = None
        self._has_given = False  # a page of this flow
        self._is_good = False
        self._opened_at = 0.0
        self._breaks = 0  # in a row

    async def next(self, cursor: str | None) -> Page:
        """The next page after a cursor; may be cancelled without loss.

        Raises Broken with the seconds to wait before the next call, and every other TidingsError of the transport.
        """
        while True:
            flow = self._flow or self._open(cursor)
            try:
                page = await flow.next()
            except Unfit as unfit:
                self.close()
                if self._used is self._transports[-1]:
                    raise unfit.error from None
                self._postpone()
            except Broken as broken:
                self.close()
                raise self._after(broken) from None
            except TidingsError:
                self.close()
                raise
            else:
                self._note(page)
                return page

    def close(self) -> None:
        """Let go of the stream, if there is one; the next page is asked for anew."""
        if self._flow is not None:
            self._flow.close()
            self._flow = None

    def _open(self, cursor: str | None) -> Flow:
        self._opened_at = asyncio.get_running_loop().time()
        self._used = self._first if cursor is None else self._choose()
        self._has_given = self._is_good = False
        self._flow = self._used.open(cursor)
        return self._flow

    def _choose(self) -> Transport:
        now = asyncio.get_running_loop().time()
        for transport in self._transports:
            if now >= self._standing[transport.name].not_before:
                return transport
        return self._transports[-1]

    def _note(self, page: Page) -> None:
        if page.messages:
            self._is_good = True
            self._breaks = 0
        if not self._has_given and self._used.name in self._standing:
            self._standing[self._used.name] = _Standing()
        self._has_given = True
        if not page.more and self._used is not self._choose():
            self.close()  # a better one may be had, now or again

    def _postpone(self) -> None:
        standing = self._standing[self._used.name]
        standing.failures += 1
        again_s = min(AGAIN_S * 2.0 ** min(standing.failures - 1, 16), AGAIN_MAX_S)
        standing.not_before = asyncio.get_running_loop().time() + again_s * _spread()

    def _after(self, broken: Broken) -> Broken:
        """When to come back: after a stream that was good soon, if the server did not say otherwise."""
        lived_s = asyncio.get_running_loop().time() - self._opened_at
        if self._is_good or lived_s >= LIVED_S:
            self._breaks = 0
        self._breaks += 1
        if self._breaks >= BREAKS_MAX and self._used is not self._transports[-1]:
            self._breaks = 0
            self._postpone()
        least_s = 0.0 if self._is_good and not broken.is_told else broken.retry_s or 0.0
        return Broken(broken.detail, retry_s=pause(self._breaks or 1, least_s) * _spread(), is_told=broken.is_told)


def _spread() -> float:
    """A factor that keeps thousands who lost one server from coming back to it at once."""
    return 1 + random.random()  # noqa: S311  # spreads load; no secret
