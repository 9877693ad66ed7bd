"""What a server says of itself on stderr: a line for people or, by setting, a JSON object a line.

No line holds what users wrote, or a cursor: `tell` is given names and numbers, and an exception is shown by its kind
and the places it came by, never by its text, which may quote what it stumbled upon. Lines are bounded in length, and
like ones in number (`Bounded`), so that a storm of faults fills no disk.

The standard library's logging is enough for that (a formatter and a handler), and uvicorn and asyncio use it anyway;
structlog would be a dependency, and an import at every start, for what is written below.
"""

import logging
import os
import sys
import threading
import time
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import asyncio

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

ALIKE_MAX = 5  # lines of one kind and place in a window; the next one says how many were left out
WINDOW_S = 60.0
KINDS_MAX = 200  # told apart in a window; what is over that shares one kind
LINE_MAX = 3_500  # characters: below what a pipe takes in one piece, so that lines of several workers never mix
FRAMES_MAX = 12
_CAUSES_MAX = 3
_TOLD_APART = ("what", "route", "status", "code", "kind")

Raised = tuple[type[BaseException], BaseException, TracebackType | None]


def tell(log: logging.Logger, level: int, event: str, text: str, **fields: Any) -> None:
    """Log an event: `event` and `fields` are stable names for programs; `text` has %(field)s in it, for people."""
    if log.isEnabledFor(level):
        log.log(level, text, fields, extra={"event": event, "fields": fields})


def set_up(form: str, level: str) -> None:
    """Let everything go to stderr: from us what is of the level, from anybody else warnings and worse."""
    logging.raiseExceptions = False  # a line that can't be written would be shown with all that it was made of
    handler = Bounded()
    handler.setFormatter(Json() if form == "json" else Text())
    root, chosen = logging.getLogger(), logging.getLevelNamesMapping()[level.upper()]
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, chosen))
    logging.getLogger("tidings").setLevel(chosen)
    lost = logging.getLogger("tidings.lost")
    sys.excepthook = lambda *raised: lost.error("the program failed", exc_info=raised)
    sys.unraisablehook = lambda lost_one: lost.error("a fault that nobody could be told", exc_info=_raised(lost_one))
    threading.excepthook = lambda lost_one: lost.error("a thread failed", exc_info=_raised(lost_one))


def watch(loop: "asyncio.AbstractEventLoop") -> None:
    """Let the loop's own complaints, which quote what tasks held, come as faults of a kind and a place."""
    lost = logging.getLogger("tidings.lost")

    def complain(_: object, context: dict[str, Any]) -> None:
        error = context.get("exception")
        raised = (type(error), error, error.__traceback__) if error else None
        lost.error("%s", str(context["message"]).partition("\n")[0], exc_info=raised)

    loop.set_exception_handler(complain)


def settle() -> None:
    """Say what was left out until now: at the end of a process."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Bounded):
            handler.settle()


def _raised(lost_one: Any) -> Raised | None:
    error = lost_one.exc_value
    return (type(error), error, lost_one.exc_traceback) if error else None


class Bounded(logging.StreamHandler[Any]):
    """Writes to stderr, of like lines only so many in a window."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._seen: dict[tuple[Any, ...], _Window] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, unless too many like it were written just now."""
        self._sum_up(time.monotonic() - WINDOW_S)
        kind = _kind(record)
        if kind not in self._seen and len(self._seen) >= KINDS_MAX:
            kind = ()
        window = self._seen.setdefault(kind, _Window(record, time.monotonic()))
        window.count += 1
        if window.count <= ALIKE_MAX:
            super().emit(record)

    def settle(self) -> None:
        """Say what was left out, as if all windows were over."""
        with self.lock or threading.RLock():
            self._sum_up(time.monotonic())

    def _sum_up(self, before: float) -> None:
        over = [kind for kind, window in self._seen.items() if window.since <= before]
        for kind in over:
            window = self._seen.pop(kind)
            if window.count > ALIKE_MAX:
                super().emit(window.summary())


class _Window:
    """How many like records came since the first one."""

    def __init__(self, record: logging.LogRecord, since: float) -> None:
        self._first = record
        self.since = since
        self.count = 0

    def summary(self) -> logging.LogRecord:
        """A record that stands for those that were left out."""
        first, fields = self._first, {"count": self.count - ALIKE_MAX, "of": _event(self._first)}
        text = "%(count)d more lines of %(of)s, left out"
        record = logging.LogRecord(first.name, first.levelno, first.pathname, first.lineno, text, (fields,), None)
        record.__dict__.update(event="left_out", fields=fields)
        return record


def _kind(record: logging.LogRecord) -> tuple[Any, ...]:
    fields = getattr(record, "fields", {})
    error = record.exc_info[0] if record.exc_info else None
    return (record.name, _event(record), record.msg[:80], error, *(fields.get(name) for name in _TOLD_APART))


def _event(record: logging.LogRecord) -> str:
    return getattr(record, "event", None) or ("fault" if record.exc_info else "note")


def _message(record: logging.LogRecord) -> str:
    """Others' lines end where they begin to show details."""
    message = record.getMessage()
    return message if record.name.startswith("tidings") else message.partition("\n")[0]


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and len(found) < _CAUSES_MAX:
        found.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


class Text(logging.Formatter):
    """For people: time, level, sentence; a fault with the places it came by."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; only a fault has more than one."""
        at = datetime.fromtimestamp(record.created).strftime("%Y-%m-%d %H:%M:%S")
        line = f"{at},{int(record.msecs):03d} {record.levelname} {_message(record)}"
        for error in _causes(record.exc_info[1] if record.exc_info else None):
            frames = "".join(traceback.format_tb(error.__traceback__, -FRAMES_MAX))
            line += f"\nTraceback (most recent call last):\n{frames}{type(error).__name__}"
        return line[:LINE_MAX]


class Json(logging.Formatter):
    """For programs: time (RFC 3339, UTC), level, event, text, pid, and the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object in one line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        shown = {
            "time": at,
            "level": record.levelname.lower(),
            "event": _event(record),
            "text": _message(record).partition("\n")[0][:500],
            "logger": record.name,
            "pid": os.getpid(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1]:
            errors = _causes(record.exc_info[1])
            shown["kind"] = " from ".join(type(error).__name__ for error in errors)
            shown["frames"] = places(errors[0])
        return msgspec.json.encode(shown).decode()


def places(error: BaseException) -> list[str]:
    """Where an exception came by, the innermost last: file, line, function."""
    frames = traceback.extract_tb(error.__traceback__, -FRAMES_MAX)
    return [f"{'/'.join(frame.filename.split('/')[-3:])}:{frame.lineno} {frame.name}"[:200] for frame in frames]
