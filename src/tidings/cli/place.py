"""Where a follower stands, kept in a file, so that it goes on there next time."""

import fcntl
import hashlib
import os
import re
from pathlib import Path
from typing import IO

import msgspec


class Kept(msgspec.Struct):
    """What the file holds: a cursor, and whose it is."""

    server: str
    user: str
    cursor: str


class PlaceError(Exception):
    """The file can't be used; the text is the line that says why."""


class Place:
    """A file with a cursor in it, one process at a time. Raises PlaceError."""

    def __init__(self, file: Path, server: str, user_id: str) -> None:
        self._file = file
        self._server = server
        self._user_id = user_id
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock: IO[bytes] = file.with_name(file.name + ".lock").open("ab")
        except OSError as error:
            raise PlaceError(f"can't keep the place in {file}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise PlaceError(f"another process keeps its place in {file}; give this one a --cursor-file") from None

    def load(self) -> str | None:
        """The cursor kept last, None if there is none. A file that is no place, or another's, is never overwritten."""
        try:
            kept = msgspec.json.decode(self._file.read_bytes(), type=Kept)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PlaceError(f"can't read {self._file}: {error.strerror}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise PlaceError(f"{self._file} does not hold a place; remove it, or give another --cursor-file") from None
        if (kept.server, kept.user) != (self._server, self._user_id):
            raise PlaceError(f"{self._file} is for {kept.user} on {kept.server}; give another --cursor-file")
        return kept.cursor

    def save(self, cursor: str) -> None:
        """Keep a cursor: after a power cut, the file holds it or the one before, whole."""
        fresh = self._file.with_name(self._file.name + ".new")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(msgspec.json.encode(Kept(self._server, self._user_id, cursor)))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._file)
        except OSError as error:
            raise PlaceError(f"can't keep the place in {self._file}: {error.strerror}") from None

    def close(self) -> None:
        """Let another process have it."""
        self._lock.close()


def usual_file(server: str, user_id: str) -> Path:
    """Where the place is kept unless said otherwise: one file for each user of each server, under XDG_STATE_HOME."""
    state = os.environ.get("XDG_STATE_HOME", "")
    home = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"  # relative ones are to be ignored
    digest = hashlib.sha256(f"{server}\n{user_id}".encode(errors="surrogateescape")).hexdigest()[:12]
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", user_id)[:80]
    return home / "tidings" / f"{readable}-{digest}.json"
