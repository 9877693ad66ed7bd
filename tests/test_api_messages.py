"""Sending over HTTP: every row of the contract, and what is refused in which order."""

import pytest

from tests.api_client import Api, Json, refused

NOBODY = "user-0000000000000000000000000000"
NOWHERE = "group-0000000000000000000000000000"
SEND = "/v1/messages/send"


@pytest.mark.parametrize("field", ["receiverId", "recipientId", "RECEIVERID"])
def test_a_private_send_answers_with_the_message(api: Api, field: str) -> None:
    """Ann writes to Bob under either spelling: the answer is the message as Bob reads it."""
    ann, bob = api.user("ann"), api.user("bob")
    answer = api.post(f"{SEND}?type=private", {"senderId": ann, field: bob, "message": "hi"})
    assert answer.status_code == 200
    message = answer.json()
    assert list(message) == ["senderId", "message", "recipientId", "timestamp", "messageId", "seq"]
    assert (message["senderId"], message["message"], message["recipientId"], message["seq"]) == (ann, "hi", bob, 1)
    assert message["timestamp"].isdigit()
    assert api.poll(bob)["messages"] == [message]


@pytest.mark.parametrize("field", ["groupId", "recipientId", "GroupID"])
def test_a_group_send_reaches_every_member(api: Api, field: str) -> None:
    """Ann writes to the group under either spelling: she and Bob both read it, Eve does not."""
    ann, bob, eve = api.user("ann"), api.user("bob"), api.user("eve")
    group = api.group("hikers", ann, bob)
    answer = api.post(f"{SEND}?type=group", {"senderId": ann, field: group, "message": "hi"})
    assert answer.status_code == 200
    message = answer.json()
    assert (message["recipientId"], message["seq"]) == (group, 1)
    assert api.poll(ann)["messages"] == api.poll(bob)["messages"] == [message]
    assert api.poll(eve)["messages"] is None


def test_users_may_write_to_themselves(api: Api) -> None:
    """A message to oneself is read once, also with copies of what was sent."""
    ann = api.user("ann")
    api.private(ann, ann, "note")
    assert api.texts(ann) == api.texts(ann, sent="include") == ["note"]


def test_a_private_send_is_checked_receiver_then_block_then_sender(api: Api) -> None:
    """Body, type, receiver, block, sender: the first that is wrong is told."""
    ann, bob = api.user("ann"), api.user("bob")

    def send(kind: str, **body: str) -> tuple[int, str]:
        answer = api.post(f"{SEND}{kind}", body)
        return answer.status_code, answer.json()["code"]

    assert send("?type=pigeon", senderId=NOBODY) == (400, "missing_field")
    assert send("?type=pigeon", senderId=NOBODY, receiverId="x", message="hi") == (400, "unknown_type")
    assert send("", senderId=NOBODY, receiverId="x", message="hi") == (400, "unknown_type")
    assert send("?type=private", senderId=NOBODY, receiverId="x", message="hi") == (404, "unknown_user")
    problem = api.post(f"{SEND}?type=private", {"senderId": NOBODY, "receiverId": "x", "message": "hi"}).json()
    assert "'x'" in problem["detail"]
    assert send("?type=private", senderId=NOBODY, receiverId=bob, message="hi") == (404, "unknown_user")
    api.block(bob, ann)
    assert send("?type=private", senderId=ann, receiverId=bob, message="hi") == (403, "blocked")


def test_a_group_send_is_checked_sender_then_group_then_membership(api: Api) -> None:
    """Body, type, sender, group, membership: the first that is wrong is told."""
    eve, group = api.user("eve"), api.group("hikers")

    def send(**body: str) -> Json:
        return {"senderId": NOBODY, "groupId": NOWHERE, "message": "hi", **body}

    refused(api.post(f"{SEND}?type=group", send(message="")), 400, "empty_field")
    refused(api.post(f"{SEND}?type=group", send()), 404, "unknown_user")
    refused(api.post(f"{SEND}?type=group", send(senderId=eve)), 404, "unknown_group")
    refused(api.post(f"{SEND}?type=group", send(senderId=eve, groupId=group)), 403, "not_a_member")


def test_a_block_refuses_private_messages_only(api: Api) -> None:
    """Bob blocks Ann, and still reads what she writes to their group."""
    ann, bob = api.user("ann"), api.user("bob")
    group = api.group("hikers", ann, bob)
    api.block(bob, ann)
    api.groupwide(ann, group, "to all")
    assert api.texts(bob) == ["to all"]


@pytest.mark.parametrize("text", ["\0", "a\nb\tc", "𝄞" * 4096, "\u2028", "\ufffe", '"\\/', "x" * 16_384])
def test_any_text_arrives_as_it_was_sent(api: Api, text: str) -> None:
    """Up to 16 KiB of UTF-8, whatever the characters, NUL too."""
    ann, bob = api.user("ann"), api.user("bob")
    assert api.private(ann, bob, text)["message"] == text
    assert api.texts(bob) == [text]


@pytest.mark.parametrize("text", ["x" * 16_385, "é" * 8_193, "𝄞" * 4_097])
def test_a_longer_message_is_refused(api: Api, text: str) -> None:
    """Bytes of UTF-8 are counted, not characters; the type is looked at later."""
    ann = api.user("ann")
    for kind in ("private", "group", "pigeon"):
        body = {"senderId": ann, "recipientId": ann, "message": text}
        refused(api.post(f"{SEND}?type={kind}", body), 413, "message_too_large")
    assert api.poll(ann)["messages"] is None


def test_seqs_and_timestamps_increase_along_a_mailbox(api: Api) -> None:
    """Ten sends to Bob, by two senders: seq 1 to 10 and increasing timestamps, in the order of their answers."""
    ann, bob, carol = api.user("ann"), api.user("bob"), api.user("carol")
    sent = [api.private((ann, carol)[n % 2], bob, str(n)) for n in range(10)]
    assert [message["seq"] for message in sent] == list(range(1, 11))
    stamps = [int(message["timestamp"]) for message in sent]
    assert stamps == sorted(set(stamps))
    assert api.poll(bob)["messages"] == sent
