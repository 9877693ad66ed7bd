"""Pages of other origins, in Chromium: one that is allowed follows, any other can't open or read a thing."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.api_client import Api
from tests.server import ServerProcess
from tests.test_browser import CHROMIUM

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")

FOLLOW = """url => {
  window.heard = [];
  window.source = new EventSource(url);
  source.addEventListener("message", event => heard.push(JSON.parse(event.data).message));
  source.addEventListener("heartbeat", () => heard.push("heartbeat"));
  source.addEventListener("error", () => heard.push(source.readyState === EventSource.CLOSED ? "closed" : "again"));
}"""
CONNECT = """url => {
  window.said = [];
  const socket = new WebSocket(url, "tidings.v1");
  socket.addEventListener("message", event => {
    const frame = JSON.parse(event.data);
    said.push(frame.type === "message" ? frame.message.message : frame.type);
  });
  socket.addEventListener("close", event => said.push(event.code));
}"""
TRY = """async ([url, options]) => {
  try {
    const answer = await fetch(url, options);
    return [answer.type, answer.status, await answer.text()];
  } catch (error) {
    return [error.name];
  }
}"""


class _Empty(BaseHTTPRequestHandler):
    """A page without anything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title>")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[int]:
    """The port of another server: with each host name that leads there, its page is of another origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Empty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def api(tmp_path: Path, elsewhere: int) -> Iterator[Api]:
    """A server that lets in the pages of `http://127.0.0.1:elsewhere` beside its own."""
    flags = ("--allowed-origins", f"http://127.0.0.1:{elsewhere}")
    with ServerProcess.start(tmp_path, *flags) as process, Api(process.url) as opened:
        yield opened


@contextmanager
def page_at(url: str) -> Iterator["Page"]:
    """A page of that URL's origin."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        page = browser.new_page()
        page.goto(url)
        yield page
        browser.close()


def test_an_allowed_page_follows(api: Api, elsewhere: int) -> None:
    """The page of an origin that was let in opens a stream and a socket, and shows what comes."""
    ann, bob = api.user("ann"), api.user("bob")
    with page_at(f"http://127.0.0.1:{elsewhere}/") as page:
        page.evaluate(FOLLOW, f"{api.url}/v1/messages/{bob}/stream")
        page.evaluate(CONNECT, f"{api.url.replace('http', 'ws')}/v1/messages/{bob}/live")
        page.wait_for_function("heard.length === 1 && said.length === 1")
        for n in range(3):
            api.private(ann, bob, f"word {n}")
        page.wait_for_function("heard.length === 4 && said.length === 4")
        assert page.evaluate("heard") == page.evaluate("said") == ["heartbeat", "word 0", "word 1", "word 2"]


def test_a_foreign_page_gets_nothing(api: Api, elsewhere: int) -> None:
    """The page of another origin: stream and socket are refused for good, and no kind of fetch shows it anything."""
    ann, bob = api.user("ann"), api.user("bob")
    api.private(ann, bob, "for Bob alone")
    stream, poll = f"{api.url}/v1/messages/{bob}/stream?cursor=now", f"{api.url}/v1/messages/{bob}"
    origin = f"http://localhost:{elsewhere}"
    with page_at(f"{origin}/") as page:
        statuses: dict[str, int] = {}
        page.on("response", lambda response: statuses.update({response.url: response.status}))
        page.evaluate(FOLLOW, stream)
        page.wait_for_function("heard.length === 1")
        assert page.evaluate("heard") == ["closed"]
        page.evaluate(CONNECT, f"{api.url.replace('http', 'ws')}/v1/messages/{bob}/live?cursor=now")
        page.wait_for_function("said.length === 1")
        assert page.evaluate("said") == [1006]  # refused before it was open
        tries = [page.evaluate(TRY, [url, {"mode": mode}]) for url in (stream, poll) for mode in ("cors", "no-cors")]
        assert tries == [["TypeError"]] * 4
        assert statuses.get(stream) in (403, None)  # told or not, by the browser's version
    for url in (stream, poll):
        assert httpx.get(url, headers={"Origin": origin}).json()["code"] == "foreign_origin"
    assert api.texts(bob) == ["for Bob alone"]
