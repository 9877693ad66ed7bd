"""Everything that can be refused, and whether asking again can help.

TidingsError
├── Malformed 400 ........... malformed, both_cursor_and_timestamp, bad_cursor, bad_limit, unknown_operation, ...
├── Foreign 403 ............. foreign_origin, foreign_host: a web page that is not ours
├── Refused 403 ............. blocked, not_a_member
├── Unknown 404 ............. unknown_user, unknown_group, unknown_path
├── MethodNotAllowed 405 .... method_not_allowed
├── Conflict 409 ............ already_blocked, not_blocked, already_a_member, not_a_member_of_it,
│                             too_many_groups, too_many_blocks, group_full
├── AnotherHistory 410 ...... cursor_of_another_history: start over, knowingly
├── TooLarge 413 ............ body_too_large, message_too_large
├── UriTooLong 414 .......... uri_too_long
├── KeyReused 422 ........... idempotency_key_reused
├── UpgradeRequired 426 ..... upgrade_required: a socket, asked for without a handshake
├── TooMany 429 ............. mailbox_busy, too_many_waits         (retry helps)
├── HeadersTooLarge 431 ..... headers_too_large
├── Internal 500 ............ internal: a fault of ours, never of the client's input
└── Unavailable 503 ......... overloaded, shutting_down             (retry helps)
    ├── StoreUnavailable .... store_unavailable, store_full, store_corrupt, store_closed
    └── FeedUnavailable ..... feed_unavailable: no news from other nodes

Errors of starting up, which never travel over HTTP:

StartError .................. wrong settings, a store that is foreign, newer, corrupt or already served

Of backup, restore and doctor:

UpkeepError ................. what was asked for can't be done, or must not: a file in the way, a backup that is none

And one between the store and who follows its news:

Forgotten ................... the news asked for is older than what is kept: begin anew
"""

from typing import ClassVar


class TidingsError(Exception):
    """A refusal with a stable `code`, an HTTP `status`, and `retry`: seconds after which a repeat may help, or None."""

    status: int = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, code: str, detail: str, *, retry_s: float | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry_s = retry_s


class Malformed(TidingsError):
    """The request can't be understood."""

    status = 400
    title = "Malformed request"


class Foreign(TidingsError):
    """A web page of another origin, or a Host that is not ours, asks."""

    status = 403
    title = "Foreign origin or host"


class Refused(TidingsError):
    """Understood, and not allowed: a block, or no membership."""

    status = 403
    title = "Not allowed"


class Unknown(TidingsError):
    """There is no such user, group or path."""

    status = 404
    title = "Not found"


class MethodNotAllowed(TidingsError):
    """The path exists; the method does not fit it."""

    status = 405
    title = "Method not allowed"


class Conflict(TidingsError):
    """It is so already, is not so, or a limit on stored things is reached."""

    status = 409
    title = "Conflict"


class AnotherHistory(TidingsError):
    """The cursor belongs to a history that this store does not continue (RFC 9110, 15.5.11)."""

    status = 410
    title = "Cursor of another history"


class TooLarge(TidingsError):
    """The body or the message is over its limit."""

    status = 413
    title = "Content too large"


class UriTooLong(TidingsError):
    """The request's target is over its limit."""

    status = 414
    title = "URI too long"


class KeyReused(TidingsError):
    """The idempotency key was used with other content."""

    status = 422
    title = "Idempotency key reused"


class UpgradeRequired(TidingsError):
    """What is here speaks another protocol (RFC 9110, 15.5.22)."""

    status = 426
    title = "Upgrade required"


class TooMany(TidingsError):
    """This mailbox or user has too much under way."""

    status = 429
    title = "Too many requests"


class HeadersTooLarge(TidingsError):
    """The request's headers are over their limit (RFC 6585, 5)."""

    status = 431
    title = "Request header fields too large"


class Internal(TidingsError):
    """A fault of ours; the log has it, the answer does not."""


class Unavailable(TidingsError):
    """This node can't answer now; another try, here or elsewhere, may."""

    status = 503
    title = "Service unavailable"


class StoreUnavailable(Unavailable):
    """The store did not take or give it: full, corrupt, locked or gone."""


class Closed(StoreUnavailable):
    """The store takes no writes any more: an export of it was made, which goes on elsewhere."""


class FeedUnavailable(Unavailable):
    """The feed can't be reached, or what it gives is not known to be fresh; the store still answers."""


class StartError(Exception):
    """The server can't start; its text is the one line that says why."""


class UpkeepError(Exception):
    """A store can't be kept, put back or looked at as asked; its text is the one line that says why."""


class Forgotten(Exception):
    """The news asked for is older than what is kept."""


def unknown_user(user_id: str) -> Unknown:
    """The error for a user that does not exist."""
    return Unknown("unknown_user", f"There is no user {user_id[:128]!r}.")


def unknown_group(group_id: str) -> Unknown:
    """The error for a group that does not exist."""
    return Unknown("unknown_group", f"There is no group {group_id[:128]!r}.")


def no_driver() -> StartError:
    """The error for what takes a store or feed of many nodes where their drivers are not installed."""
    return StartError(
        "the drivers for many nodes are not installed: make venv EXTRAS=aws,redis, or pip install 'tidings[aws,redis]'"
    )


def store_closed() -> Closed:
    """The error for writes to a store that is being moved."""
    text = "The store is being moved and takes no writes; the same call may be taken where it goes on."
    return Closed("store_closed", text, retry_s=10)


def body_too_large(most: int) -> TooLarge:
    """The error for a body over its limit, in bytes."""
    return TooLarge("body_too_large", f"The body is longer than {most} bytes.")


def uri_too_long(most: int) -> UriTooLong:
    """The error for a target over its limit, in bytes."""
    return UriTooLong("uri_too_long", f"Path and query are longer than {most} bytes.")


def headers_too_large(most: int) -> HeadersTooLarge:
    """The error for headers over their limit, in bytes."""
    return HeadersTooLarge("headers_too_large", f"The headers are longer than {most} bytes.")
