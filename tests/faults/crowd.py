"""The crowd: users and rooms on a server, and the clients that are let loose on them."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.faults.calls import Line, Target
from tests.faults.clients import Changer, Client, Follower, Rude, Scene, Sender
from tests.faults.recorder import Recorder
from tests.server import until
from tidings.history import Verdict

CAST = ("ann", "bob", "carol", "eve")
ROOMS = ("attic", "kitchen")
STAYS = (("ann", "attic"), ("bob", "attic"), ("carol", "attic"), ("ann", "kitchen"), ("bob", "kitchen"))
LAST_STEPS_S = 60.0  # a step in flight may wait out the server's own limits


class Crowd:
    """Four users in two rooms; eve's stay in the attic and carol's in the kitchen change, and so do two blocks."""

    def __init__(
        self,
        url: str | Target,
        seed: int,
        *,
        pace_s: float = 0.02,
        fresh: float = 0.02,
        page: int = 1000,
    ) -> None:
        self.recorder = Recorder()
        self.target = Target(url, threading.Event()) if isinstance(url, str) else url
        self.target.up.set()
        self.over = threading.Event()
        self.line = Line(self.target, random.Random(seed))
        self.scene = Scene(self.target, self.recorder, self.over, pace_s, fresh, page)
        self._seed = str(seed)
        try:
            self.users = {name: self._made("users", "username", name)["userId"] for name in CAST}
            self.rooms = {name: self._made("groups", "groupName", name)["groupId"] for name in ROOMS}
            for user, room in STAYS:
                change = self.recorder.change(self.line, "add", self.rooms[room], self.users[user], f"{user} {room}")
                assert change.outcome == "ok", change
        except BaseException:
            self.line.renew()
            raise
        self.followers = self._followers()
        self._last: list[Follower] = []
        self._changing = self._changers()
        self._writers = [*self._senders(), *self._changing]

    def __enter__(self) -> "Crowd":
        """Let everybody loose."""
        for client in self._everybody():
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for client in self._everybody():
            client.abandon()
        deadline = time.monotonic() + LAST_STEPS_S
        for client in self._everybody():
            client.join(deadline)
        for line in (self.line, *(client.line for client in [*self._everybody(), *self._last])):
            line.renew()

    @contextmanager
    def joined(self, *others: Client) -> Iterator[None]:
        """Let others loose as well; at the end everybody stops."""
        for client in others:
            client.start()
        try:
            yield
        except BaseException:
            for client in others:
                client.abandon()
            raise
        finally:
            self.over.set()
            deadline = time.monotonic() + LAST_STEPS_S
            for client in others:
                client.join(deadline)

    @contextmanager
    def down(self, why: str) -> Iterator[None]:
        """While the server is killed and restarted."""
        self.target.up.clear()
        self.recorder.fault(why)
        yield
        self.recorder.fault("restart")
        self.target.up.set()

    def finish(self) -> None:
        """Stop everybody, the server being well; then every chain, and a new one of each kind, reads to the end."""
        self.stop()
        self._last = self._followers("last ")
        for follower in [*self.followers, *self._last]:
            follower.read_on()
        self.compare()

    def stop(self) -> None:
        """Let everybody take their last step."""
        self.over.set()
        deadline = time.monotonic() + LAST_STEPS_S
        for client in self._everybody():
            client.join(deadline)

    def read_all(self, url: str, name: str) -> None:
        """A newcomer of each kind reads everything at one node; everybody has stopped, and the node is well."""
        at = Target(url, self.target.up)
        newcomers = self._followers(f"{name} ", replace(self.scene, target=at))
        for newcomer in newcomers:
            newcomer.read_on()
            newcomer.line.renew()

    def compare(self) -> None:
        """What the other views show at the end is what the readers were given and the changers have done."""
        self.line.renew()
        bob = self.users["bob"]
        everything = [message for page in self._pages(f"/v1/messages/{bob}") for message in page]
        for room in self.rooms.values():
            read = [message for message in everything if message["recipientId"] == room]
            history = [message for page in self._pages(f"/v1/groups/{room}/messages", bob) for message in page]
            if read != history:
                self.recorder.wrong.append(f"history of {room} has {len(history)} messages, its reader {len(read)}")
        for changer in self._changing:
            shown = self.line.get(
                f"/v1/users/{changer.of if changer.of in self.users.values() else changer.other}"
            ).data
            on = {*shown["blocks"], *(group["groupId"] for group in shown["groups"])}
            if ((changer.other if changer.of in self.users.values() else changer.of) in on) is not changer.is_on:
                self.recorder.wrong.append(f"{changer.name}: {changer.is_on} is shown as {shown}")

    def _pages(self, path: str, reader: str | None = None) -> Iterator[list[dict[str, Any]]]:
        after: dict[str, object] = {}
        while True:
            answer = self.line.get(path, userId=reader, limit=self.scene.page, **after)
            assert answer.status == 200, answer
            messages = answer.data["messages"] or []
            yield messages
            if not answer.data.get("more"):
                return
            after = {"after": messages[-1]["seq"]} if reader else {"cursor": answer.data["cursor"]}

    def judged(
        self,
        kept: Path,
        name: str,
        errors: str,
        say: Callable[[str], None],
        tell: Callable[[Verdict], None] = lambda _: None,
    ) -> Counter[str]:
        """Judge the history, say so in a line, and give its counts; `errors` is what the server said on stderr.

        `tell` is given the verdict even if it fails the test.
        """
        (kept / "stderr").write_text(errors)
        if " failed with " in errors:
            self.recorder.wrong.append(errors[errors.index(" failed with ") :][:2000])
        verdict = self.recorder.judge(kept / "history.jsonl", tell)
        say(f"{name}: {verdict.summary()}")
        return verdict.counts

    def go_on(self, calls: int) -> None:
        """Return after so many more calls of whoever they are, or as soon as something is wrong."""
        goal = len(self.recorder.events) + calls
        until(lambda: len(self.recorder.events) >= goal or self.recorder.wrong, 60, f"not {calls} calls in 60 s")

    def _everybody(self) -> Sequence[Client]:
        return [*self._writers, *self.followers]

    def _made(self, kind: str, field: str, name: str) -> Mapping[str, str]:
        answer = self.line.post(f"/v1/{kind}/create", {field: name}, f"create {name}")
        assert answer.status == 200, answer
        return answer.data

    def _senders(self) -> list[Client]:
        people, rooms = list(self.users.values()), list(self.rooms.values())
        devices = [*CAST, "ann"]
        rude = Rude(self.scene, "eve hangs up", self._seed, self.users["eve"], self.users["ann"])
        return [rude] + [
            Sender(self.scene, f"{name} sends {n}", self._seed, self.users[name], people, rooms)
            for n, name in enumerate(devices)
        ]

    def go_on_for(self, seconds: float) -> None:
        """Return after so many seconds, or as soon as something is wrong."""
        begin, pause = time.monotonic(), threading.Event()
        while time.monotonic() - begin < seconds and not self.recorder.wrong:
            pause.wait(0.05)

    def _followers(self, prefix: str = "", scene: Scene | None = None) -> list[Follower]:
        made: list[Follower] = []
        scene, seed = scene or self.scene, self._seed
        for name, user in self.users.items():
            made.append(Follower(scene, f"{prefix}{name} by cursor", seed, user))
            made.append(Follower(scene, f"{prefix}{name} with sent", seed, user, sent=True))
            made.append(Follower(scene, f"{prefix}{name} by time", seed, user, by_time=True))
        anew = 0.0 if prefix else 0.02
        made.append(Follower(scene, f"{prefix}bob anew", seed, self.users["bob"], anew=anew))
        made.append(Follower(scene, f"{prefix}eve anew by time", seed, self.users["eve"], by_time=True, anew=anew))
        return made

    def _changers(self) -> list[Changer]:
        users, rooms = self.users, self.rooms
        scene, seed = self.scene, self._seed
        return [
            Changer(scene, "bob blocks eve", seed, ("block", "unblock"), users["bob"], users["eve"]),
            Changer(scene, "ann blocks carol", seed, ("block", "unblock"), users["ann"], users["carol"]),
            Changer(scene, "eve in the attic", seed, ("add", "remove"), rooms["attic"], users["eve"]),
            Changer(scene, "carol in the kitchen", seed, ("add", "remove"), rooms["kitchen"], users["carol"]),
        ]
