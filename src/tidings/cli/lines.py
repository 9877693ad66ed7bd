"""What somebody types, line by line: below everything that is shown meanwhile at a terminal, or as it is piped in."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext

from tidings.cli.visible import visible

WAITING_MAX = 100  # lines read before they are taken: a long file is piped in no faster than it is sent
PIECE_BYTES = 65_536


class Lines:
    """The lines of standard input, to its end; what is printed within `beside` does not garble the one being typed."""

    def __init__(self, name: str) -> None:
        self._prompt = f"{visible(name)}> "
        self.is_typed = sys.stdin.isatty() and sys.stdout.isatty()

    def beside(self) -> AbstractContextManager[None]:
        """While printing is meant to be shown above the prompt."""
        if not self.is_typed:
            return nullcontext()
        from prompt_toolkit.patch_stdout import patch_stdout

        return patch_stdout(raw=True)  # colours are ours; of what strangers wrote, all that steers was made visible

    def __aiter__(self) -> AsyncIterator[str]:
        return self._typed() if self.is_typed else _piped()

    async def _typed(self) -> AsyncIterator[str]:
        """Until Ctrl-D. A line vanishes when it is done: it is shown when it has been sent. Ctrl-C interrupts."""
        from prompt_toolkit import PromptSession

        session: PromptSession[str] = PromptSession(self._prompt, erase_when_done=True)
        while True:
            try:
                yield await session.prompt_async()
            except EOFError:
                return


async def _piped() -> AsyncIterator[str]:
    """Read by a thread that may be left behind: by the descriptor, since one that holds `sys.stdin` can't be."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING_MAX)

    def put(line: bytes | None) -> None:
        asyncio.run_coroutine_threadsafe(lines.put(line), loop).result()

    def read() -> None:
        rest = b""
        try:
            while piece := os.read(fd, PIECE_BYTES):
                *whole, rest = (rest + piece).split(b"\n")
                for line in whole:
                    put(line)
            if rest:
                put(rest)
            put(None)
        except (OSError, RuntimeError):  # nobody takes lines any more
            pass

    fd = sys.stdin.fileno()
    threading.Thread(target=read, name="lines", daemon=True).start()
    while (line := await lines.get()) is not None:
        yield line.removesuffix(b"\r").decode(errors="replace")
