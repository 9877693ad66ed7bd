"""A reader of a process of its own: takes a whole streamed answer, and looks at every seq of it.

`python -m bench.reader PORT PATH` prints a `Whole` as JSON; it ends with a line on stderr if the answer is wrong.
"""

import http.client
import re
import sys
import time
from contextlib import closing

import msgspec

_SEQ = re.compile(rb'"seq":(\d+)')


class Whole(msgspec.Struct):
    """What came: messages, bytes, and the seconds from asking to the last byte."""

    messages: int
    size: int
    seconds: float


def read(port: int, path: str) -> Whole:
    """Read an answer to its end. Raises ValueError unless its seqs are 1, 2, 3, ... and it ends with a cursor."""
    count, size, rest = 0, 0, b""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        began = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(f"{path} was answered {answer.status}")
        while piece := answer.read1(1 << 18):
            size += len(piece)
            data = rest + piece
            cut = data.rfind(b"}") + 1  # a seq before a brace is there whole
            seqs = list(map(int, _SEQ.findall(data, 0, cut)))
            if seqs != list(range(count + 1, count + 1 + len(seqs))):
                raise ValueError(f"after seq {count} came {seqs[:3]}")
            count += len(seqs)
            rest = data[cut:]
        seconds = time.perf_counter() - began
    if not data.endswith(b'"}') or b'"cursor":"' not in data[-20_000:]:
        raise ValueError(f"the answer ended with {data[-60:]!r}")
    return Whole(count, size, seconds)


if __name__ == "__main__":
    try:
        sys.stdout.buffer.write(msgspec.json.encode(read(int(sys.argv[1]), sys.argv[2])))
    except (ValueError, OSError, http.client.HTTPException) as error:
        sys.exit(f"{type(error).__name__}: {error}")
