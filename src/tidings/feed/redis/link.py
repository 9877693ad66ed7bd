"""Two connections to one Redis: over one the node asks, on the other it waits for entries."""

import asyncio
import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, cast

import msgspec
from redis.asyncio.connection import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from tidings.errors import StartError
from tidings.feed.redis.wire import Ask, Entry, Place, Told, pack_ask, read_entry, unpack_told

_TURN = files(__package__).joinpath("turn.lua").read_bytes()
_KEYS = ("feed", "news", "open", "opened", "expired", "anew")
_ENTRIES = 200  # read at a time: 1 ms of work for the loop


class Broken(Exception):
    """The link is of no more use: another must be opened. Its text says why."""


class Door:
    """Where a feed is: the server, and the names of this store's keys on it, all in one slot."""

    def __init__(self, url: str, generation: int, node: str) -> None:
        """Raises StartError for an address that is none."""
        prefix = f"tidings:{{{generation & (1 << 64) - 1:016x}}}:"
        self.keys = [*(prefix + name for name in _KEYS), f"{prefix}taken:{node}"]
        self.news = self.keys[1]
        try:
            self._pool = ConnectionPool.from_url(
                url, protocol=2, socket_timeout=None, retry=Retry(NoBackoff(), 0), driver_info=None
            )
        except ValueError as error:
            raise StartError("--feed must be redis://HOST:PORT/DB or rediss://HOST:PORT/DB") from error

    async def open(self, within_s: float) -> "Link":
        """A link, ready for use. Raises Broken; StartError if we are not let in."""
        asking, reading = self._connection(), self._connection()
        link = Link(self, asking, reading, within_s)
        try:
            async with asyncio.timeout(within_s):
                await asking.connect()  # type: ignore[no-untyped-call]
                await reading.connect()  # type: ignore[no-untyped-call]
                await link.load()
        except AuthenticationError as error:
            await link.close()
            raise StartError(f"--feed: {error}") from error
        except (RedisError, OSError) as error:  # TimeoutError among them
            await link.close()
            raise Broken(_say(error)) from error
        except BaseException:
            await link.close()
            raise
        return link

    def _connection(self) -> Connection:
        return cast(Connection, self._pool.make_connection())  # type: ignore[no-untyped-call]


class Link:
    """An open link; each half is used by one task at a time. Every wait ends within `within_s`."""

    def __init__(self, door: Door, asking: Connection, reading: Connection, within_s: float) -> None:
        self._door = door
        self._asking = asking
        self._reading = reading
        self._within_s = within_s
        self._sha = b""

    async def load(self) -> None:
        """Make the script known to the server."""
        self._sha = await self._call(self._asking, "SCRIPT LOAD", _TURN)

    async def ask(self, ask: Ask, payloads: Sequence[bytes]) -> Told:
        """One turn. Raises Broken, when it is unknown whether it was done."""
        keys = self._door.keys
        try:
            async with asyncio.timeout(self._within_s):
                raw = await self._call(
                    self._asking, "EVALSHA", self._sha, str(len(keys)), *keys, pack_ask(ask), *payloads
                )
            return unpack_told(raw)
        except (RedisError, OSError, msgspec.MsgspecError) as error:
            raise Broken(_say(error)) from error

    async def read(self, after: Place, wait_s: float) -> list[Entry]:
        """The next entries after a place; none if there are none within `wait_s`. Raises Broken."""
        wait_ms = str(int(wait_s * 1000))
        start = f"{after.number}-{after.beat}"
        try:
            async with asyncio.timeout(wait_s + self._within_s):
                given = await self._call(
                    self._reading, "XREAD", "COUNT", str(_ENTRIES), "BLOCK", wait_ms, "STREAMS", self._door.news, start
                )
            return [read_entry(raw) for raw in given[0][1]] if given else []
        except (RedisError, OSError, msgspec.MsgspecError, ValueError) as error:
            raise Broken(_say(error)) from error

    async def close(self) -> None:
        """Let go of both connections, without waiting for the server."""
        for connection in (self._asking, self._reading):
            await connection.disconnect(nowait=True)

    @staticmethod
    async def _call(connection: Connection, *command: bytes | str) -> Any:
        await connection.send_command(*command)
        return await connection.read_response(disable_decoding=True, timeout=math.inf)


def _say(error: Exception) -> str:
    return str(error) or type(error).__name__
