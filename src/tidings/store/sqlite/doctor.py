"""Looks a store over in one snapshot, while it is served or not; finds what no run of Tidings leaves behind."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import apsw

from tidings.errors import UpkeepError
from tidings.store.sqlite.backup import identify, reading
from tidings.store.sqlite.rules import BACKUP, EDITED, LOGS, MAILBOXES, RULES, shown
from tidings.store.upkeep import Examination, Finding, Step

_SHOWN = 5  # examples of a fault
_COMMIT_MAX = 10_000  # mailboxes remembered of one timestamp: far more than a commit has
_TABLES = ("messages", "users", "groups", "memberships", "blocks", "keys")

_LOG = """
SELECT position, timestamp, mailbox, CASE WHEN sent_seq IS NOT NULL THEN 's' || sender END FROM messages
UNION ALL SELECT position, timestamp, NULL, NULL FROM alterations ORDER BY 1
"""


class Ledger:
    """What was found so far."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, str, int, list[str]]] = {}

    def add(self, kind: str, what: str, advice: str, example: str, count: int = 1) -> None:
        """One more place with a fault of a kind."""
        _, _, before, examples = self._found.get(kind, ("", "", 0, []))
        if len(examples) < _SHOWN:
            examples.append(example)
        self._found[kind] = (what, advice, before + count, examples)

    def findings(self) -> tuple[Finding, ...]:
        """All of it."""
        return tuple(
            Finding(kind, what, count, tuple(examples), advice)
            for kind, (what, advice, count, examples) in self._found.items()
        )


def examine(path: Path, on_step: Step) -> Examination:
    """See `tidings.store.upkeep`."""
    ledger = Ledger()
    steps: list[tuple[str, Callable[[apsw.Connection, Ledger], None]]] = [
        ("damage", _look_for_damage),
        ("schema", _compare_schema),
        ("clock", _read_clock),
        ("log", _follow_log),
        ("hole", _look_for_holes),
        *((rule.kind, _applying(*rule)) for rule in RULES),
    ]
    rows: dict[str, int] = {}
    with closing(reading(path)) as db:
        db.execute("PRAGMA temp_store=MEMORY").fetchall()
        db.execute("BEGIN").fetchall()
        try:
            identify(db, path)
        except UpkeepError as error:
            ledger.add("foreign", "this is not a store that this Tidings knows", "See the reason.", str(error))
            return Examination(str(path), {}, ("foreign",), ledger.findings())
        for name, step in steps:
            on_step(name)
            _try(name, step, db, ledger)
        _try("rows", lambda db, _: rows.update(_count(db)), db, ledger)
    return Examination(str(path), rows, tuple(name for name, _ in steps), ledger.findings())


def _try(name: str, step: Callable[[apsw.Connection, Ledger], None], db: apsw.Connection, ledger: Ledger) -> None:
    """A step that can't be done for damage is a finding, and the others go on."""
    try:
        step(db, ledger)
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, apsw.IOError) as error:
        ledger.add("damage", "the file is damaged", BACKUP, f"{name}: {error}")


def _count(db: apsw.Connection) -> Iterator[tuple[str, int]]:
    for table in _TABLES:
        yield table, int(db.execute(f"SELECT count(*) FROM {table}").get)  # noqa: S608  # a name of ours


def _look_for_damage(db: apsw.Connection, ledger: Ledger) -> None:
    for (problem,) in db.execute("PRAGMA integrity_check"):
        if problem != "ok":
            for line in str(problem).splitlines():
                ledger.add("damage", "the file is damaged", BACKUP, line)


def _compare_schema(db: apsw.Connection, ledger: Ledger) -> None:
    """Tables and indexes are those that this version makes."""
    with closing(apsw.Connection(":memory:")) as right:
        for _ in right.execute(files("tidings.store.sqlite").joinpath("schema.sql").read_text()):
            pass
        query = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
        expected, there = dict(right.execute(query)), dict(db.execute(query))
    for name in sorted({*expected, *there}):
        if expected.get(name) != there.get(name):
            how = "is missing" if name not in there else "is no part of it" if name not in expected else "is another"
            ledger.add("schema", "tables or indexes are not those of this version", EDITED, f"{name} {how}")


