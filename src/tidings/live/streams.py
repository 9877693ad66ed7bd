"""All streams of one process: how many there may be, their heartbeats, and the messages they share, encoded once."""

import asyncio
from collections.abc import Iterator
from itertools import islice
from typing import Protocol

import msgspec

from tidings.live.session import Session
from tidings.model import Posted
from tidings.service import Messages, Node, Question
from tidings.tail import Subscriber, copy_of

TOGETHER = 0.01  # of a heartbeat, so much early: the process wakes for many at once, not ten times as often
_ENCODED_MAX = 500  # messages kept encoded, at most a commit's: 8 MB if all are as long as may be


class Beating(Protocol):
    """What shows now and then that it lives: a session, or the socket around it."""

    def beat(self) -> None:
        """Show it."""


class _Heartbeats:
    """A part of a stream's life; the library's context managers take seven times the memory."""

    __slots__ = ("_stream", "_streams")

    def __init__(self, streams: "Streams", stream: Beating) -> None:
        self._streams = streams
        self._stream = stream

    def __enter__(self) -> None:
        self._streams.begin(self._stream)

    def __exit__(self, *error: object) -> None:
        self._streams.stop(self._stream)


class Streams:
    """Opens sessions and keeps them alive."""

    def __init__(self, messages: Messages, node: Node) -> None:
        self._messages = messages
        self._node = node
        self._heartbeat_s = node.settings.heartbeat_s
        self._due: dict[Beating, float] = {}  # in the order of their next heartbeats
        self._timer: asyncio.TimerHandle | None = None
        self._doubtful: Iterator[Subscriber] = iter(())
        self._encoded: dict[tuple[int, bool], tuple[Posted, bytes]] = {}

    @property
    def open(self) -> int:
        """How many are open."""
        return len(self._due)

    def holding(self, question: Question) -> Session:
        """A session that counts from now on, to open and run. Raises TooMany, Unavailable if there are too many."""
        self._messages.hold(question.user_id)
        return Session(self._messages, self._node, question, self._encode)

    def beating(self, stream: Beating) -> "_Heartbeats":
        """Give a running stream its heartbeats, within a `with`."""
        return _Heartbeats(self, stream)

    def begin(self, stream: Beating) -> None:
        """Give a stream its heartbeats."""
        self._due[stream] = asyncio.get_running_loop().time() + self._heartbeat_s
        self._set_timer()

    def stop(self, stream: Beating) -> None:
        """Give it no more."""
        self._due.pop(stream, None)
        if not self._due and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look_again(self) -> None:
        """While this node hears no news: have some streams read the store, the others in the next calls, in turn.

        Half of the reads that may wait are theirs, so that polls are answered as well.
        """
        if not self._node.feed.is_alone:
            return
        some = list(islice(self._doubtful, max(1, self._node.settings.reads_waiting_max // 2)))
        if not some:
            self._doubtful = iter(self._node.tail.subscribers)
        for subscriber in some:
            subscriber.lost()

    def _set_timer(self) -> None:
        if self._due and self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(next(iter(self._due.values())), self._beat)

    def _beat(self) -> None:
        """The heartbeats that are due: one timer for all streams, since ten thousand of their own cost memory."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        due = []
        for stream, at in self._due.items():
            if at > now + self._heartbeat_s * TOGETHER:
                break
            due.append(stream)
        for stream in due:
            del self._due[stream]
            self._due[stream] = now + self._heartbeat_s
            stream.beat()
        self._set_timer()

    def _encode(self, posted: Posted, is_copy: bool) -> bytes:
        key = (posted.position, is_copy)
        found = self._encoded.get(key)
        if found is not None and found[0] is posted:
            return found[1]
        if len(self._encoded) >= _ENCODED_MAX:
            self._encoded.clear()
        encoded = msgspec.json.encode(copy_of(posted) if is_copy else posted.message)
        self._encoded[key] = (posted, encoded)
        return encoded
