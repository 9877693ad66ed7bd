"""What the server says of itself: status, metrics, docs."""

import base64
import hashlib
import re
from collections.abc import Iterator

import httpx
import pytest

from tests.api_client import Api
from tests.server import ServerProcess, until


@pytest.fixture(scope="module")
def api(server: ServerProcess) -> Iterator[Api]:
    with Api(server.url) as opened:
        yield opened


def value(text: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that bear these labels."""
    total = 0.0
    for line in text.splitlines():
        sample, _, number = line.rpartition(" ")
        if re.match(rf"{name}(\{{|$)", sample) and all(f'{key}="{label}"' in sample for key, label in labels.items()):
            total += float(number)
    return total


@pytest.mark.parametrize(("path", "status"), [("/", "ok"), ("/healthz", "ok"), ("/readyz", "ready")])
def test_it_says_how_it_is(api: Api, path: str, status: str) -> None:
    """A program that asks is told in JSON."""
    assert api.get(path).json() == {"status": status}


def test_calls_are_counted_by_route_method_and_status(api: Api) -> None:
    """Ann reads, reads what is not there, and calls no route: each is counted once, under its route's template."""
    ann = api.user("ann")
    route = "/v1/users/{userId}"
    before = api.get("/metrics").text
    api.get(f"/v1/users/{ann}")
    api.get("/v1/users/nobody")
    api.get(f"/v1/users/{ann}/nothing")
    after = api.get("/metrics").text

    def more(**labels: str) -> float:
        return value(after, "tidings_requests_total", **labels) - value(before, "tidings_requests_total", **labels)

    assert more(route=route, method="GET", status="200") == 1
    assert more(route=route, method="GET", status="404") == 1
    assert more(route="unknown") == 1
    assert ann not in after
    seconds = [value(text, "tidings_request_seconds_count", route=route) for text in (before, after)]
    assert seconds[1] - seconds[0] == 2


def test_a_poll_without_news_is_hot_and_asks_nothing_of_the_store(api: Api) -> None:
    """A hundred polls by an own cursor: counted hot, and the store is not called once."""
    ann = api.user("ann")
    api.private(ann, ann, "note")
    cursor = api.poll(ann)["cursor"]
    before = api.get("/metrics").text
    for _ in range(100):
        cursor = api.poll(ann, cursor=cursor)["cursor"]
    after = api.get("/metrics").text

    def more(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert more("tidings_polls_total", kind="hot", why="no_news") == 100
    assert more("tidings_polls_total", kind="cold") == 0
    assert more("tidings_store_calls_total") == 0
    assert more("tidings_requests_total", route="/v1/messages/{userId}", status="200") == 100


def test_a_poll_is_counted_once(api: Api) -> None:
    """The first poll of a user, of whom nothing is in memory, is one poll, and cold for want of the user."""
    ann = api.user("ann")
    before = api.get("/metrics").text
    api.poll(ann)
    after = api.get("/metrics").text

    def more(**labels: str) -> float:
        return value(after, "tidings_polls_total", **labels) - value(before, "tidings_polls_total", **labels)

    assert more() == more(kind="cold", why="user") == 1


def test_everything_promised_is_measured(api: Api) -> None:
    """Every name is there once something happened."""
    ann = api.user("ann")
    api.private(ann, ann, "note")
    api.poll(ann)
    text = api.get("/metrics").text
    for name in (
        *(
            "tidings_requests_total",
            "tidings_request_seconds_bucket",
            "tidings_polls_total",
            "tidings_store_calls_total",
        ),
        *("tidings_tail_messages", "tidings_tail_bytes", "tidings_directory_users", "tidings_directory_heads"),
        *("tidings_commit_batch_size_bucket",),
    ):
        assert value(text, name) > 0, name
    for name in ("tidings_waits", "tidings_writes_waiting", "tidings_freshness_checks_total"):
        assert re.search(rf"^{name} ", text, re.MULTILINE), name
    assert "_created" not in text


def test_all_workers_are_counted_whichever_is_asked(two_workers: ServerProcess) -> None:
    """Calls over many connections, spread over two workers: every scrape soon shows all of them, the gauges summed."""
    headers = {"Connection": "close"}
    for _ in range(40):
        assert httpx.get(f"{two_workers.url}/healthz", headers=headers).status_code == 200

    def counted() -> float:
        text = httpx.get(f"{two_workers.url}/metrics", headers=headers).text
        return value(text, "tidings_requests_total", route="/healthz")

    until(lambda: [counted() for _ in range(10)] == [40.0] * 10)


def test_the_docs_are_one_page_that_needs_nobody_else(api: Api) -> None:
    """No address of another host in it, and a policy under which only its own script and style run."""
    page = api.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"(src|href)=\"(?!/openapi\.json)", page.text)
    assert "//" not in re.sub(r"(?m)^\s*//.*$", "", page.text).replace("*/", "")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        inside = re.search(rf"<{tag}>(.*?)</{tag}>", page.text, re.DOTALL)
        assert inside
        digest = base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