def _read_clock(db: apsw.Connection, ledger: Ledger) -> None:
    """The clock stands where the log ends, and not before it: or numbers would be given out twice."""
    what, advice = "the store's clock does not fit its log: numbers could be given out twice", EDITED
    clock = db.execute("SELECT position, timestamp, forgotten FROM clock").get
    if clock is None or db.execute("SELECT generation FROM history").get is None:
        ledger.add("clock", what, advice, "the clock or the generation is missing")
        return
    position, timestamp, forgotten = clock
    for table in ("messages", "alterations"):
        last = db.execute(f"SELECT max(position), max(timestamp) FROM {table}").get  # noqa: S608  # a name of ours
        if (last[0] or 0) > position:
            ledger.add("clock", what, advice, f"it stands at position {position}, and {table} reach {last[0]}")
        elif (last[1] or 0) > timestamp:
            ledger.add("clock", what, advice, f"it stands at timestamp {timestamp}, and {table} reach {last[1]}")
    if not 0 <= forgotten <= position:
        ledger.add("clock", what, advice, f"news is forgotten up to {forgotten}, of {position}")


def _follow_log(db: apsw.Connection, ledger: Ledger) -> None:
    """Along the positions, timestamps never go back, and a commit has at most one message of each mailbox.

    With seqs in the order of positions ("order") that is: timestamps strictly increase along every mailbox.
    """
    clock = db.execute("SELECT position, forgotten FROM clock").get
    last, forgotten = clock or (0, 0)
    before, time, empty = forgotten, 0, 0
    taken: set[str] = set()
    for position, timestamp, mailbox, copies in db.execute(_LOG):
        if position == before:
            ledger.add("position", "one position was given to two changes", EDITED, f"position {position}")
        if position > before:
            empty += position - before - 1
            before = position
        if timestamp < time:
            what = "timestamps go back: readers by timestamp can miss messages"
            ledger.add("timestamps", what, EDITED, f"position {position}: {timestamp} after {time}")
        if timestamp != time or len(taken) > _COMMIT_MAX:
            time = timestamp
            taken.clear()
        for name in (mailbox, copies) if mailbox else ():
            if name is not None and name in taken:
                what = "two messages of one mailbox in one commit: they have the same timestamp"
                ledger.add("commit", what, EDITED, f"position {position}, {_worded(name)}")
            taken.add(name)
    _compare_gaps(db, empty + max(0, last - before), ledger)


def _worded(mailbox: str) -> str:
    return f"the {'copies' if mailbox[0] == 's' else 'mailbox'} of {mailbox[1:]}"


def _compare_gaps(db: apsw.Connection, empty: int, ledger: Ledger) -> None:
    """Positions without a change are messages or news that are gone; holes in mailboxes explain as many."""
    if not empty or db.execute("SELECT 1 FROM trimmed LIMIT 1").get:
        return
    holes = db.execute(f"SELECT sum(high - found) FROM ({MAILBOXES}) WHERE substr(mailbox, 1, 1) != 's'").get or 0  # noqa: S608
    if empty > holes:
        what = "changes are missing from the log: the last messages of a mailbox, or news of users"
        ledger.add("gap", what, BACKUP, f"{empty - holes} positions", empty - holes)


def _look_for_holes(db: apsw.Connection, ledger: Ledger) -> None:
    """Seqs are 1, 2, 3, ... but for the first ones, which may be noted as kept no more."""
    query = f"SELECT mailbox, {shown('mailbox')}, low, high, found, gone FROM ({MAILBOXES})"  # noqa: S608  # names of ours
    for mailbox, name, low, high, found, gone in db.execute(f"{query} WHERE low > gone AND found != high - gone"):
        first = gone + 1 if low > gone + 1 else _first_missing(db, mailbox)
        what = "messages that were given out are not there"
        ledger.add("hole", what, BACKUP, f"{name}: {high - gone - found} of seq {gone + 1} to {high}, first {first}")


def _first_missing(db: apsw.Connection, mailbox: str) -> int:
    index, owner, number, _ = LOGS[mailbox[0] == "s"]
    rows = db.cursor().execute(
        f"SELECT {number} FROM messages INDEXED BY {index} WHERE {owner} = ? AND {number} > 0 ORDER BY {number}",  # noqa: S608
        (mailbox[1:] if mailbox[0] == "s" else mailbox,),
    )
    expected = 0
    for (seq,) in rows:
        if expected and seq != expected:
            break
        expected = seq + 1
    return expected


def _applying(kind: str, what: str, advice: str, query: str) -> Callable[[apsw.Connection, Ledger], None]:
    def step(db: apsw.Connection, ledger: Ledger) -> None:
        rows: Iterable[Any] = db.execute(query)
        for (example,) in rows:
            ledger.add(kind, what, advice, str(example))

    return step
