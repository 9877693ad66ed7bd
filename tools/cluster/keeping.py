"""Processes of ours: started, started again when they end, ended in order. Each is known by its pid, and by no name."""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

READY_S = 30.0  # for what takes two seconds on an idle machine
LOOK_S = 0.05
END_S = 30.0  # more than a node's --grace-s
STEADY_S = 5.0  # who ran so long did not fail at starting
PAUSE_MAX_S = 5.0


class Failed(Exception):
    """The cluster can't be had; its text is the one line that says why."""


@dataclass(frozen=True)
class Plan:
    """How a part is started. `what_lacks` is given what it has printed, may ask it, and says why it is not ready."""

    name: str
    command: Sequence[str]
    what_lacks: Callable[[str], Awaitable[str]]
    env: Mapping[str, str] = field(default_factory=dict)
    is_vital: bool = False  # whether it takes everything along when it ends


class Part:
    """A process of a plan, in a directory of its own, with a log beside it."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        self.log = directory / f"{plan.name}.log"
        self.log.unlink(missing_ok=True)
        self._room = directory / plan.name
        self._process: asyncio.subprocess.Process | None = None
        self._began_at = 0.0

    @property
    def pid(self) -> int:
        """Its process's; 0 before there is one."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start it, and wait until it is ready. Raises Failed."""
        self._room.mkdir(exist_ok=True)
        seen = self.log.stat().st_size if self.log.exists() else 0
        self._began_at = time.monotonic()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *_outlived_by_nobody(),
                *self.plan.command,
                cwd=self._room,
                env={**os.environ, "TMPDIR": str(self._room), **self.plan.env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us, who end the others in order
            )
        while lacks := await self.plan.what_lacks(self.log.read_bytes()[seen:].decode(errors="replace")):
            if self._process.returncode is not None:
                raise Failed(f"{self.plan.name} did not start ({self.how()}): {self._last_words()}")
            if time.monotonic() > self._began_at + READY_S:
                raise Failed(f"{self.plan.name} is not ready after {READY_S:.0f} s: {lacks} ({self.log})")
            await asyncio.sleep(LOOK_S)

    async def ended(self) -> float:
        """Wait for its end; gives how many seconds it had lived."""
        if self._process is not None:
            await self._process.wait()
        return time.monotonic() - self._began_at

    def how(self) -> str:
        """How its process ended."""
        code = self._process.returncode if self._process else None
        return "still there" if code is None else signal.Signals(-code).name if code < 0 else f"exit code {code}"

    async def end(self) -> None:
        """SIGTERM, and SIGKILL to what is left of its session when that was not enough."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), END_S)
        except TimeoutError:
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """SIGKILL, to whatever it started as well."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return f"{said[-1] if said else 'it said nothing'} ({self.log})"


class Keeper:
    """All parts: what ends is started again, and said."""

    def __init__(self, directory: Path, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._say = say
        self._started: list[list[Part]] = []
        self._keepers: list[asyncio.Task[None]] = []
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()  # a vital part, once one ends

    async def start(self, *plans: Plan) -> list[Part]:
        """Start parts, side by side; they are ready when this returns. Raises Failed."""
        parts = [Part(plan, self._directory) for plan in plans]
        self._started.append(parts)
        starts = [asyncio.create_task(part.start()) for part in parts]
        try:
            await asyncio.gather(*starts)
        finally:
            for start in starts:  # nobody may start what nobody will end
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
        self._keepers += [asyncio.create_task(self._keep(part)) for part in parts]
        return parts

    async def _keep(self, part: Part) -> None:
        name, failed = part.plan.name, 0
        while True:
            lived_s, pid = await part.ended(), part.pid
            if part.plan.is_vital:
                self.lost.set_result(f"{name} (pid {pid}) ended ({part.how()}), and with it all that was stored")
                return
            failed = 0 if lived_s > STEADY_S else failed + 1
            pause_s = min(PAUSE_MAX_S, 0.1 * 2**failed) if failed > 1 else 0.0
            again = f"in {pause_s:.1f} s" if pause_s else "now"
            self._say(f"{name} (pid {pid}) ended ({part.how()}); it is started again {again}")
            await asyncio.sleep(pause_s)
            try:
                await part.start()
            except Failed as error:
                self._say(str(error))
                await part.end()
            else:
                self._say(f"{name} is back, as pid {part.pid}")

    async def end(self) -> None:
        """End all, what was started last first."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for parts in reversed(self._started):
            await asyncio.gather(*(part.end() for part in parts))

    def kill(self) -> None:
        """End all at once."""
        for parts in self._started:
            for part in parts:
                part.kill()


def _outlived_by_nobody() -> Sequence[str]:
    """A command in front, which becomes the program; that is told to end when we are gone, however that came about."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "TERM", "--") if setpriv else ()
