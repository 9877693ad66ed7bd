"""What a call can end with instead of an answer, beside what the server refuses with (drawn in tidings.errors).

TidingsError
├── all that tidings.errors draws, by status and code
├── Unreachable ............. no_answer: nobody answered in time, after all attempts
├── NotUnderstood ........... not_understood: who answers there is not Tidings
├── Expired ................. expired: messages after the place read from are not kept any more
└── Hole .................... hole: a mailbox went on with another seq than the next
"""

import msgspec

from tidings import errors
from tidings.errors import TidingsError

NO_STATUS = 0  # no answer over HTTP stands behind it

_BY_STATUS: dict[int, type[TidingsError]] = {
    kind.status: kind
    for kind in (
        *(errors.Malformed, errors.Refused, errors.Unknown, errors.MethodNotAllowed, errors.Conflict),
        *(errors.AnotherHistory, errors.TooLarge, errors.UriTooLong, errors.KeyReused, errors.TooMany),
        *(errors.HeadersTooLarge, errors.Internal, errors.Unavailable),
    )
}
_BY_CODE: dict[str, type[TidingsError]] = {
    "foreign_origin": errors.Foreign,
    "foreign_host": errors.Foreign,
    "store_unavailable": errors.StoreUnavailable,
    "store_full": errors.StoreUnavailable,
    "store_corrupt": errors.StoreUnavailable,
    "store_closed": errors.StoreUnavailable,
}
_AGAIN = {429, 500, 502, 503, 504}  # what may be otherwise at the next attempt, if whoever answers says nothing of it


class Unreachable(TidingsError):
    """No answer, after all attempts; whether a change took effect is open, and the same key finds out.

    `is_refused`: nobody listens at the address, at least not now.
    """

    status = NO_STATUS
    title = "No answer"

    def __init__(self, detail: str, *, is_refused: bool = False) -> None:
        super().__init__("no_answer", detail, retry_s=0.0)
        self.is_refused = is_refused


class NotUnderstood(TidingsError):
    """An answer that no Tidings server gives."""

    status = NO_STATUS
    title = "Not understood"

    def __init__(self, detail: str, *, retry_s: float | None = None) -> None:
        super().__init__("not_understood", detail, retry_s=retry_s)


class Expired(TidingsError):
    """Some messages after the reader's place are not kept any more; what follows begins with the oldest that are."""

    status = NO_STATUS
    title = "Expired"

    def __init__(self) -> None:
        super().__init__("expired", "Messages after the place read from are not kept any more.")


class Hole(TidingsError):
    """A mailbox went on with seq `got` where `expected` comes next; asked again, the server gave the same.

    `mailbox` is the id of the group, or of the reader for their own; "sent" for the copies of what they sent.
    """

    status = NO_STATUS
    title = "Hole"

    def __init__(self, mailbox: str, expected: int, got: int) -> None:
        super().__init__("hole", f"After seq {expected - 1} of {mailbox!r} comes {expected}; the server gave {got}.")
        self.mailbox = mailbox
        self.expected = expected
        self.got = got


class _Problem(msgspec.Struct):
    """What is read of an RFC 9457 answer."""

    code: str
    detail: str = ""
    retry: bool = False


_problems = msgspec.json.Decoder(_Problem)


def refusal(status: int, body: bytes, retry_after_s: float | None) -> TidingsError:
    """The error that an answer other than 200 stands for; a proxy's own answers too, under `http_STATUS`."""
    try:
        problem = _problems.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        problem = _Problem(f"http_{status}", f"The answer was HTTP {status}, without a reason.", status in _AGAIN)
    kind = _BY_CODE.get(problem.code) or _BY_STATUS.get(status, TidingsError)
    may_help = problem.retry or status == errors.Internal.status  # a fault of the server's may be gone
    error = kind(problem.code, problem.detail, retry_s=(retry_after_s or 0.0) if may_help else None)
    error.status = status
    return error
