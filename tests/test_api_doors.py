"""What is refused at the door: foreign pages and hosts, what is too long, paths and methods that are not there."""

from collections.abc import Iterator

import pytest

from tests.api_client import Api, refused, spoken
from tests.server import ServerProcess
from tidings.routes import ROUTES


@pytest.fixture(scope="module")
def api(server: ServerProcess) -> Iterator[Api]:
    with Api(server.url) as opened:
        yield opened


@pytest.fixture(scope="module")
def open_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server that is reached by a name, from an app of another origin."""
    flags = (
        "--allowed-hosts",
        "Chat.example.com",
        "--allowed-origins",
        "https://app.example.com, http://localhost:3000/",
    )
    with ServerProcess.start(tmp_path_factory.mktemp("open"), *flags) as process, Api(process.url) as opened:
        yield opened


@pytest.fixture(scope="module")
def any_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server that lets everybody in."""
    flags = ("--allowed-hosts", "*", "--allowed-origins", "*")
    with ServerProcess.start(tmp_path_factory.mktemp("any"), *flags) as process, Api(process.url) as opened:
        yield opened


HOSTS = ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:1", "192.168.7.1:8080", "[::1]", "[::1]:8080"]


@pytest.mark.parametrize("host", HOSTS)
def test_localhost_and_addresses_are_ours(api: Api, host: str) -> None:
    """No name service can make these mean another machine."""
    assert api.client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        ":8080",
        "1.2.3",
        "a@localhost",
    ],
)
def test_a_host_that_is_not_ours_is_refused(api: Api, host: str) -> None:
    """A page that rebinds its own name to our address names itself in Host, and reaches nothing: not even sends."""
    refused(api.client.get("/healthz", headers={"Host": host}), 403, "foreign_host")
    bad = api.client.post("/v1/users/create", content=b'{"username":"ann"}', headers={"Host": host})
    refused(bad, 403, "foreign_host")


def test_a_request_without_a_host_or_with_two_is_refused(api: Api) -> None:
    """HTTP/1.0 without Host, and two that differ."""
    assert b'"foreign_host"' in spoken(api.url, b"GET /healthz HTTP/1.0\r\n\r\n")
    two = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    assert b'"foreign_host"' in spoken(api.url, two)


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://localhost:3000", "http://localhost", "https://app.example.com", "x", ""],
)
def test_a_foreign_origin_is_refused(api: Api, origin: str) -> None:
    """A page of another origin, another port of this machine too, reaches neither reads nor writes."""
    headers = {"Origin": origin, "Host": "localhost:8080"}
    refused(api.client.get("/v1/messages/x", headers=headers), 403, "foreign_origin")
    refused(api.client.post("/v1/users/create", content=b'{"username":"a"}', headers=headers), 403, "foreign_origin")
    refused(api.client.options("/v1/users/create", headers=headers), 403, "foreign_origin")


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:8080", "localhost:8080"),
        ("https://localhost:8080", "localhost:8080"),
        ("HTTP://LOCALHOST:8080", "localhost:8080"),
        ("http://localhost", "localhost:80"),
        ("https://127.0.0.1", "127.0.0.1:443"),
        ("http://[::1]:8080", "[::1]:8080"),
    ],
)
def test_our_own_origin_may_call(api: Api, origin: str, host: str) -> None:
    """A page that we served, with TLS in front or without."""
    assert api.client.get("/healthz", headers={"Origin": origin, "Host": host}).status_code == 200


