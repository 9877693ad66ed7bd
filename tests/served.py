"""Servers of every kind of memory, and what a test of all of them needs: connections, restarts, calls at once."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any, Self

import httpx

from tests.server import ServerProcess

SERVERS: dict[str, Sequence[str]] = {
    "all in memory": (),
    "nothing in memory": (
        *("--tail-max-bytes", "0", "--tail-window-s", "0"),
        *("--directory-max-users", "1", "--directory-max-heads", "1"),
    ),
    "a little in memory, small pages": (
        *("--tail-max-bytes", "6000", "--directory-max-users", "2", "--directory-max-heads", "4", "--page-max", "3"),
    ),
    "pages of little text": (*("--tail-max-bytes", "6000", "--page-max", "3", "--page-max-chars", "6"),),
    "two workers": ("--workers", "2"),
    "two workers, a little in memory": (
        *("--workers", "2", "--tail-max-bytes", "6000", "--directory-max-users", "2", "--directory-max-heads", "4"),
    ),
}
PATIENCE_S = 30.0  # for an answer that takes milliseconds
CONNECTIONS = 4  # taken in turn, so that with several workers each is asked now and then


class Served:
    """A server that can be started again, connections to it, and what happened there."""

    def __init__(self, data: Path, flags: Sequence[str]) -> None:
        self._data = data
        self._flags = flags
        self.has_short_pages = "--page-max-chars" in flags
        self.seen: Counter[str] = Counter()
        self.pool = ThreadPoolExecutor(8)
        self._open()

    def _open(self) -> None:
        self.process = ServerProcess.start(self._data, *self._flags)
        self._clients = [httpx.Client(base_url=self.process.url, timeout=PATIENCE_S) for _ in range(CONNECTIONS)]
        self._turns = cycle(self._clients)

    def restart(self, end: Callable[[ServerProcess], object]) -> None:
        """End the server and start it anew on its data."""
        self.shut()
        end(self.process)
        self._open()

    def shut(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.shut()
        self.pool.shutdown()
        self.process.__exit__(*error)

    def get(self, path: str, **params: object) -> httpx.Response:
        return next(self._turns).get(path, params={k: v for k, v in params.items() if v is not None})  # type: ignore[misc]

    def post(self, path: str, body: dict[str, Any], key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return next(self._turns).post(path, json=body, headers=headers)


def outcome(response: httpx.Response) -> tuple[int, str]:
    """Status and code of an answer."""
    return response.status_code, "" if response.status_code == 200 else response.json()["code"]
