"""Polls without news are answered before ASGI: on the wire they must be told from others by nothing but their speed."""

import json
from collections.abc import Iterator

import pytest

from tests.api_client import Api, spoken
from tests.server import ServerProcess


@pytest.fixture(scope="module")
def api(server: ServerProcess) -> Iterator[Api]:
    with Api(server.url) as opened:
        yield opened


@pytest.fixture
def ann(api: Api) -> str:
    return api.user("ann")


def request(path: str, *headers: str, method: str = "GET", version: str = "1.1", body: str = "") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *headers, "", body]
    return "\r\n".join(lines).encode()


def answers(received: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """The responses in what a server sent: status, headers, body."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = int(headers["content-length"])
        found.append((int(first.split()[1]), headers, rest[:length]))
        received = rest[length:]
    return found


def hot(api: Api) -> float:
    lines = api.get("/metrics").text.splitlines()
    return float(
        next(line for line in lines if line.startswith('tidings_polls_total{kind="hot",why="no_news"}')).split()[1]
    )


def test_requests_behind_one_another_are_answered_in_order(api: Api, ann: str) -> None:
    """Hot polls among other calls in one packet: each answer comes in its place, the hot ones counted as such."""
    cursor = api.poll(ann)["cursor"]
    poll = request(f"/v1/messages/{ann}?cursor={cursor}")
    show = request(f"/v1/users/{ann}")
    before = hot(api)
    received = answers(
        spoken(api.url, poll + poll + show + poll + request("/", "Connection: close"), until_closed=True)
    )
    assert [status for status, _, _ in received] == [200] * 5
    nothing = {"messages": None, "cursor": cursor}
    assert [json.loads(body) for _, _, body in received[:2]] == [nothing, nothing]
    assert json.loads(received[2][2])["userId"] == ann
    assert json.loads(received[3][2]) == nothing
    assert json.loads(received[4][2]) == {"status": "ok"}
    assert hot(api) == before + 3


def test_a_hot_answer_has_the_headers_of_any_other(api: Api, ann: str) -> None:
    """The same poll, asked hot and in a form that goes by the routes: status, headers and body are the same."""
    cursor = api.poll(ann)["cursor"]
    polls = [request(f"/v1/messages/{ann}?cursor={cursor}{more}") for more in ("", "&limit=5")]
    received = answers(spoken(api.url, polls[0] + polls[1] + request("/", "Connection: close"), until_closed=True))
    (status, headers, body), (other_status, other_headers, other_body), _ = received
    assert (status, body) == (other_status, other_body)
    assert {**headers, "date": ""} == {**other_headers, "date": ""}
    assert list(headers) == list(other_headers)


@pytest.mark.parametrize(
    ("headers", "version", "method", "body"),
    [
        (("Connection: close",), "1.1", "GET", ""),
        ((), "1.0", "GET", ""),
        (("Connection: close", "Content-Length: 2"), "1.1", "GET", "{}"),
        (("Connection: close", "Transfer-Encoding: chunked"), "1.1", "GET", "2\r\n{}\r\n0\r\n\r\n"),
    ],
)
def test_other_forms_of_the_same_poll_are_answered_alike(
    api: Api, ann: str, headers: tuple[str, ...], version: str, method: str, body: str
) -> None:
    """The last request of a connection, an old client's, or one with a body that nobody asked for: the same answer."""
    cursor = api.poll(ann)["cursor"]
    sent = request(f"/v1/messages/{ann}?cursor={cursor}", *headers, version=version, method=method, body=body)
    ((status, _, received),) = answers(spoken(api.url, sent, until_closed=True))
    assert (status, json.loads(received)) == (200, {"messages": None, "cursor": cursor})


def test_a_foreign_page_gets_no_hot_answer(api: Api, ann: str) -> None:
    """What would be hot is refused all the same for a foreign Origin and for a Host that is not ours."""
    path = f"/v1/messages/{ann}?cursor={api.poll(ann)['cursor']}"
    foreign = [request(path, "Origin: https://evil.example"), request(path).replace(b"localhost", b"evil.example")]
    received = answers(spoken(api.url, b"".join(foreign) + request("/", "Connection: close"), until_closed=True))
    assert [json.loads(body).get("code") for _, _, body in received] == ["foreign_origin", "foreign_host", None]