def test_no_answer_to_a_foreign_page_may_be_read_or_embedded(api: Api) -> None:
    """No CORS header invites another origin; the resource policy keeps answers out of its pages."""
    headers = api.client.get("/healthz").headers
    assert not [name for name in headers if name.startswith("access-control-")]
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_foreign_page_can_not_embed_us(api: Api, site: str) -> None:
    """An image or frame has no Origin, but the browser says whose page it is in; a link to us may be followed."""
    for dest in ("image", "script", "iframe", "empty"):
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": dest}
        refused(api.client.get("/healthz", headers=headers), 403, "foreign_origin")
    assert api.client.get("/docs", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Dest": "document"}).status_code == 200
    for own in ("same-origin", "none"):
        headers = {"Sec-Fetch-Site": own, "Sec-Fetch-Dest": "empty"}
        assert api.client.get("/healthz", headers=headers).status_code == 200


def test_settings_allow_more(open_api: Api) -> None:
    """Named hosts and origins may call; others still may not."""
    for host in ("chat.example.com", "chat.example.com:8080", "CHAT.EXAMPLE.COM", "localhost"):
        assert open_api.client.get("/healthz", headers={"Host": host}).status_code == 200
    for origin in ("https://app.example.com", "http://localhost:3000"):
        assert open_api.client.get("/healthz", headers={"Origin": origin}).status_code == 200
    refused(open_api.client.get("/healthz", headers={"Host": "x.chat.example.com"}), 403, "foreign_host")
    for origin in ("http://app.example.com", "https://app.example.com:444", "null"):
        refused(open_api.client.get("/healthz", headers={"Origin": origin}), 403, "foreign_origin")


def test_a_star_allows_all(any_api: Api) -> None:
    """Who wants it may have it."""
    headers = {"Host": "anything", "Origin": "null", "Sec-Fetch-Site": "cross-site"}
    assert any_api.client.get("/healthz", headers=headers).status_code == 200
    del headers["Origin"]
    assert any_api.client.get("/healthz", headers=headers).status_code == 200


def test_a_target_over_its_limit_is_refused(api: Api) -> None:
    """16 KiB of path and query are taken, one byte more is a 414."""
    fits = "/healthz?" + "a" * (16_384 - len("/healthz?"))
    assert api.client.get(fits).status_code == 200
    refused(api.client.get(fits + "a"), 414, "uri_too_long")
    refused(api.client.get("/" + "a" * 16_384), 414, "uri_too_long")


@pytest.mark.parametrize("headers", [{"X": "a" * 33_000}, {f"X-{n}": "a" * 100 for n in range(330)}])
def test_headers_over_their_limit_are_refused(api: Api, headers: dict[str, str]) -> None:
    """One long header or many short ones: 431."""
    refused(api.client.get("/healthz", headers=headers), 431, "headers_too_large")


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/",
        "/v2/users/create",
        "/healthz/",
        "/v1/users/",
        "/v1/users/x/",
        "/v1/users/a/b",
        "/v1/groups/x/members/",
    ],
)
def test_a_path_that_is_not_there(api: Api, path: str) -> None:
    """404 for what no route has; a slash too many is not redirected."""
    refused(api.get(path), 404, "unknown_path")
    refused(api.post(path, {}), 404, "unknown_path")


def test_a_method_that_does_not_fit(api: Api) -> None:
    """405 on every route for what it does not take, with `Allow` naming exactly what it does."""
    for path, methods in ROUTES.items():
        allowed = sorted({*methods, *(["HEAD"] if "GET" in methods else [])})
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} - set(allowed):
            answer = api.client.request(method, path.replace("{", "").replace("}", ""))
            refused(answer, 405, "method_not_allowed")
            assert answer.headers["allow"] == ", ".join(allowed)


def test_head_is_answered_wherever_get_is(api: Api) -> None:
    """The same status, without a body."""
    ann = api.user("ann")
    group = api.group("hikers", ann)
    for path, methods in ROUTES.items():
        if "GET" in methods:
            target = path.format(userId=ann, groupId=group)
            head = api.client.head(target, params={"userId": ann})
            status = 200 if methods["GET"].status == "200" else 426  # of a socket only the handshake is taken
            assert (head.status_code, head.content) == (status, b"")


def test_what_is_not_http_gets_no_500(api: Api, server: ServerProcess) -> None:
    """Strange bytes are answered 400 or by closing; the server goes on, and nothing is in its log as a fault."""
    for sent in (
        b"GET /%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/messages/%00?cursor=%ff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: \xff\r\n\r\n",
        b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ):
        said = spoken(api.url, sent)
        assert not said.startswith(b"HTTP/1.1 5"), said
        assert b"Traceback" not in said
    assert api.get("/healthz").status_code == 200
    assert "Traceback" not in server.errors
