"""Groups over HTTP: making them, membership, and what members look at."""

import pytest

from tests.api_client import Api, Json, refused

NOBODY = "user-0000000000000000000000000000"
NOWHERE = "group-0000000000000000000000000000"


def test_making_a_group_gives_an_id_and_the_name(api: Api) -> None:
    """The answer is exactly groupId and groupName."""
    group = api.post("/v1/groups/create", {"groupName": "hikers"}).json()
    assert list(group) == ["groupId", "groupName"]
    assert group["groupName"] == "hikers"
    assert group["groupId"].startswith("group-")


def test_a_group_starts_empty(api: Api) -> None:
    """Who made it is unknown, so nobody is in it: not even its maker may write to it."""
    ann, group = api.user("ann"), api.group("hikers")
    refused(api.get(f"/v1/groups/{group}", userId=ann), 403, "not_a_member")
    body = {"senderId": ann, "groupId": group, "message": "hi"}
    refused(api.post("/v1/messages/send?type=group", body), 403, "not_a_member")


@pytest.mark.parametrize(("name", "code"), [("", "empty_field"), ("g" * 129, "name_too_long"), ("\t", "malformed")])
def test_a_group_name_that_is_none_is_refused(api: Api, name: str, code: str) -> None:
    """The rules for users' names hold for groups'."""
    refused(api.post("/v1/groups/create", {"groupName": name}), 400, code)


def test_adding_and_removing_answer_an_empty_object(api: Api) -> None:
    """Ann is let in and put out again."""
    ann, group = api.user("ann"), api.group("hikers")
    for op in ("add", "remove", "add"):
        answer = api.post(f"/v1/groups/{group}?op={op}", {"userId": ann})
        assert (answer.status_code, answer.json()) == (200, {})


def test_adding_a_member_and_removing_a_stranger_is_a_conflict(api: Api) -> None:
    """What is so already, or is not so, answers 409 under a code that says which."""
    ann, group = api.user("ann"), api.group("hikers")
    refused(api.post(f"/v1/groups/{group}?op=remove", {"userId": ann}), 409, "not_a_member_of_it")
    api.add(group, ann)
    refused(api.post(f"/v1/groups/{group}?op=add", {"userId": ann}), 409, "already_a_member")


def test_a_change_is_checked_body_first_then_op_then_group_then_user(api: Api) -> None:
    """With everything wrong, the first wrong thing is told; repaired one by one, the next."""
    ann, group = api.user("ann"), api.group("hikers")
    refused(api.post(f"/v1/groups/{NOWHERE}?op=paint", {"userId": 7}), 400, "wrong_type")
    refused(api.post(f"/v1/groups/{NOWHERE}?op=paint", {"userId": NOBODY}), 400, "unknown_operation")
    for op, conflict in (("add", "already_a_member"), ("remove", "not_a_member_of_it")):
        refused(api.post(f"/v1/groups/{NOWHERE}?op={op}", {"userId": NOBODY}), 404, "unknown_group")
        refused(api.post(f"/v1/groups/{group}?op={op}", {"userId": NOBODY}), 404, "unknown_user")
        if op == "add":
            api.add(group, ann)
        refused(api.post(f"/v1/groups/{group}?op={op}", {"userId": ann}), 409, conflict)
        api.remove(group, ann) if op == "add" else None


def test_a_member_sees_the_group_and_when_they_joined(api: Api) -> None:
    """joinedSeq is the head at joining; after a re-join it is the later one."""
    ann, bob = api.user("ann"), api.user("bob")
    group = api.group("hikers", ann, bob)
    shown = {"groupId": group, "groupName": "hikers", "joinedSeq": 0}
    assert api.get(f"/v1/groups/{group}", userId=bob).json() == shown
    api.groupwide(ann, group, "one")
    api.remove(group, bob)
    api.groupwide(ann, group, "two")
    api.add(group, bob)
    assert api.get(f"/v1/groups/{group}", userId=bob).json() == {**shown, "joinedSeq": 2}


