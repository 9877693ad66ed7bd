"""Users over HTTP: signing up, blocking, looking at oneself."""

import pytest

from tests.api_client import Api, refused

NOBODY = "user-0000000000000000000000000000"


@pytest.mark.parametrize("field", ["username", "userName", "USERNAME", "UserName"])
def test_signing_up_gives_an_id_and_the_name(api: Api, field: str) -> None:
    """Ann signs up, under either spelling and in any case: the answer is exactly userId and username."""
    answer = api.post("/v1/users/create", {field: "ann"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    user = answer.json()
    assert list(user) == ["userId", "username"]
    assert user["username"] == "ann"
    assert user["userId"].startswith("user-")


def test_names_are_not_unique(api: Api) -> None:
    """Two people may be called ann; their ids differ."""
    assert api.user("ann") != api.user("ann")


@pytest.mark.parametrize("name", ["a", "é" * 128, "  ", "𝄞", "null", "user-1", "<b>"])
def test_any_name_of_a_line_is_taken_as_it_is(api: Api, name: str) -> None:
    """A name of 1 to 128 characters, whatever they are, comes back unchanged."""
    assert api.post("/v1/users/create", {"username": name}).json()["username"] == name


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", "empty_field"),
        ("a" * 129, "name_too_long"),
        ("a\nb", "malformed"),
        ("\0", "malformed"),
        ("\x7f", "malformed"),
    ],
)
def test_a_name_that_is_none_is_refused(api: Api, name: str, code: str) -> None:
    """Empty, too long, or with control characters: 400."""
    refused(api.post("/v1/users/create", {"username": name}), 400, code)


def test_a_block_and_its_end(api: Api) -> None:
    """Bob blocks Ann and unblocks her: both answer an empty object, and her messages are refused in between."""
    ann, bob = api.user("ann"), api.user("bob")
    body = {"senderId": ann, "receiverId": bob, "message": "hi"}
    blocked = api.post(f"/v1/users/{bob}?op=block", {"blockedUserId": ann})
    assert (blocked.status_code, blocked.json()) == (200, {})
    refused(api.post("/v1/messages/send?type=private", body), 403, "blocked")
    unblocked = api.post(f"/v1/users/{bob}?op=unblock", {"blockedUserId": ann})
    assert (unblocked.status_code, unblocked.json()) == (200, {})
    assert api.post("/v1/messages/send?type=private", body).status_code == 200
    assert api.texts(bob) == ["hi"]


def test_blocking_twice_and_unblocking_the_unblocked_is_a_conflict(api: Api) -> None:
    """What is so already, or is not so, answers 409 under a code that says which."""
    ann, bob = api.user("ann"), api.user("bob")
    refused(api.post(f"/v1/users/{bob}?op=unblock", {"blockedUserId": ann}), 409, "not_blocked")
    api.block(bob, ann)
    refused(api.post(f"/v1/users/{bob}?op=block", {"blockedUserId": ann}), 409, "already_blocked")


def test_who_blocks_themselves_is_refused_by_themselves(api: Api) -> None:
    """Ann blocks herself, and may then not write to herself."""
    ann = api.user("ann")
    api.block(ann, ann)
    body = {"senderId": ann, "receiverId": ann, "message": "note"}
    refused(api.post("/v1/messages/send?type=private", body), 403, "blocked")


def test_a_block_is_checked_body_first_then_op_then_user_then_other(api: Api) -> None:
    """With everything wrong, the first wrong thing is told; repaired one by one, the next."""
    ann = api.user("ann")
    refused(api.post(f"/v1/users/{NOBODY}?op=hug", {}), 400, "missing_field")
    refused(api.post(f"/v1/users/{NOBODY}?op=hug", {"blockedUserId": NOBODY + "1"}), 400, "unknown_operation")
    refused(api.post(f"/v1/users/{NOBODY}", {"blockedUserId": NOBODY + "1"}), 400, "unknown_operation")
    problem = refused(api.post(f"/v1/users/{NOBODY}?op=block", {"blockedUserId": NOBODY + "1"}), 404, "unknown_user")
    assert f"'{NOBODY}'" in problem["detail"]
    problem = refused(api.post(f"/v1/users/{ann}?op=block", {"blockedUserId": NOBODY + "1"}), 404, "unknown_user")
    assert f"'{NOBODY}1'" in problem["detail"]
    refused(api.post(f"/v1/users/{ann}?op=unblock", {"blockedUserId": ann}), 409, "not_blocked")


def test_a_user_is_shown_with_groups_and_blocks(api: Api) -> None:
    """Ann sees her name, her groups with the head at joining, and whom she blocks; lists, even when empty."""
    ann, bob = api.user("ann"), api.user("bob")
    empty = {"userId": ann, "username": "ann", "groups": [], "blocks": []}
    assert api.get(f"/v1/users/{ann}").json() == empty
    group = api.group("hikers", bob)
    api.groupwide(bob, group, "before ann")
    api.add(group, ann)
    api.block(ann, bob)
    joined = {"groupId": group, "groupName": "hikers", "joinedSeq": 1}
    assert api.get(f"/v1/users/{ann}").json() == {**empty, "groups": [joined], "blocks": [bob]}


def test_an_unknown_user_is_not_shown(api: Api) -> None:
    """404 for ids that nobody has, also strange ones."""
    for user_id in (NOBODY, "x", "%00", "%F0%9F%92%A9", "a" * 1000):
        refused(api.get(f"/v1/users/{user_id}"), 404, "unknown_user")
