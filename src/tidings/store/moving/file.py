"""An export as a file: there whole or not at all, and read with the number of each line at hand."""

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tidings.errors import UpkeepError
from tidings.store.moving.lines import (
    FORMAT,
    KINDS,
    VERSION,
    End,
    Entry,
    Head,
    Tally,
    packed,
    read_head,
    read_line,
)

LINE_MAX = 64 << 20  # a user who blocks 100,000 others takes a tenth of it
PART = ".part"
_EVERY = 2_000  # lines between two words of progress

Told = Callable[[int], None]  # so many lines are done
Progress = Callable[[str, int, int], None]  # what is done; how much of how much (0: that is not known)


class Export:
    """A file that `tidings export` wrote, held open. Raises UpkeepError, which names the line, where it is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file: IO[bytes] = path.open("rb")
        except OSError as error:
            raise UpkeepError(f"{path} can't be read: {error.strerror}") from None
        try:
            self.head = self._read_head()
        except UpkeepError:
            self._file.close()
            raise
        self.size = os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Let go of it."""
        self._file.close()

    def check(self, on_bytes: Callable[[int], None] = lambda _: None) -> End:
        """Read all of it, so that nothing is begun with a file that is bad somewhere; gives its last line."""
        for _ in self.lines(on_bytes=on_bytes):
            pass
        return self.end

    def lines(self, after: int = 0, on_bytes: Callable[[int], None] = lambda _: None) -> Iterator[tuple[int, Entry]]:
        """The numbers and contents of all lines between the first and the last, but for the first `after` lines.

        From the beginning, `end` is compared with all of them at the end.
        """
        self._file.seek(0)
        tally, number = Tally(), 0
        while text := self._file.readline(LINE_MAX):
            number += 1
            if number % _EVERY == 0:
                on_bytes(self._file.tell())
            if number == 1 or number <= after:
                continue
            if not text.endswith(b"\n"):
                raise self._wrong(number, "it is cut off" if len(text) < LINE_MAX else "it is too long")
            line = self._read_line(number, text[:-1])
            if isinstance(line, End):
                if not after:
                    self._compare(number, line, tally)
                if self._file.read(1):
                    raise self._wrong(number + 1, "nothing may come after the last line")
                self.end = line
                return
            if not after:
                tally.add(line, text[:-1])
            yield number, line
        raise self._wrong(number, "the file is cut off behind it: its last line, which counts the others, is missing")

    def _read_head(self) -> Head:
        text = self._file.readline(LINE_MAX)
        try:
            head = read_head(text)
        except ValueError:
            head = None
        if head is None or head.format != FORMAT:
            raise self._wrong(1, "this is no file that tidings export wrote")
        if head.version > VERSION:
            raise self._wrong(1, f"it has version {head.version}; this Tidings knows {VERSION}: use the newer program")
        return head

    def _read_line(self, number: int, text: bytes) -> Entry | End:
        try:
            return read_line(text)
        except ValueError as error:
            raise self._wrong(number, f"it is damaged ({error})") from None

    def _compare(self, number: int, end: End, tally: Tally) -> None:
        found = tally.end(end.clock)
        for name in KINDS:
            if found.counts[name] != end.counts.get(name, 0):
                what = (
                    f"it counts {end.counts.get(name, 0):,} {name}, and the lines before it have {found.counts[name]:,}"
                )
                raise self._wrong(number, what)
        if found.sums != end.sums:
            kinds = [kind for kind in found.sums if found.sums[kind] != end.sums.get(kind)]
            raise self._wrong(number, f"by its sum, a line of kind {kinds[0]} before it was changed")

    def _wrong(self, number: int, what: str) -> UpkeepError:
        return UpkeepError(f"{self.path}, line {number}: {what}")


@contextmanager
def held(target: Path) -> Iterator[Path]:
    """The file that becomes the target once it is whole, ours alone meanwhile; what is in it counts for nothing."""
    part = target.with_name(target.name + PART)
    file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UpkeepError(f"another export writes {target} just now") from None
        if not part.exists() or not os.path.samestat(os.fstat(file), part.stat()):
            raise UpkeepError(f"another export wrote {target} just now")
        try:
            yield part
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    finally:
        os.close(file)


def write(part: Path, head: Head, entries: Iterable[Entry], clock: Callable[[], int], on_lines: Told) -> End:
    """Write all of an export into a file that counts for nothing yet, and make it durable; gives the last line."""
    tally, number = Tally(), 0
    with part.open("wb", buffering=1 << 20) as file:
        file.write(packed(head) + b"\n")
        for line in entries:
            text = packed(line)
            tally.add(line, text)
            file.write(text + b"\n")
            number += 1
            if number % _EVERY == 0:
                on_lines(number)
        end = tally.end(clock())
        file.write(packed(end) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return end
