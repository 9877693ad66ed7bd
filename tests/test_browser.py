"""The page at /docs, in a real browser: Chromium, driven by Playwright."""

import json
import re
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.server import ServerProcess

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REFUSAL = "Failed to load resource"  # what the browser says of each 4xx that a call was answered

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


@pytest.fixture
def page() -> Iterator["Page"]:
    """A page of a browser that is used by nobody else; whatever it complains of fails the test."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        opened = browser.new_page()
        complaints: list[str] = []
        opened.on("console", lambda message: complaints.append(message.text))  # so it tells of its policy, broken
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        yield opened
        browser.close()
        assert [text for text in complaints if not text.startswith(REFUSAL)] == []


def test_a_call_is_made_from_the_docs(server: ServerProcess, page: "Page") -> None:
    """/docs shows every operation; opened, filled in and clicked, it makes the call and shows the answer."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{server.url}/docs")
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    operations = page.locator("details.operation")
    operations.nth(sum(map(len, paths.values())) - 1).wait_for()
    names = [tuple(name.split()[:2]) for name in page.locator("details.operation > summary").all_inner_texts()]
    assert sorted(names) == sorted((method.upper(), path) for path in paths for method in paths[path])

    created = _call(_operation(page, "POST", "/v1/users/create"), body='{"username":"ann"}')
    assert created["username"] == "ann"
    show = _operation(page, "GET", "/v1/users/{userId}")
    show.get_by_role("button", name="Call", exact=True).click()  # without the id that it needs: nothing is called
    assert _call(show, userId=created["userId"]) == {**created, "groups": [], "blocks": []}
    read = _operation(page, "GET", "/v1/messages/{userId}")
    assert _call(read, userId=created["userId"], limit="x", status=400)["code"] == "bad_limit"
    stream = _operation(page, "GET", "/v1/messages/{userId}/stream")
    stream.get_by_label("userId", exact=True).fill(created["userId"])
    stream.get_by_role("button", name="Call", exact=True).click()
    stream.locator("button + pre").filter(has_text="event: heartbeat").wait_for()
    assert all(url.startswith(server.url) for url in asked), "the page asks somebody else"
    assert [url.removeprefix(server.url) for url in asked if "/v1/" in url] == [
        "/v1/users/create",
        f"/v1/users/{created['userId']}",
        f"/v1/messages/{created['userId']}?limit=x",
        f"/v1/messages/{created['userId']}/stream",
    ]


def _operation(page: "Page", method: str, path: str) -> "Locator":
    """An operation of the page, opened."""
    named = re.compile(rf"^{method} {re.escape(path)} ")
    (found,) = page.locator("details.operation").filter(has=page.locator("summary", has_text=named)).all()
    found.locator("> summary").click()
    return found


def _call(operation: "Locator", *, status: int = 200, **filled: str) -> dict[str, Any]:
    """Fill in an operation's fields by their labels, and click: what it then shows, of that status."""
    for label, text in filled.items():
        operation.get_by_label(label, exact=True).fill(text)
    operation.get_by_role("button", name="Call", exact=True).click()
    shown = operation.locator("button + pre").filter(has_text=re.compile(rf"^{status} ", re.MULTILINE))
    shown.wait_for()
    answer: dict[str, Any] = json.loads(shown.inner_text().partition("\n\n")[2])
    return answer
