"""In CI nothing is passed over: what a run needs is installed, or the run fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SKIPPED = "import pytest\ndef test_passed(): pass\n@pytest.mark.skip\ndef test_skipped(): pass\n"


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_a_skipped_test_fails_a_run_of_ci(tmp_path: Path, ci: str, code: int) -> None:
    """With CI set, a run with a skipped test fails and says why; elsewhere it passes."""
    (tmp_path / "test_two.py").write_text(SKIPPED)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == code, ran.stdout
    assert "1 passed, 1 skipped" in ran.stdout
    assert ("CI is set, and 1 tests were skipped" in ran.stdout) == bool(ci)
