"""Looks a store over in one snapshot, while it is served or not; finds what no run of Tidings leaves behind."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import apsw

from tidings.errors import UpkeepError
from tidings.store.ledger import Ledger
from tidings.store.sqlite.backup import identify, reading
from tidings.store.sqlite.file import SCHEMA_VERSION
from tidings.store.sqlite.rules import BACKUP, EDITED, RULES, Rule
from tidings.store.sqlite.walk import PLACES, Row, Tally, Walk, worded
from tidings.store.upkeep import Examination, Step

_COMMIT_MAX = 10_000  # mailboxes remembered of one timestamp: far more than a commit has
_TABLES = ("messages", "users", "groups", "memberships", "blocks", "keys")

_LOG = """
SELECT position, timestamp, mailbox, seq, CASE WHEN sent_seq IS NOT NULL THEN 's' || sender END, sent_seq FROM messages
UNION ALL SELECT position, timestamp, NULL, NULL, NULL, NULL FROM alterations ORDER BY 1
"""


def examine(path: Path, on_step: Step) -> Examination:
    """See `tidings.store.upkeep`."""
    ledger = Ledger()
    rows: dict[str, int] = {}
    looked_for: list[str] = []
    with closing(reading(path)) as db:
        db.execute("PRAGMA temp_store=FILE").fetchall()  # sorting a whole log may take more memory than there is
        db.execute("BEGIN").fetchall()
        try:
            identify(db, path)
        except UpkeepError as error:
            ledger.add("foreign", "this is not a store that this Tidings knows", "See the reason.", str(error))
            return Examination(str(path), {}, ("foreign",), ledger.findings())
        for kinds, step in _steps(db, ledger):
            on_step(kinds[0])
            looked_for += kinds
            _try(kinds[0], step, ledger)
        if "log" in looked_for:
            _try("rows", lambda: rows.update(_count(db)), ledger)
    return Examination(str(path), rows, tuple(looked_for), ledger.findings())


def _steps(db: apsw.Connection, ledger: Ledger) -> list[tuple[tuple[str, ...], Callable[[], None]]]:
    """What is to be looked for; of a file of an older version, damage alone."""
    damage = (("damage",), partial(_look_for_damage, db, ledger))
    if db.execute("PRAGMA user_version").get < SCHEMA_VERSION:
        return [damage, (("version",), partial(_tell_version, db, ledger))]
    look = _Look(db, ledger)
    return [
        damage,
        (("schema",), partial(_compare_schema, db, ledger)),
        (("clock",), look.read_clock),
        (("log",), look.follow_log),
        (("places", "hole", "order", "twice"), look.walk),
        *(((rule.kind,), partial(look.apply, rule)) for rule in RULES),
    ]


def _tell_version(db: apsw.Connection, ledger: Ledger) -> None:
    version = db.execute("PRAGMA user_version").get
    what = "an older version of Tidings made this store: only damage was looked for"
    advice = "Start the server on it once, which brings it forward (keep a backup); then look again."
    ledger.add("version", what, advice, f"schema version {version}; this Tidings has {SCHEMA_VERSION}")


def _try(name: str, step: Callable[[], None], ledger: Ledger) -> None:
    """A step that can't be done for damage is a finding, and the others go on."""
    try:
        step()
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, apsw.IOError) as error:
        ledger.add("damage", "the file is damaged", BACKUP, f"{name}: {error}")
    except TypeError:  # SQLite keeps whatever a column was given by hand
        ledger.add("damage", "the file is damaged", BACKUP, f"{name}: text stands where a number should, or none")


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


