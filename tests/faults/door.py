"""`python -m tests.faults.door`: doors between nodes and their servers, in a process of their own, told what to do.

The first line on stdin lists where the doors lead; it is answered with their ports. Each later line is an `Order` for
one of them, and answered when it is carried out. The end of stdin is the end of it all.
"""

import asyncio
import random
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from urllib.parse import urlsplit

import msgspec
import uvloop

from tests.standin.between import Between, Talk, hush, lose, throttle


class Leads(msgspec.Struct):
    """Where a door leads; `hears`: it takes calls to DynamoDB apart, and can do something to some of them."""

    host: str
    port: int
    hears: bool = False


class Order(msgspec.Struct):
    """How a door is from now on; `share` of the calls get `what` is done to them."""

    door: int
    is_cut: bool = False  # connections are reset, and so are new ones
    is_hung: bool = False  # nothing goes through, nothing is closed
    delay_s: float = 0.0  # of what comes back
    what: str = ""
    share: float = 0.0


WHATS: dict[str, Callable[[Talk], None]] = {"throttle": throttle, "hush": hush, "lose": lose}


class Passage:
    """A door that carries bytes."""

    def __init__(self, leads: Leads) -> None:
        self._leads = leads
        self._order = Order(0)
        self._is_passable = asyncio.Event()
        self._is_passable.set()
        self._writers: set[asyncio.StreamWriter] = set()

    def obey(self, order: Order) -> None:
        """Be so from now on."""
        self._order = order
        if order.is_hung:
            self._is_passable.clear()
        else:
            self._is_passable.set()
        if order.is_cut:
            for writer in self._writers:
                writer.transport.abort()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        self._writers.add(writer)
        try:
            await self._is_passable.wait()
            if self._order.is_cut:
                writer.transport.abort()
                return
            with suppress(OSError):
                reader_, writer_ = await asyncio.open_connection(self._leads.host, self._leads.port)
                self._writers.add(writer_)
                await self._carry(reader, writer, reader_, writer_)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        reader_: asyncio.StreamReader,
        writer_: asyncio.StreamWriter,
    ) -> None:
        up = asyncio.create_task(self._pump(reader, writer_, is_back=False))
        down = asyncio.create_task(self._pump(reader_, writer, is_back=True))
        try:
            await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            writer_.transport.abort()
            self._writers.discard(writer_)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_back: bool) -> None:
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()  # with 0 what is not held up

        async def deliver() -> None:
            while True:
                due, data = await under_way.get()
                if due > loop.time():
                    with suppress(TimeoutError):
                        async with asyncio.timeout_at(due):
                            await asyncio.Event().wait()
                await self._is_passable.wait()
                if not data:
                    return
                writer.write(data)
                await writer.drain()

        async def fetch() -> None:
            data = b"-"
            while data:
                data = await reader.read(65536)
                delay_s = self._order.delay_s if is_back else 0.0
                under_way.put_nowait((loop.time() + delay_s if delay_s else 0.0, data))

        await asyncio.gather(fetch(), deliver())


class Hearing:
    """A door that takes calls apart, behind one that carries bytes."""

    def __init__(self, between: Between, rng: random.Random) -> None:
        self._between = between
        self._rng = rng

    def obey(self, order: Order) -> None:
        """Do that to so many of the calls."""
        self._between.seen.clear()
        self._between.fault = self._fault(WHATS[order.what], order.share) if order.what else lambda _: None

    def _fault(self, what: Callable[[Talk], None], share: float) -> Callable[[Talk], None]:
        def some(talk: Talk) -> None:
            if self._rng.random() < share:
                what(talk)

        return some


async def serve(leads: list[Leads], stdin: asyncio.StreamReader, stack: AsyncExitStack) -> None:
    """Open the doors, and obey until the end."""
    ports: list[int] = []
    doors: list[tuple[Passage, Hearing | None]] = []
    for number, lead in enumerate(leads):
        hearing = None
        if lead.hears:
            between = await stack.enter_async_context(Between(f"http://{lead.host}:{lead.port}").open())
            hearing = Hearing(between, random.Random(number))
            lead = Leads("127.0.0.1", urlsplit(between.url).port or 0)
        passage = Passage(lead)
        server = await asyncio.start_server(passage, "127.0.0.1", 0)
        stack.callback(server.close)
        ports.append(server.sockets[0].getsockname()[1])
        doors.append((passage, hearing))
    _say(ports)
    while line := await stdin.readline():
        order = msgspec.json.decode(line, type=Order)
        passage, hearing = doors[order.door]
        passage.obey(order)
        if hearing is not None:
            hearing.obey(order)
        _say("done")


def _say(what: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


async def main() -> None:
    """Read where they lead, and serve."""
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    leads = msgspec.json.decode(await stdin.readline(), type=list[Leads])
    async with AsyncExitStack() as stack:
        await serve(leads, stdin, stack)


if __name__ == "__main__":
    uvloop.run(main())
