"""Settings: read once at start, frozen; every default stands with its unit and its reason.

Each field is a flag of `tidings serve` (`--wait-max-s`) and an environment variable (`TIDINGS_WAIT_MAX_S`).
"""

import re
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_type_hints
from urllib.parse import urlsplit

from tidings.errors import StartError
from tidings.log import FORMATS, LEVELS

_PREFIX = re.compile(r"/[A-Za-z0-9_.-]{1,200}")  # of the names of tables, which have 255 characters


@dataclass(frozen=True)
class About:
    """What `--help` and docs/settings.md say of a setting; `least` and `most` bound a number."""

    text: str
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Settings:
    """How one server runs. Raises StartError, in one line, for a value that can't be meant."""

    host: Annotated[str, About("Address to listen on. Loopback, because there is no authentication yet.")] = "127.0.0.1"
    port: Annotated[int, About("TCP port to listen on; 0 takes a free one and prints it.", 0, 65535)] = 8080
    workers: Annotated[int, About("Processes that share the store; one per core is the most that helps.", 1, 64)] = 1
    store: Annotated[
        str,
        About(
            "Where the truth is kept: sqlite:///relative/path, sqlite:////absolute/path, or, for many nodes, "
            "dynamodb://REGION/PREFIX (`?endpoint=URL` for another server of that API)."
        ),
    ] = "sqlite:///data/tidings.db"
    feed: Annotated[
        str,
        About("Where the nodes of a dynamodb store tell each other the news: redis://HOST:PORT/DB, rediss:// for TLS."),
    ] = ""
    allowed_hosts: Annotated[
        str,
        About("Host names that requests may name, comma-separated, beside localhost and IP addresses; * for any."),
    ] = ""
    allowed_origins: Annotated[
        str,
        About("Web origins not refused, comma-separated (https://app.example.com), beside our own; * for any."),
    ] = ""
    sent_copies: Annotated[
        bool,
        About("Keep a copy of each private message for its sender's other devices (a third more to store)."),
    ] = True

    name_max_chars: Annotated[int, About("Longest user or group name, in characters: a line on a phone.", 1, 1024)] = (
        128
    )
    message_max_bytes: Annotated[
        int, About("Longest message, in bytes of UTF-8: several printed pages.", 1, 1 << 20)
    ] = 16_384
    body_max_bytes: Annotated[
        int,
        About("Largest request body, in bytes: a full message with every character escaped.", 1024, 1 << 23),
    ] = 65_536
    uri_max_bytes: Annotated[
        int, About("Longest path and query, in bytes: a cursor over 250 groups takes 6,000.", 1024, 65_536)
    ] = 16_384
    headers_max_bytes: Annotated[int, About("All headers of a request together, in bytes.", 1024, 1 << 20)] = 32_768
    page_max: Annotated[int, About("Most messages in one page, and in one read of the store.", 1, 10_000)] = 1_000
    page_max_chars: Annotated[
        int,
        About(
            "Text in one page, in characters; it ends before the message over it. What a stalled reader costs.",
            1,
            1 << 28,
        ),
    ] = 262_144
    wait_max_s: Annotated[
        float, About("Longest long-poll, in seconds: under the idle limit of common proxies.", 0, 3600)
    ] = 60.0
    groups_per_user_max: Annotated[
        int, About("Groups a user may be in: each takes up to 22 characters of every cursor.", 1, 400)
    ] = 250
    blocks_per_user_max: Annotated[int, About("Users a user may block.", 1, 1_000_000)] = 10_000
    members_per_group_max: Annotated[int, About("Members of a group.", 1, 10_000_000)] = 100_000
    waits_per_user_max: Annotated[
        int, About("Long-polls and streams a user may hold at once: their devices.", 1, 1_000)
    ] = 10
    waits_max: Annotated[
        int, About("Long-polls and streams a process holds at once: about 20 KB of memory each.", 1, 1_000_000)
    ] = 50_000
    heartbeat_s: Annotated[
        float,
        About(
            "How often an idle stream shows that it lives, in seconds: under the 30 s of common proxies.", 0.05, 3600
        ),
    ] = 25.0
    mailbox_waiting_max: Annotated[
        int,
        About("Sends waiting for one mailbox, which takes 1,000 a second: a second's worth.", 1, 1_000_000),
    ] = 1_000
    writes_waiting_max: Annotated[int, About("Writes waiting for the store in one process.", 1, 1_000_000)] = 10_000
    write_wait_s: Annotated[
        float,
        About(
            "Longest wait for the store to take a write, in seconds; then the answer is 503, outcome unknown.", 0.1, 600
        ),
    ] = 10.0
    read_wait_s: Annotated[
        float,
        About(
            "Longest that one call waits for all that it reads of the store, in seconds; then the answer is 503.",
            0.1,
            600,
        ),
    ] = 10.0
    cold_reads_max: Annotated[int, About("Reads of the store at a time in one process.", 1, 64)] = 4
    cold_reads_waiting_max: Annotated[
        int,
        About(
            "Reads waiting for their turn. 0 is a second's worth: 1,000 on SQLite, at 1 ms a read; "
            "on DynamoDB, at 40 ms, 25 for each of the reads at a time.",
            0,
            1_000_000,
        ),
    ] = 0

    tail_window_s: Annotated[
        float,
        About("How long recent messages stay in memory, in seconds: polls once a minute, and some.", 0, 86_400),
    ] = 600.0
    tail_max_bytes: Annotated[int, About("Memory for recent messages in one process, in bytes.", 0, 1 << 36)] = (
        67_108_864
    )
    directory_max_users: Annotated[
        int,
        About(
            "Users with their memberships kept in memory by one process: 0.5 KB each in two groups, and their heads.",
            1,
            100_000_000,
        ),
    ] = 200_000
    directory_max_heads: Annotated[
        int,
        About(
            "Mailbox heads kept in memory by one process, 0.25 KB each: a user's own and some groups.", 1, 100_000_000
        ),
    ] = 600_000
    feed_look_s: Annotated[
        float, About("How often a process looks for commits it was not woken for, in seconds.", 0.001, 10)
    ] = 0.1
    news_kept_s: Annotated[
        float,
        About(
            "How long change rows and idempotency keys are kept, in seconds; twice the 24 h promised.",
            86_400,
            1e9,
        ),
    ] = 172_800.0
    retention_days: Annotated[
        int,
        About(
            "Days that messages are kept on a dynamodb store; tidings store init must be told the same. 0: for ever.",
            0,
            36_500,
        ),
    ] = 0
    index_lag_max: Annotated[
        int,
        About(
            "Newest messages that the index of mailboxes may lack: more, and sends cost less, reads of the store more.",
            0,
            10_000,
        ),
    ] = 500
    keep_alive_s: Annotated[
        float,
        About("How long an idle connection is kept, in seconds: over the minute between two polls.", 1, 3600),
    ] = 75.0
    grace_s: Annotated[
        float,
        About("Time for what is in flight at SIGTERM, in seconds: under the 30 s of most supervisors.", 0.1, 600),
    ] = 20.0

    log_format: Annotated[str, About("How the log on stderr is written: text for people, json for programs.")] = "text"
    log_level: Annotated[
        str, About("What the log holds: debug, info (start and stop, too), warning (what is odd), or error.")
    ] = "info"
    slow_call_s: Annotated[
        float,
        About("Calls that take longer are logged, in seconds, waiting for news not counted.", 0.001, 3600),
    ] = 1.0

    def __post_init__(self) -> None:
        for name, (_, about) in described().items():
            value = getattr(self, name)
            if about.least is None or about.most is None:
                continue
            if not about.least <= value <= about.most:  # also catches nan
                flag = name.replace("_", "-")
                raise StartError(f"--{flag} must be between {about.least:g} and {about.most:g}, not {value:g}")
        for name, choices in (("log_format", FORMATS), ("log_level", LEVELS)):
            if getattr(self, name) not in choices:
                raise StartError(f"--{name.replace('_', '-')} must be one of {', '.join(choices)}")
        if not self.host:
            raise StartError("--host must name an address; 0.0.0.0 stands for all of them")
        self._check_places()
        if self.message_max_bytes > self.body_max_bytes:
            raise StartError("--message-max-bytes can't be more than --body-max-bytes")

    @property
    def is_embedded(self) -> bool:
        """Whether the store is a file of this machine, which is its own feed."""
        return self.store.startswith("sqlite:")

    @property
    def reads_waiting_max(self) -> int:
        """How many reads may wait for their turn. A call takes several, and `read_wait_s` is for all of them."""
        return self.cold_reads_waiting_max or (1_000 if self.is_embedded else 25 * self.cold_reads_max)

    def _check_places(self) -> None:
        """Raises StartError for a store or feed that can't be meant, or that do not go together."""
        if self.store.startswith("dynamodb://"):
            place = urlsplit(self.store)
            if not (place.netloc and _PREFIX.fullmatch(place.path)):
                raise StartError(f"--store must be dynamodb://REGION/PREFIX, not {self.store!r}")
            if not self.feed.startswith(("redis://", "rediss://")):
                raise StartError("--store dynamodb:// needs a --feed redis://HOST:PORT/DB, over which its nodes speak")
            if self.workers > 1:
                raise StartError("--workers is for a SQLite store; on dynamodb, run one node for each core")
        elif not self.store.startswith("sqlite:///") or self.store == "sqlite:///":
            where = "sqlite:///relative/path, sqlite:////absolute/path or dynamodb://REGION/PREFIX"
            raise StartError(f"--store must be {where}, not {self.store!r}")
        elif self.feed:
            raise StartError("--feed is for --store dynamodb://; a SQLite store is its own feed")
        elif self.retention_days:
            raise StartError("--retention-days is for --store dynamodb://; a SQLite store keeps all messages")
        if self.retention_days and self.retention_days * 86_400 < self.news_kept_s:
            raise StartError("--retention-days can't be less than idempotency keys are kept, --news-kept-s")


def described() -> dict[str, tuple[Any, About]]:
    """Each setting's type and description, by name, in the order they are declared."""
    hints = get_type_hints(Settings, include_extras=True)
    return {f.name: (hints[f.name].__origin__, hints[f.name].__metadata__[0]) for f in fields(Settings)}
