"""Every setting can be given in two ways, is explained in three places, and is refused in one line when wrong."""

import re
from pathlib import Path

import pytest

from tidings.cli import flag, main, variable
from tidings.config import About, Settings, described
from tidings.errors import StartError

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
UNITS = {"_s": "second", "_bytes": "byte", "_chars": "character"}

SETTINGS = [pytest.param(name, about, id=name) for name, (_, about) in described().items()]
BOUNDED = [pytest.param(name, about, id=name) for name, (_, about) in described().items() if about.most is not None]


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in described():
        monkeypatch.delenv(variable(name), raising=False)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which `tidings serve` is refused as wrongly asked for."""
    assert main(["serve", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(r"tidings: [^\n]+\n", shown.err), shown.err
    return shown.err


@pytest.mark.parametrize(("name", "about"), SETTINGS)
def test_help_explains_a_setting(
    name: str, about: About, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tidings serve --help` has each setting's flag, its words, its unit and its default, in 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["serve", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(len(line) <= 80 for line in shown.splitlines())
    start = shown.index(f"  {flag(name)} ")
    entry = "".join(re.split(r"\n  -", shown[start:])[0].split())  # without spaces, since it is wrapped anywhere
    assert "".join(about.text.split()) in entry
    assert "[default:" in entry
    for suffix, unit in UNITS.items():
        if name.endswith(suffix):
            assert unit in about.text


def test_the_page_of_settings_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/settings.md is what `tidings settings` prints, with every flag and variable."""
    assert main(["settings"]) == 0
    assert capsys.readouterr().out == PAGE.read_text(), "run: tidings settings > docs/settings.md"
    for name in described():
        assert f"| `{flag(name)}` | `{variable(name)}` |" in PAGE.read_text()


@pytest.mark.parametrize(("name", "about"), BOUNDED)
def test_a_number_out_of_bounds_is_refused(name: str, about: About, capsys: pytest.CaptureFixture[str]) -> None:
    """A flag below its least or above its most is refused, and the line says what would do."""
    assert about.least is not None
    assert about.most is not None
    assert flag(name) in refused(capsys, f"{flag(name)}={int(about.least) - 1}")
    assert f"between {about.least:g} and {about.most:g}" in refused(capsys, f"{flag(name)}={int(about.most) + 1}")


@pytest.mark.parametrize(("name", "about"), BOUNDED)
def test_a_variable_counts_like_its_flag(
    name: str, about: About, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong value in the environment is refused as on the command line."""
    monkeypatch.setenv(variable(name), "a lot")
    assert flag(name) in refused(capsys)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--port", "eighty"], "--port"),
        (["--store", "postgres://elsewhere"], "--store must be sqlite:///"),
        (["--store", "sqlite:///"], "--store must be sqlite:///"),
        (["--host", ""], "--host must name an address"),
        (["--grace-s", "nan"], "--grace-s must be between"),
        (["--message-max-bytes", "70000"], "--message-max-bytes can't be more than --body-max-bytes"),
        (["--prot", "80"], "--port"),
        (["now"], "unexpected extra argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_setting_is_refused_in_one_line(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can't be meant is refused before anything is touched, with the reason."""
    assert reason in refused(capsys, *arguments)


def test_a_misspelt_variable_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A TIDINGS_ variable that is no setting doesn't go unnoticed; the line names what was probably meant."""
    monkeypatch.setenv("TIDINGS_WAITMAX_S", "10")
    assert "TIDINGS_WAITMAX_S; did you mean TIDINGS_WAIT_MAX_S?" in refused(capsys)


def test_a_switch_is_no_number(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A yes-or-no setting is refused when the environment says neither."""
    monkeypatch.setenv("TIDINGS_SENT_COPIES", "perhaps")
    assert "--sent-copies" in refused(capsys)


def test_settings_made_in_code_are_checked_alike() -> None:
    """Bench and tests make Settings without the command line; the same bounds hold."""
    with pytest.raises(StartError, match="--page-max must be between 1 and 10000, not 0"):
        Settings(page_max=0)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """`tidings --version` prints name and number."""
    assert main(["--version"]) == 0
    assert re.fullmatch(r"tidings \d+\.\d+\.\d+\n", capsys.readouterr().out)