class _Look:
    """What is followed from end to end, each step knowing what those before it saw."""

    def __init__(self, db: apsw.Connection, ledger: Ledger) -> None:
        self._db = db
        self._ledger = ledger
        self._placed = 0  # up to where messages must have their places
        self._right = Tally()  # the places that there must be
        self._empty = 0  # positions without a change
        self._unplaced = 0  # after this position, `places` need not have what the log has

    def read_clock(self) -> None:
        """The clock stands where the log ends, and not before it: or numbers would be given out twice."""
        db, add = self._db, self._ledger.add
        what, advice = "the store's clock does not fit its log: numbers could be given out twice", EDITED
        self._placed = db.execute("SELECT max(position) FROM places").get or 0  # if the clock can't be believed
        clock = db.execute("SELECT position, timestamp, forgotten, placed FROM clock").get
        if clock is None or db.execute("SELECT generation FROM history").get is None:
            add("clock", what, advice, "the clock or the generation is missing")
            return
        position, timestamp, forgotten, placed = clock
        for table in ("messages", "alterations"):
            last = db.execute(f"SELECT max(position), max(timestamp) FROM {table}").get  # noqa: S608  # a name of ours
            if (last[0] or 0) > position:
                add("clock", what, advice, f"it stands at position {position}, and {table} reach {last[0]}")
            elif (last[1] or 0) > timestamp:
                add("clock", what, advice, f"it stands at timestamp {timestamp}, and {table} reach {last[1]}")
        if not 0 <= forgotten <= position:
            add("clock", what, advice, f"news is forgotten up to {forgotten}, of {position}")
        if not 0 <= placed <= position:
            add("places", PLACES, advice, f"they are said to be made up to position {placed}, of {position}")
        else:
            self._placed = placed

    def follow_log(self) -> None:
        """Along the positions, timestamps never go back, and a commit has at most one message of each mailbox.

        With seqs in the order of positions ("order") that is: timestamps strictly increase along every mailbox.
        """
        clock = self._db.execute("SELECT position, forgotten FROM clock").get
        last, forgotten = clock or (0, 0)
        before, time, empty = forgotten, 0, 0
        taken: set[str] = set()
        rows: Iterable[Any] = self._db.execute(_LOG)
        for position, timestamp, *places in rows:
            if position == before:
                what = "one position was given to two changes"
                self._ledger.add("position", what, EDITED, f"position {position}")
            if position > before:
                empty += position - before - 1
                before = position
            if timestamp < time:
                what = "timestamps go back: readers by timestamp can miss messages"
                self._ledger.add("timestamps", what, EDITED, f"position {position}: {timestamp} after {time}")
            if timestamp != time or len(taken) > _COMMIT_MAX:
                time = timestamp
                taken.clear()
            mailbox, seq, copies, sent_seq = places
            if mailbox is not None:
                self._take((mailbox, seq, position), taken)
            if copies is not None:
                self._take((copies, sent_seq, position), taken)
        self._empty = empty + max(0, last - before)

    def _take(self, row: Row, taken: set[str]) -> None:
        mailbox, _, position = row
        if mailbox in taken:
            what = "two messages of one mailbox in one commit: they have the same timestamp"
            self._ledger.add("commit", what, EDITED, f"position {position}, {worded(mailbox)}")
        taken.add(mailbox)
        if position <= self._placed:
            self._right.add(row)

    def walk(self) -> None:
        """Along the mailboxes. Positions without a change are what is gone, and holes must explain as many."""
        walk = Walk(self._db, self._placed, self._right)
        walk.along(self._ledger)
        self._unplaced = self._placed if walk.is_placed else 0
        if self._empty <= walk.missing or self._db.execute("SELECT 1 FROM trimmed LIMIT 1").get:
            return
        gone = self._empty - walk.missing
        what = "changes are missing from the log: the last messages of a mailbox, or news of users"
        self._ledger.add("gap", what, BACKUP, f"{gone} positions", gone)

    def apply(self, rule: Rule) -> None:
        """Look for what a rule's query finds."""
        rows: Iterable[Any] = self._db.execute(rule.query, {"unplaced": self._unplaced})
        for (example,) in rows:
            self._ledger.add(rule.kind, rule.what, rule.advice, str(example))
