"""docs/running.md keeps its word: its units are sound, its metrics and events are those that the program has."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.pages import ROOT, codes, fences, rows
from tests.server import ServerProcess
from tidings.cli.flags import check_variables
from tidings.config import Settings

PAGE = ROOT / "docs" / "running.md"
UNITS = {
    block.text.partition("\n")[0].removeprefix("# "): block.text
    for block in fences(PAGE)
    if block.text.startswith("# tidings")
}
COMMAND = "/opt/tidings/.venv/bin/tidings"


def test_the_units_are_sound(tmp_path: Path) -> None:
    """systemd itself finds nothing to say about the units, once the program is where they look for it."""
    assert [*UNITS] == ["tidings.service", "tidings-backup.service", "tidings-backup.timer"]
    analyze = shutil.which("systemd-analyze")
    for name, text in UNITS.items():
        (tmp_path / name).write_text(text.replace(COMMAND, str(Path(sys.executable).with_name("tidings"))))
        assert re.findall(r"ExecStart=(\S+) (\w+)", text) in ([(COMMAND, "serve")], [(COMMAND, "backup")], [])
    if analyze is not None:  # else the other tests of this page must do
        files = [str(tmp_path / name) for name in UNITS]
        done = subprocess.run([analyze, "verify", *files], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert not any(str(tmp_path) in line for line in done.stderr.splitlines()), done.stderr


def test_the_service_s_settings_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that the unit sets are settings, with values that are taken; the stop waits out the grace time."""
    chosen = dict(re.findall(r"^Environment=(TIDINGS_\w+)=(\S+)$", UNITS["tidings.service"], re.MULTILINE))
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    check_variables()
    settings = Settings(**{name.removeprefix("TIDINGS_").lower(): value for name, value in chosen.items()})
    found = re.search(r"^TimeoutStopSec=(\d+)$", UNITS["tidings.service"], re.MULTILINE)
    assert found
    assert float(found[1]) > settings.grace_s


def test_what_to_watch_is_there(server: ServerProcess) -> None:
    """Each metric that the page names is one of those that the server gives."""
    given = httpx.get(f"{server.url}/metrics").text
    named = {code for code in codes(PAGE) if re.fullmatch(r"tidings_\w+", code)}
    assert named
    for name in named:
        assert re.search(rf"^# TYPE {name.removesuffix('_total')}(_total)? ", given, re.MULTILINE), name


def test_the_events_are_all_explained() -> None:
    """The table of events has each event that the source tells of, and no other."""
    source = "".join(path.read_text() for path in (ROOT / "src" / "tidings").rglob("*.py"))
    told = {*re.findall(r'tell\(\s*log,\s*[\w.]+,\s*"(\w+)"', source), *re.findall(r'"?event"?[:=] ?"(\w+)"', source)}
    told |= {
        f"{code}_{end}"
        for code in ("store_full", "store_corrupt", "store_unavailable", "store_closed")
        for end in ("began", "ended")
    }
    shown = {name for row in rows(PAGE, "## The log") for name in re.findall(r"`(\w+)`", row[0])}
    assert shown == told | {"fault", "note"}
