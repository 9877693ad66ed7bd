"""`tidings check-history` judges a file as `python -m tidings.history` does, for people and for programs."""

from pathlib import Path

import pytest

from tests.pages import ROOT, fences
from tests.shell import Run, Shell
from tidings.history.__main__ import main

SHOWN = next(block.text for block in fences(ROOT / "docs" / "testing.md") if block.language == "json")


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """The history of docs/testing.md, in which a message is lost."""
    (tmp_path / "history.jsonl").write_text(SHOWN)
    return tmp_path / "history.jsonl"


def test_the_same_judgement(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Same words, same exit code, for a history with a fault and for one without."""
    for text, code in ((SHOWN, 1), ("".join(SHOWN.splitlines(keepends=True)[:1]), 0)):
        history.write_text(text)
        assert main([str(history)]) == code
        assert Shell().run("check-history", history) == Run(code, capsys.readouterr().out, "")


def test_for_programs(history: Path) -> None:
    """As JSON: what was counted, and each anomaly with its events, which are lines of the file."""
    run = Shell().run("check-history", history, "--json")
    assert run.returncode == 1
    assert '"anomalies":[{"kind":"lost"' in run.stdout
    assert '"events":[2,4]' in run.stdout
    history.write_text("".join(SHOWN.splitlines(keepends=True)[:1]))
    told = Shell().json("check-history", history)
    assert told["anomalies"] == []
    assert told["counts"]["sends"] == 1


def test_what_is_no_history(tmp_path: Path) -> None:
    """No file, or no history in it, is one line and exit code 2."""
    (tmp_path / "diary").write_text("Dear diary,\n")
    Shell().refused("check-history", tmp_path / "diary", code=2)
    Shell().refused("check-history", tmp_path / "nothing", code=2)