@pytest.mark.parametrize("what", ["", "/members", "/messages"])
def test_only_members_look_into_a_group(api: Api, what: str) -> None:
    """Who asks must be said, known, and a member, in this order; then the group must exist."""
    ann, eve = api.user("ann"), api.user("eve")
    group = api.group("hikers", ann)
    path = f"/v1/groups/{group}{what}"
    refused(api.get(path), 400, "missing_field")
    refused(api.get(path, userId=""), 400, "missing_field")
    refused(api.get(path, userId=NOBODY), 404, "unknown_user")
    refused(api.get(f"/v1/groups/{NOWHERE}{what}", userId=eve), 404, "unknown_group")
    refused(api.get(path, userId=eve), 403, "not_a_member")
    assert api.get(path, userId=ann).status_code == 200
    api.remove(group, ann)
    refused(api.get(path, userId=ann), 403, "not_a_member")


def test_members_are_listed_in_pages_in_the_order_of_their_ids(api: Api) -> None:
    """Five members in pages of two: each once, in order, and `more` on all pages but the last."""
    people = sorted(api.user(f"member {n}") for n in range(5))
    group = api.group("hikers", *reversed(people))
    path, after = f"/v1/groups/{group}/members", ""
    pages: list[Json] = []
    while not pages or pages[-1].get("more"):
        pages.append(api.get(path, userId=people[0], limit=2, after=after).json())
        after = pages[-1]["members"][-1]["userId"]
    assert [len(page["members"]) for page in pages] == [2, 2, 1]
    assert [member["userId"] for page in pages for member in page["members"]] == people
    assert "more" not in pages[-1]
    assert pages[0]["members"][0]["username"].startswith("member ")
    whole = api.get(path, userId=people[0]).json()
    assert [member["userId"] for member in whole["members"]] == people
    assert api.get(path, userId=people[0], after=people[-1]).json() == {"members": []}


def test_a_limit_must_be_one(api: Api) -> None:
    """1 to 1,000, and nothing else, for members as for history."""
    ann = api.user("ann")
    group = api.group("hikers", ann)
    for what in ("members", "messages"):
        for limit in ("0", "1001", "-1", "x", "1.5", "", " 1", "1" * 5000):
            refused(api.get(f"/v1/groups/{group}/{what}", userId=ann, limit=limit), 400, "bad_limit")
        for good in (1, 1000):
            assert api.get(f"/v1/groups/{group}/{what}", userId=ann, limit=good).status_code == 200


def test_history_goes_forward_from_a_seq(api: Api) -> None:
    """Bob joined late and reads from the first message on, in pages, by seq."""
    ann, bob = api.user("ann"), api.user("bob")
    group = api.group("hikers", ann)
    sent = [api.groupwide(ann, group, f"text {n}") for n in range(1, 6)]
    api.add(group, bob)
    path = f"/v1/groups/{group}/messages"
    assert api.get(path, userId=bob).json() == {"messages": sent}
    assert api.get(path, userId=bob, limit=2).json() == {"messages": sent[:2], "more": True}
    assert api.get(path, userId=bob, limit=2, after=2).json() == {"messages": sent[2:4], "more": True}
    assert api.get(path, userId=bob, limit=2, after=4).json() == {"messages": sent[4:]}
    assert api.get(path, userId=bob, after=5).json() == {"messages": None}
    assert api.get(path, userId=bob, after=2**70).json() == {"messages": None}


def test_history_goes_back_before_a_seq(api: Api) -> None:
    """A client scrolls up: the last ones below a seq, still oldest first, until there are none."""
    ann = api.user("ann")
    group = api.group("hikers", ann)
    sent = [api.groupwide(ann, group, f"text {n}") for n in range(1, 6)]
    path = f"/v1/groups/{group}/messages"
    assert api.get(path, userId=ann, limit=2, before=6).json() == {"messages": sent[3:], "more": True}
    assert api.get(path, userId=ann, limit=2, before=4).json() == {"messages": sent[1:3], "more": True}
    assert api.get(path, userId=ann, limit=2, before=2).json() == {"messages": sent[:1]}
    assert api.get(path, userId=ann, before=2**70).json() == {"messages": sent}
    for nothing in (0, 1):
        assert api.get(path, userId=ann, before=nothing).json() == {"messages": None}


def test_history_takes_one_way_and_true_seqs(api: Api) -> None:
    """after with before, and what is no seq, are refused."""
    ann = api.user("ann")
    path = f"/v1/groups/{api.group('hikers', ann)}/messages"
    refused(api.get(path, userId=ann, after=1, before=2), 400, "both_after_and_before")
    for name in ("after", "before"):
        for seq in ("-1", "x", "1.0", "", "1e3"):
            refused(api.get(path, userId=ann, **{name: seq}), 400, "bad_seq")
