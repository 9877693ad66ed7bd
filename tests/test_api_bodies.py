"""How bodies are read: as JSON whatever they are called, under every spelling; test_bad_input.py has what is none."""

import json

import pytest

from tests.api_client import Api, refused, spoken

CREATE = "/v1/users/create"


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", "nonsense", ""])
def test_the_content_type_does_not_matter(api: Api, content_type: str) -> None:
    """`curl -d` says that its JSON is a form; it is read as JSON."""
    headers = {"Content-Type": content_type}
    answer = api.client.post(CREATE, content=b' {"username": "ann"}\n', headers=headers)
    assert answer.json()["username"] == "ann"


def test_unknown_fields_are_ignored(api: Api) -> None:
    """Whatever else stands in a body, of whatever type, is passed over."""
    body = {"username": "ann", "age": 7, "nested": {"username": ["eve"]}, "": None}
    assert api.post(CREATE, body).json()["username"] == "ann"


@pytest.mark.parametrize(
    "body",
    [
        {"username": "ann", "userName": "eve"},
        {"username": "ann", "userName": ""},
        {"USERNAME": "ann", "Username": "eve"},
    ],
)
def test_two_spellings_with_different_values_are_refused(api: Api, body: dict[str, str]) -> None:
    """Nobody can tell which of the two is meant."""
    refused(api.post(CREATE, body), 400, "ambiguous_field")


@pytest.mark.parametrize(
    "body",
    [
        {"username": "ann", "userName": "ann"},
        {"USERNAME": "ann", "Username": "ann"},
        {"username": "ann", "UserName": 7},
    ],
)
def test_two_spellings_with_the_same_value_are_one(api: Api, body: dict[str, object]) -> None:
    """The same twice is no contradiction; and with the exact name given, other cases are unknown fields."""
    assert api.post(CREATE, body).json()["username"] == "ann"


def test_names_are_matched_without_case_only_where_a_field_is_missing(api: Api) -> None:
    """One field in another case: all are matched again, and then two cases of one name contradict each other."""
    ann, bob = api.user("ann"), api.user("bob")
    body = {"senderId": ann, "SENDERID": bob, "receiverId": bob, "message": "hi"}
    assert api.post("/v1/messages/send?type=private", body).json()["senderId"] == ann
    del body["message"]
    refused(api.post("/v1/messages/send?type=private", {**body, "Message": "hi"}), 400, "ambiguous_field")


def test_a_body_over_its_limit_is_refused_before_it_is_read(api: Api) -> None:
    """The announced length is enough: the answer comes though not a byte of the body was sent."""
    said = spoken(api.url, b"POST /v1/users/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: 70000\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"body_too_large"' in said


@pytest.mark.parametrize("size", [65_537, 1_000_000])
def test_a_body_without_a_length_is_counted_while_it_is_read(api: Api, size: int) -> None:
    """Sent in chunks, without a length, it is refused as soon as it is over the limit."""
    answer = api.client.post(CREATE, content=(b" " * 1000 for _ in range(size // 1000 + 1)))
    refused(answer, 413, "body_too_large")


def test_a_body_as_long_as_its_limit_is_read(api: Api) -> None:
    """64 KiB are taken, with a length as in chunks."""
    body = json.dumps({"username": "ann"}).encode().ljust(65_536)
    assert api.post(CREATE, body).status_code == 200
    assert api.client.post(CREATE, content=iter((body[:7], body[7:]))).status_code == 200


def test_the_connection_goes_on_after_a_refusal(api: Api) -> None:
    """What is wrong with one request is no matter for the next one on its connection."""
    bad = b"POST /v1/users/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
    good = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    said = spoken(api.url, bad + good, until_closed=True)
    assert said.count(b"HTTP/1.1 400 ") == said.count(b"HTTP/1.1 200 ") == 1


def test_half_a_body_does_nothing(api: Api) -> None:
    """A client that goes away within its body has sent nothing, even if what came is JSON."""
    ann = api.user("ann")
    body = json.dumps({"senderId": ann, "receiverId": ann, "message": "half"}).encode()
    head = b"POST /v1/messages/send?type=private HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    assert spoken(api.url, head % (len(body) + 1) + body, and_close=True) == b""
    api.private(ann, ann, "whole")
    assert api.texts(ann) == ["whole"]
