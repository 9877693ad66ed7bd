"""Clients that send, read and change things for as long as they are let, each in a thread of its own."""

import random
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.calls import Line, NotSent, Target
from tests.faults.recorder import Recorder
from tidings.history import Operation, Reading

LIMITS = (None, None, 1, 2, 7, 100, 1000)
WAITS = (None, None, None, 0.05, 0.5)
BUSY = {"overloaded", "shutting_down", "mailbox_busy", "too_many_waits"}  # refusals that a repeat may be spared


@dataclass
class Scene:
    """What all clients share; they go on until `over` is set."""

    target: Target
    recorder: Recorder
    over: threading.Event
    pace_s: float = 0.02  # the longest a client thinks between two calls: bounds the load, waits for nothing
    fresh: float = 0.02  # how often a call takes a new connection
    page: int = 1000  # the largest limit that the server takes


class Client:
    """One thread that takes steps; whatever it raises is noted as wrong."""

    def __init__(self, scene: Scene, name: str, seed: str) -> None:
        self.name = name
        self.scene = scene
        self.recorder = scene.recorder
        self.rng = random.Random(f"{seed} {name}")
        self.line = Line(scene.target, self.rng, scene.fresh)
        self._is_abandoned = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, deadline: float) -> None:
        """Wait for the last step, after `over` is set, up to a moment of the monotonic clock."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self.recorder.wrong.append(f"{self.name} hangs")

    def abandon(self) -> None:
        """End even with an outcome unknown: the test has failed, the server may be gone."""
        self._is_abandoned = True

    def step(self) -> None:
        """One thing to do."""
        raise NotImplementedError

    def is_idle(self) -> bool:
        """Whether it may end here: nothing of unknown outcome is left to be found out."""
        return True

    def _run(self) -> None:
        while not (self.scene.over.is_set() and (self._is_abandoned or self.is_idle())):
            try:
                self.step()
            except NotSent:
                self.scene.target.up.wait(1)
            except Exception:
                self.recorder.wrong.append(f"{self.name}: {traceback.format_exc()}")
                return
            self.scene.over.wait(self.rng.random() * self.scene.pace_s)


class Sender(Client):
    """Sends to people and rooms; repeats with the same key until it knows the outcome, and now and then after that."""

    def __init__(
        self, scene: Scene, name: str, seed: str, user: str, people: Sequence[str], rooms: Sequence[str]
    ) -> None:
        super().__init__(scene, name, seed)
        self._user = user
        self._people = people
        self._rooms = rooms
        self._count = 0
        self._probes = 0
        self._pending: tuple[str, str, bool, str] | None = None
        self._done: list[tuple[str, str, bool, str]] = []

    def is_idle(self) -> bool:
        return self._pending is None

    def step(self) -> None:
        again = bool(self._done) and self.rng.random() < 0.05
        recipient, text, private, key = self._pending or (
            self.rng.choice(self._done[-50:]) if again else self._intent()
        )
        if key:
            self._pending = recipient, text, private, key
        event = self.recorder.send(self.line, self._user, recipient, text, private, key)
        if key and event.outcome != "unknown" and event.code not in BUSY:
            self._pending = None
            if event.outcome == "ok":
                self._done.append((recipient, text, private, key))
        if event.answer is not None and self.rng.random() < 0.2:
            self._probe(recipient if private else self._user, int(event.answer.timestamp))

    def _intent(self) -> tuple[str, str, bool, str]:
        self._count += 1
        private = self.rng.random() < 0.6
        padding = "" if self.rng.random() < 0.9 else "\N{SNOWMAN}" * self.rng.randint(1, 4000)
        key = f"{self.name} {self._count}" if self.rng.random() < 0.7 else ""
        recipient = self.rng.choice(self._people if private else self._rooms)
        return recipient, f"{self.name} {self._count} {padding}", private, key

    def _probe(self, reader: str, timestamp: int) -> None:
        """Right after the answer, over a new connection: the reader must be given it, whichever process took it."""
        self.line.renew()
        self._probes += 1
        self.recorder.read(self.line, reader, f"probe {self.name} {self._probes}", time=timestamp - 1)


class Follower(Client):
    """Reads on and on, by cursor or (`by_time`) by timestamp; may begin anew now and then."""

    def __init__(
        self,
        scene: Scene,
        name: str,
        seed: str,
        user: str,
        *,
        by_time: bool = False,
        sent: bool = False,
        anew: float = 0.0,
    ) -> None:
        super().__init__(scene, name, seed)
        self._user = user
        self._sent = sent
        self._anew = anew
        self._chain = 0
        self._cursor = ""
        self._time = 0 if by_time else None

    def step(self) -> None:
        if self.rng.random() < self._anew:
            self._begin()
        self._read(self.rng.choice(LIMITS), self.rng.choice(WAITS))

    def read_on(self) -> None:
        """Read to the end; call it when the thread is over and the server is well."""
        is_over = False
        while not is_over:
            read = self._read(self.rng.choice((None, 50, 1000)), None)
            is_over = read.outcome == "ok" and not read.more

    def _begin(self) -> None:
        self._chain += 1
        self._cursor = self.rng.choice(("", "now")) if self._time is None else ""
        self._time = None if self._time is None else 0

    def _read(self, limit: int | None, wait: float | None) -> Reading:
        read = self.recorder.read(
            self.line,
            self._user,
            f"{self.name} {self._chain}",
            cursor=self._cursor,
            time=self._time,
            sent=self._sent,
            limit=None if limit is None else min(limit, self.scene.page),
            wait=wait,
        )
        if read.outcome == "refused" and read.code not in BUSY:
            self.recorder.wrong.append(f"{self.name} was refused: {read}")
            self._begin()
        if read.outcome == "ok":
            if self._time is None:
                self._cursor = read.given
            else:
                self._time = max([self._time, *(int(message.timestamp) for message in read.messages)])
        return read


class Changer(Client):
    """Turns one block or membership on and off, each time with a key that it repeats until it knows the outcome."""

    def __init__(
        self, scene: Scene, name: str, seed: str, turns: tuple[Operation, Operation], of: str, other: str
    ) -> None:
        super().__init__(scene, name, seed)
        self._turns = turns
        self.of = of
        self.other = other
        self._count = 0
        self._is_pending = False

    @property
    def is_on(self) -> bool:
        """Whether the block or the membership is there, once nothing is pending."""
        return self._count % 2 == 1

    def is_idle(self) -> bool:
        return not self._is_pending

    def step(self) -> None:
        if not self._is_pending and self.rng.random() < 0.7:
            return
        operation = self._turns[self._count % 2]
        self._is_pending = True
        event = self.recorder.change(self.line, operation, self.of, self.other, f"{self.name} {self._count}")
        if event.outcome == "unknown" or event.code in BUSY:
            return
        self._is_pending = False
        self._count += 1
        if event.outcome == "refused":
            self.recorder.wrong.append(f"{self.name} was refused: {event}")
        else:
            self._probe(operation)

    def _probe(self, operation: Operation) -> None:
        """Right after the answer, over a new connection: it binds, whichever process took it."""
        self.line.renew()
        text = f"{self.name} {self._count} probe"
        if operation in ("block", "unblock"):
            sending = self.recorder.send(self.line, self.other, self.of, text, True, "")
            expected = "refused" if operation == "block" else "ok"
            if sending.outcome not in (expected, "unknown") and sending.code not in BUSY:
                self.recorder.wrong.append(f"right after {operation}: {sending}")
        else:
            self.recorder.read(self.line, self.other, text, time=self.recorder.recent)


class Rude(Client):
    """Sends, or asks with a long wait, and hangs up before the answer: what was taken is taken, nothing else breaks."""

    def __init__(self, scene: Scene, name: str, seed: str, user: str, other: str) -> None:
        super().__init__(scene, name, seed)
        self._user = user
        self._other = other
        self._count = 0

    def step(self) -> None:
        self._count += 1
        if self.rng.random() < 0.5:
            self.recorder.send_and_hang_up(self.line, self._user, self._other, f"{self.name} {self._count}")
        else:
            self.line.hang_up(f"/v1/messages/{self._user}?cursor=now")
            self.line.hang_up(f"/v1/messages/{self._user}?wait=30&timestamp=9999999999999")
