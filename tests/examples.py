"""The examples of our pages: commands that a reader pastes, and the answers shown behind them."""

import json
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.pages import SHOWN, Fence, fences, surroundings
from tests.shell import on_a_terminal, plain

# bash and python blocks are run, and a json or text block behind one shows what it prints.
RUN = {"bash", "python"}
ANSWERS = {"json", "text"}

ID = re.compile(r"(user|group|message)-[0-9a-f]{28}")
CURSOR = re.compile(r"[A-Za-z0-9_-]{40,}")
SHORT_ID = re.compile(r"#[0-9a-f]{4}\b")
TIMESTAMP = re.compile(r"[0-9]{13}")
NUMBER = re.compile(r"\b[0-9]+(\.[0-9]+)?\b")


@dataclass(frozen=True)
class Scene:
    """Commands of a page, and the block that shows what they print, if they print anything."""

    commands: Fence
    shown: Fence | None


def scenes(page: Path) -> list[Scene]:
    """A page's commands, each with the answer behind it."""
    blocks = fences(page)
    after = dict(zip(blocks, [*blocks[1:], None], strict=False))
    found = []
    for block in blocks:
        if block.language in RUN:
            answer = after[block]
            found.append(Scene(block, answer if answer and answer.language in ANSWERS else None))
    return found


def paste(told: list[Scene], url: str, home: Path) -> list[str]:
    """What each of a page's commands prints, run by one shell at a terminal, as if pasted one after the other.

    `python` and `tidings` are those of the environment that was installed, and the latter's server is the one at `url`;
    a program is run where it stands.
    """
    here = surroundings(home)
    surrounded = {
        **here,
        "PATH": f"{Path(sys.executable).parent}:{here['PATH']}",
        "TIDINGS_URL": url,
        "COLUMNS": "120",
        "TERM": "xterm",
    }
    script = f"cd {shlex.quote(str(home))}; exec 2>said; trap 'echo $? >ended' EXIT; set -eo pipefail\n"
    script += "".join(f"printf '\\036'\n{_pasted(scene.commands)}" for scene in told)
    seen = on_a_terminal(["bash", "-c", script.replace(SHOWN, url)], surrounded, within_s=120)
    printed = plain(seen).split("\036")[1:]
    code, said = (home / "ended").read_text().strip(), (home / "said").read_text()
    assert code == "0", f"{told[len(printed) - 1].commands} ends with {code}: {said}"
    assert not said, said
    return printed


def _pasted(block: Fence) -> str:
    return block.text if block.language == "bash" else f"python -W error -c {shlex.quote(block.text)}\n"


class Unlike(AssertionError):
    """An answer is not what the page shows."""


class Names:
    """Ids and timestamps differ from run to run: each one shown must stand for one received, and back."""

    def __init__(self) -> None:
        self._received: dict[str, str] = {}
        self._shown: dict[str, str] = {}

    def compare(self, shown: Any, received: Any, where: str = "") -> None:
        """Raises Unlike where two answers differ in more than ids, timestamps and cursors."""
        if isinstance(shown, dict) and isinstance(received, dict):
            if list(shown) != list(received):
                raise Unlike(f"{where}: {list(shown)} is shown, {list(received)} received")
            for key in shown:
                self.compare(shown[key], received[key], f"{where}.{key}")
        elif isinstance(shown, list) and isinstance(received, list) and len(shown) == len(received):
            for index, pair in enumerate(zip(shown, received, strict=True)):
                self.compare(*pair, f"{where}[{index}]")
        elif where.endswith(".cursor") and CURSOR.fullmatch(shown) and CURSOR.fullmatch(received):
            return
        elif _kind(shown) != _kind(received) or (_kind(shown) == "" and shown != received):
            raise Unlike(f"{where}: {shown!r} is shown, {received!r} received")
        elif _kind(shown):
            pair = (self._received.setdefault(shown, received), self._shown.setdefault(received, shown))
            if pair != (received, shown):
                raise Unlike(f"{where}: {shown} stands for {pair[0]} elsewhere, here for {received}")


def _kind(value: object) -> str:
    """What a value is if it differs from run to run, else nothing."""
    if isinstance(value, str):
        found = ID.fullmatch(value)
        return found[1] if found else "timestamp" if TIMESTAMP.fullmatch(value) else ""
    return ""


def documents(text: str) -> list[Any]:
    """The JSON documents that stand one after the other in a text."""
    decoder, found, text = json.JSONDecoder(), [], text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:].strip()
    return found


def compare(scene: Scene, printed: str, names: Names) -> None:
    """Fail if a scene printed anything but what the page shows."""
    if scene.shown is None:
        assert not printed.strip(), f"{scene.commands} prints what the page does not show: {printed}"
    elif scene.shown.language == "json":
        try:
            shown, received = documents(scene.shown.text), documents(printed)
        except ValueError:
            pytest.fail(f"{scene.commands} printed no JSON, but: {printed}")
        names.compare(shown, received, str(scene.shown))
    else:
        assert _likeness(printed) == _likeness(scene.shown.text), str(scene.shown)


def _likeness(text: str) -> str:
    """A text without what differs from run to run: ids, whole or short, cursors and numbers."""
    text = CURSOR.sub("cursor", SHORT_ID.sub("#id", ID.sub(r"\1-id", text)))
    return "\n".join(line.rstrip() for line in NUMBER.sub("N", text.strip()).splitlines())
