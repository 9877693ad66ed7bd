"""The bench of nodes: what it would measure in silence though it is not so, what it lacks, and one short run of it."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import calls
from bench.insider import Ear
from bench.processes import Failed
from bench.report import read
from bench.scenes import SCENES
from bench.scenes.news import check_applied
from bench.scenes.nodes import check_calls
from bench.seed import TEXT
from tests.backends import DynamoPlace, gather_group, private, sign_up, to_group
from tests.clustered import skip_without_programs
from tests.standin import endpoint
from tests.standin.between import Between
from tidings.model import Message, Posted, own
from tidings.store import Uncounted
from tidings.store.dynamodb import DynamoStore
from tidings.store.dynamodb.address import address_of
from tidings.store.dynamodb.driver import connected

pytest_plugins = ("tests.opened", "tests.standin.opened")

OF_NODES = [name for name in SCENES if name.startswith("nodes-")]


def _shape(value: Any) -> Any:
    """A request without what differs from one to the next: the length of each text in its place."""
    if isinstance(value, dict):
        return {name: _shape(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_shape(part) for part in value]
    return len(value) if isinstance(value, str) else value


@pytest.mark.anyio
@pytest.mark.parametrize("is_group", [False, True])
async def test_the_calls_beside_a_send_are_those_that_it_makes(
    tables: DynamoPlace, here: DynamoStore, door: Between, is_group: bool
) -> None:
    """What a send is held against is what it asks of the tables: as many calls, in their order, kind and size."""
    ann, bob = await sign_up(here, "ann"), await sign_up(here, "bob")
    group = await gather_group(here, ann)
    said: list[tuple[str, Any]] = []
    door.fault = lambda talk: said.append((talk.operation, _shape(talk.request)))
    for _ in range(2):  # by the second one it knows everybody
        said.clear()
        await here.send(to_group(ann, group, TEXT) if is_group else private(ann, bob, TEXT))
    sent = said[:]
    through = f"dynamodb://eu-central-1/{tables.prefix}?endpoint={door.url}"
    async with connected(address_of(through), Uncounted()) as driver:
        told = await calls.answer(driver, calls.Ask(through, 1, is_group))
    assert said[-len(sent) :] == sent
    assert len(told.calls) == len(sent) == 2


def test_calls_that_a_send_should_not_make_are_noticed() -> None:
    """One call more or less for each send, and no figure is made of it; a node's own looks are borne."""
    before, named = {"get_item": 5.0, "put_item": 1.0}, ("get_item", "put_item")
    check_calls(before, {"get_item": 106.0, "put_item": 101.0}, named, 100)
    for more in ({"get_item": 104.0, "put_item": 101.0}, {"get_item": 105.0, "put_item": 102.0}, {"put_item": 101.0}):
        with pytest.raises(Failed, match="100 sends should make 100 calls"):
            check_calls(before, more, named, 100)


def test_changes_that_were_skipped_are_not_counted_as_applied() -> None:
    """A node that began anew, or is not as far as it was told, has not applied what there was."""
    before = {"tidings_feed_position": 10.0, "tidings_feed_resets_total": 1.0}
    check_applied(before, {"tidings_feed_position": 110.0, "tidings_feed_resets_total": 1.0}, 100)
    for position, resets in ((110.0, 2.0), (109.0, 1.0)):
        with pytest.raises(Failed, match="100 changes were told"):
            check_applied(before, {"tidings_feed_position": position, "tidings_feed_resets_total": resets}, 100)


def test_news_that_comes_twice_or_is_lost_is_no_figure() -> None:
    """Who listens says so if a message came twice, or news may be missing."""
    message = Message("ann", f"{7:016x} and more", "bob", "1", "message-1", 1)
    news = [(own("bob"), 1, Posted(1, own("bob"), message, 0))]

    async def heard() -> None:
        ear = Ear()
        ear.take(news, 1)
        assert (list(ear.heard), ear.wrong) == ([7], "")
        ear.take(news, 1)
        assert "came twice" in ear.wrong
        ear.lost()
        assert "lost" in ear.wrong

    asyncio.run(heard())


def test_what_the_machine_lacks_is_said(tmp_path: Path) -> None:
    """Without a redis-server the scenes of nodes are skipped by name, with the reason; that is no failure."""
    git = shutil.which("git")
    assert git
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "git").symlink_to(git)
    found = shutil.which("redis-server", path="/usr/sbin:/usr/local/sbin")
    if found:
        pytest.skip(f"{found} is found whatever PATH says")
    done = _bench(tmp_path, "nodes-lag", "nodes-apply", env={**os.environ, "PATH": str(programs)})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("skipped: there is no redis-server") == 2
    (kept,) = tmp_path.glob("*.json")
    record = read(kept)
    assert (list(record.skipped), list(record.findings), dict(record.failed)) == (["nodes-lag", "nodes-apply"], [], {})
    shown = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--markdown", "--results", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "| nodes-lag | not measured | | | skipped | there is no redis-server" in shown


@pytest.mark.slow
def test_the_scenes_of_nodes_run_from_end_to_end(tmp_path: Path) -> None:
    """Each gives its figures, from real nodes on real servers; for hot polls no store is asked."""
    skip_without_programs()
    endpoint()  # or skip
    done = _bench(tmp_path, *OF_NODES)
    assert done.returncode == 0, done.stdout + done.stderr
    (kept,) = tmp_path.glob("*.json")
    record = read(kept)
    assert {finding.scene for finding in record.findings} == {*OF_NODES}
    assert all(finding.value > 0 for finding in record.findings if finding.unit not in ("", "ms"))
    (asked,) = [f for f in record.findings if f.name == "store calls in hot polls of a node"]
    assert asked.verdict == "met"
    assert "read back at both without a hole" in done.stdout


def _bench(results: Path, *scenes: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    only = [part for name in scenes for part in ("--only", name)]
    command = [sys.executable, "-m", "bench", "--quick", *only, "--results", str(results)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=env)
