"""A client that believes nothing: every answer must be one that /openapi.json describes."""

import json
import re
import socket
from collections.abc import Sequence
from itertools import cycle
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from jsonschema_rs import Draft202012Validator

from tests.server import until

Json = dict[str, Any]


class Description:
    """/openapi.json, and whether an answer is what it says."""

    def __init__(self, document: Json) -> None:
        self.document = document
        self._paths = [(re.compile(re.sub(r"{\w+}", "[^/]+", path)), path) for path in document["paths"]]

    def check(self, response: httpx.Response) -> None:
        """Fail unless status, type, headers and body are among the operation's answers."""
        method = response.request.method.lower()
        path = next((path for regex, path in self._paths if regex.fullmatch(response.request.url.path)), None)
        operations = self.document["paths"].get(path, {})
        if method == "head":
            method = "get"
        if method not in operations:
            self._check_nowhere(response, operations)
            return
        answers = operations[method]["responses"]
        assert str(response.status_code) in answers, f"undescribed: {response.status_code} {response.text}"
        answer = answers[str(response.status_code)]
        (media, content), *_ = answer["content"].items()
        assert response.headers["content-type"].split(";")[0] == media
        assert ("retry-after" in response.headers) <= ("Retry-After" in answer.get("headers", {}))
        if response.request.method == "HEAD":
            assert response.content == b""
        elif "json" in media:
            self._validate(response.json(), content["schema"])

    def _check_nowhere(self, response: httpx.Response, operations: Json) -> None:
        assert response.status_code in (403, 404, 405, 414, 431), response.text
        assert response.headers["content-type"] == "application/problem+json"
        if response.request.method != "HEAD":
            self._validate(response.json(), {"$ref": "#/components/schemas/Problem"})
        if response.status_code == 405:
            assert {method.upper() for method in operations} <= set(response.headers["allow"].split(", "))

    def _validate(self, value: object, schema: Json) -> None:
        Draft202012Validator({**schema, "components": self.document["components"]}).validate(value)


class Alternating(httpx.BaseTransport):
    """Each request goes to the next of several nodes. What one has answered is asked of another once it can be known.

    That is, after a write the nodes are asked until all have applied it.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._nodes = [httpx.URL(url) for url in urls]
        self._turns = cycle(self._nodes)
        self._inner = httpx.HTTPTransport()
        self._looking = httpx.Client(timeout=30)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        node = next(self._turns)
        request.url = request.url.copy_with(host=node.host, port=node.port)
        request.headers["host"] = f"{node.host}:{node.port}"
        response = self._inner.handle_request(request)
        if request.method == "POST":
            written = self._position(node)
            until(lambda: all(self._position(other) >= written for other in self._nodes))
        return response

    def close(self) -> None:
        self._inner.close()
        self._looking.close()

    def _position(self, node: httpx.URL) -> float:
        return counted(self._looking.get(node.join("/metrics")).text, "tidings_feed_position")


class Api:
    """A client of a server, every answer checked; its words are the tests' set-up, and prove it.

    Of several nodes, given by their URLs, each request goes to the next; `url` is each time that of the next one.
    """

    def __init__(self, url: str, *others: str) -> None:
        self.urls = (url, *others)
        self._next = cycle(self.urls)
        self.description = Description(httpx.get(f"{url}/openapi.json").json())
        hooks = {"response": [self._check]}
        transport = Alternating(self.urls) if others else None
        self.client = httpx.Client(base_url=url, timeout=30, event_hooks=hooks, transport=transport)

    @property
    def url(self) -> str:
        """Where to reach a node."""
        return next(self._next)

    def _check(self, response: httpx.Response) -> None:
        response.read()
        self.description.check(response)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()

    def get(self, path: str, **params: str | float) -> httpx.Response:
        """GET with parameters."""
        return self.client.get(path, params=params or None)

    def post(self, path: str, body: object, *, key: str | None = None) -> httpx.Response:
        """POST a value as JSON, or bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post(path, content=content, headers={} if key is None else {"Idempotency-Key": key})

    def user(self, name: str) -> str:
        """The id of a new user."""
        return str(_ok(self.post("/v1/users/create", {"username": name}))["userId"])

    def group(self, name: str, *members: str) -> str:
        """The id of a new group with these members."""
        group_id = str(_ok(self.post("/v1/groups/create", {"groupName": name}))["groupId"])
        for member in members:
            self.add(group_id, member)
        return group_id

    def add(self, group_id: str, user_id: str) -> None:
        """Let a user into a group."""
        _ok(self.post(f"/v1/groups/{group_id}?op=add", {"userId": user_id}))

    def remove(self, group_id: str, user_id: str) -> None:
        """Put a user out of a group."""
        _ok(self.post(f"/v1/groups/{group_id}?op=remove", {"userId": user_id}))

    def block(self, user_id: str, other_id: str) -> None:
        """Let a user block another."""
        _ok(self.post(f"/v1/users/{user_id}?op=block", {"blockedUserId": other_id}))

    def private(self, sender_id: str, receiver_id: str, text: str) -> Json:
        """Send a private message; gives it."""
        body = {"senderId": sender_id, "receiverId": receiver_id, "message": text}
        return _ok(self.post("/v1/messages/send?type=private", body))

    def groupwide(self, sender_id: str, group_id: str, text: str) -> Json:
        """Send a message to a group; gives it."""
        body = {"senderId": sender_id, "groupId": group_id, "message": text}
        return _ok(self.post("/v1/messages/send?type=group", body))

    def poll(self, user_id: str, **params: str | float) -> Json:
        """A user's messages; gives the whole answer."""
        return _ok(self.get(f"/v1/messages/{user_id}", **params))

    def counted(self, name: str) -> float:
        """A number of /metrics, all its series together, of all nodes."""
        return sum(counted(httpx.get(f"{url}/metrics").text, name) for url in self.urls)

    def texts(self, user_id: str, **params: str | float) -> list[str]:
        """What a user reads."""
        return [message["message"] for message in self.poll(user_id, **params)["messages"] or []]


def counted(text: str, name: str) -> float:
    """A number in the text of /metrics, all its series together."""
    return sum(map(float, re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))


def _ok(response: httpx.Response) -> Json:
    assert response.status_code == 200, response.text
    value: Json = response.json()
    return value


def refused(response: httpx.Response, status: int, code: str) -> Json:
    """Check that an answer is this problem (RFC 9457); gives it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: Json = response.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["retry"] == ("retry-after" in response.headers)
    return problem


def spoken(url: str, sent: bytes, *, until_closed: bool = False, and_close: bool = False) -> bytes:
    """What a server says to these bytes: one answer, or all until it closes; `and_close`: we do first."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        connection.sendall(sent)
        if and_close:
            connection.shutdown(socket.SHUT_WR)
        said = b""
        while until_closed or not _is_whole(said):
            piece = connection.recv(65536)
            if not piece:
                break
            said += piece
        return said


def _is_whole(said: bytes) -> bool:
    head, end, body = said.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return bool(end) and length is not None and len(body) >= int(length[1])
