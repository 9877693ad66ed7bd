"""Idempotency-Key over HTTP: a repeated POST takes effect once and is answered alike."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.api_client import Api, refused

SEND = "/v1/messages/send?type=private"


def test_a_repeated_send_is_one_message(api: Api) -> None:
    """Ann's client retries: the same answer, one message."""
    ann, bob = api.user("ann"), api.user("bob")
    body = {"senderId": ann, "receiverId": bob, "message": "once"}
    first = api.post(SEND, body, key="k1")
    again = api.post(SEND, body, key="k1")
    assert (first.status_code, first.content) == (again.status_code, again.content)
    assert api.texts(bob) == ["once"]


def test_what_is_compared_is_what_was_meant_not_the_bytes(api: Api) -> None:
    """The other spelling, other spaces, another order: the same intent."""
    ann, bob = api.user("ann"), api.user("bob")
    first = api.post(SEND, {"senderId": ann, "receiverId": bob, "message": "once"}, key="k1")
    again = api.post(SEND, f'{{ "message":"once","recipientId":"{bob}","SenderID":"{ann}"}}'.encode(), key="k1")
    assert again.json() == first.json()
    assert api.texts(bob) == ["once"]


def test_the_same_key_with_other_content_is_refused(api: Api) -> None:
    """Another text, another recipient, another kind: 422, and nothing happens."""
    ann, bob = api.user("ann"), api.user("bob")
    group = api.group("hikers", ann)
    body = {"senderId": ann, "receiverId": bob, "message": "once"}
    assert api.post(SEND, body, key="k1").status_code == 200
    refused(api.post(SEND, {**body, "message": "twice"}, key="k1"), 422, "idempotency_key_reused")
    refused(api.post(SEND, {**body, "receiverId": ann}, key="k1"), 422, "idempotency_key_reused")
    other = {"senderId": ann, "groupId": group, "message": "once"}
    refused(api.post("/v1/messages/send?type=group", other, key="k1"), 422, "idempotency_key_reused")
    assert api.texts(bob) == ["once"]
    assert api.poll(ann)["messages"] is None


def test_a_senders_key_is_theirs_alone(api: Api) -> None:
    """Ann and Carol happen to use one key: both are heard."""
    ann, bob, carol = api.user("ann"), api.user("bob"), api.user("carol")
    for sender in (ann, carol):
        body = {"senderId": sender, "receiverId": bob, "message": "hi"}
        assert api.post(SEND, body, key="k1").status_code == 200
    assert api.texts(bob) == ["hi", "hi"]


def test_only_successes_are_remembered(api: Api) -> None:
    """A refused send may be repeated under its key when the reason is gone."""
    ann, bob = api.user("ann"), api.user("bob")
    api.block(bob, ann)
    body = {"senderId": ann, "receiverId": bob, "message": "hi"}
    refused(api.post(SEND, body, key="k1"), 403, "blocked")
    assert api.post(f"/v1/users/{bob}?op=unblock", {"blockedUserId": ann}).status_code == 200
    assert api.post(SEND, body, key="k1").status_code == 200


def test_every_other_post_takes_a_key(api: Api) -> None:
    """Creating, blocking, adding and their opposites: repeated, they are answered as before, not by a conflict."""
    created = [api.post("/v1/users/create", {"username": "ann"}, key="every-1").json() for _ in range(2)]
    assert created[0] == created[1]
    grouped = [api.post("/v1/groups/create", {"groupName": "hikers"}, key="every-1").json() for _ in range(2)]
    assert grouped[0] == grouped[1]
    ann, group, bob = created[0]["userId"], grouped[0]["groupId"], api.user("bob")
    for path, body in (
        (f"/v1/users/{ann}?op=block", {"blockedUserId": bob}),
        (f"/v1/users/{ann}?op=unblock", {"blockedUserId": bob}),
        (f"/v1/groups/{group}?op=add", {"userId": bob}),
        (f"/v1/groups/{group}?op=remove", {"userId": bob}),
    ):
        for _ in range(2):
            answer = api.post(path, body, key=f"every {path}".replace(" ", "-"))
            assert (answer.status_code, answer.json()) == (200, {})
    assert api.get(f"/v1/users/{ann}").json()["blocks"] == []
    refused(api.get(f"/v1/groups/{group}", userId=bob), 403, "not_a_member")


def test_a_key_belongs_to_its_operation_and_object(api: Api) -> None:
    """On one route, the key of a block is not that of an unblock, nor of another user's block."""
    ann, bob = api.user("ann"), api.user("bob")
    body = {"blockedUserId": bob}
    assert api.post(f"/v1/users/{ann}?op=block", body, key=ann).status_code == 200
    refused(api.post(f"/v1/users/{ann}?op=unblock", body, key=ann), 422, "idempotency_key_reused")
    refused(api.post(f"/v1/users/{bob}?op=block", body, key=ann), 422, "idempotency_key_reused")
    refused(api.post(f"/v1/users/{ann}?op=block", {"blockedUserId": ann}, key=ann), 422, "idempotency_key_reused")


def test_twenty_at_once_are_one(api: Api) -> None:
    """Twenty clients send the same under one key at the same moment: twenty equal answers, one message."""
    ann, bob = api.user("ann"), api.user("bob")
    body = {"senderId": ann, "receiverId": bob, "message": "once"}
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: api.post(SEND, body, key="k1"), range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert api.texts(bob) == ["once"]


@pytest.mark.parametrize("key", ["", "a b", "é", "k" * 256])
def test_what_is_no_key_is_refused(api: Api, key: str) -> None:
    """1 to 255 visible ASCII characters, else 400; and the body is looked at first."""
    headers = {b"Idempotency-Key": key.encode()}
    bad = api.client.post("/v1/users/create", content=b'{"username":"ann"}', headers=headers)
    refused(bad, 400, "bad_idempotency_key")
    refused(api.client.post("/v1/users/create", content=b"{}", headers=headers), 400, "missing_field")


def test_two_keys_are_none(api: Api) -> None:
    """A request under two keys can't be repeated under one."""
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    bad = api.client.post("/v1/users/create", content=b'{"username":"ann"}', headers=headers)
    refused(bad, 400, "bad_idempotency_key")


def test_a_key_of_any_visible_character_is_taken(api: Api) -> None:
    """255 characters, punctuation and quotes too."""
    key = '"!~{}' + "k" * 250
    assert api.post("/v1/users/create", {"username": "ann"}, key=key).status_code == 200
