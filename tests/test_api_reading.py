"""Reading over HTTP: everything, by timestamp, by cursor, in pages, and what a read means after joining and leaving."""

import pytest

from tests.api_client import Api, refused

NOBODY = "user-0000000000000000000000000000"


def test_nothing_is_null_and_bears_a_cursor(api: Api) -> None:
    """A new user has no messages: null, not an empty list."""
    answer = api.poll(api.user("ann"))
    assert list(answer) == ["messages", "cursor"]
    assert answer["messages"] is None


def test_everything_comes_oldest_first_over_all_mailboxes(api: Api) -> None:
    """Private messages and two groups' come merged by time, not group by group; the cursor comes last."""
    ann, bob = api.user("ann"), api.user("bob")
    hikers, cooks = api.group("hikers", ann, bob), api.group("cooks", ann, bob)
    sent = [
        api.groupwide(bob, hikers, "1"),
        api.private(bob, ann, "2"),
        api.groupwide(ann, cooks, "3"),
        api.groupwide(bob, hikers, "4"),
        api.private(bob, ann, "5"),
    ]
    answer = api.poll(ann)
    assert list(answer) == ["messages", "cursor"]
    assert answer["messages"] == sent


def test_a_timestamp_gives_only_what_is_strictly_later(api: Api) -> None:
    """The timestamp of a message can be passed straight back: the next ones come, without it and without a cursor."""
    ann, bob = api.user("ann"), api.user("bob")
    sent = [api.private(bob, ann, str(n)) for n in range(3)]
    for index, message in enumerate(sent):
        assert api.poll(ann, timestamp=message["timestamp"]) == {"messages": sent[index + 1 :] or None}
    assert api.poll(ann, timestamp=int(sent[0]["timestamp"]) - 1) == {"messages": sent}
    assert api.poll(ann, timestamp="9" * 5000) == {"messages": None}


@pytest.mark.parametrize("none", ["", "0", "-1", "-" + "9" * 5000, "000"])
def test_a_timestamp_of_nothing_is_none(api: Api, none: str) -> None:
    """Empty, zero or negative: everything, with a cursor, as if it had not been said; even beside a cursor."""
    ann = api.user("ann")
    message = api.private(ann, ann, "note")
    answer = api.poll(ann, timestamp=none)
    assert answer["messages"] == [message]
    assert api.poll(ann, timestamp=none, cursor=answer["cursor"])["messages"] is None


@pytest.mark.parametrize("text", ["yesterday", "1.5", "1e3", " 1", "1 ", "0x1", "٣", "1_000", "+", "NaN"])
def test_a_timestamp_that_is_no_integer_is_refused(api: Api, text: str) -> None:
    """Words and fractions are a 400, not zero."""
    refused(api.get(f"/v1/messages/{api.user('ann')}", timestamp=text), 400, "bad_timestamp")


def test_a_timestamp_reaches_back_in_groups_joined_later(api: Api) -> None:
    """By timestamp, what is later counts in the groups of now, whenever joined."""
    ann, bob = api.user("ann"), api.user("bob")
    before = api.private(ann, bob, "start")
    group = api.group("hikers", ann)
    api.groupwide(ann, group, "before bob")
    api.add(group, bob)
    assert api.texts(bob, timestamp=before["timestamp"]) == ["before bob"]


def test_a_cursor_gives_each_message_once(api: Api) -> None:
    """Whoever passes on the last cursor gets what is new, once; an old cursor gives the same again."""
    ann, bob = api.user("ann"), api.user("bob")
    group = api.group("hikers", ann, bob)
    start = api.poll(ann)["cursor"]
    api.private(bob, ann, "1")
    api.groupwide(bob, group, "2")
    first = api.poll(ann, cursor=start)
    assert [message["message"] for message in first["messages"]] == ["1", "2"]
    assert api.poll(ann, cursor=first["cursor"])["messages"] is None
    api.private(bob, ann, "3")
    second = api.poll(ann, cursor=first["cursor"])
    assert [message["message"] for message in second["messages"]] == ["3"]
    assert api.texts(ann, cursor=start) == ["1", "2", "3"]
    assert api.poll(ann, cursor=second["cursor"])["messages"] is None


def test_an_empty_cursor_is_none_and_now_is_after_everything(api: Api) -> None:
    """`cursor=` gives all; `cursor=now`, without waiting, only a cursor, after which what is newer comes."""
    ann, bob = api.user("ann"), api.user("bob")
    api.private(bob, ann, "old")
    assert api.texts(ann, cursor="") == ["old"]
    for params in ({}, {"limit": 1}, {"wait": 60}, {"sent": "include"}):
        now = api.poll(ann, cursor="now", **params)
        assert now["messages"] is None
        assert "more" not in now
    api.private(bob, ann, "new")
    assert api.texts(ann, cursor=now["cursor"]) == ["new"]


def test_a_group_joined_after_the_cursor_counts_from_joining(api: Api) -> None:
    """With a cursor, Bob gets nothing from before he joined; without one, the group from its first message on."""
    ann, bob = api.user("ann"), api.user("bob")
    group = api.group("hikers", ann)
    cursor = api.poll(bob)["cursor"]
    api.groupwide(ann, group, "before")
    api.add(group, bob)
    api.groupwide(ann, group, "after")
    assert api.texts(bob, cursor=cursor) == ["after"]
    assert api.texts(bob) == ["before", "after"]


def test_a_rejoined_group_counts_from_the_last_joining(api: Api) -> None:
    """What was said while Bob was out is not news to his cursor, whether he polled meanwhile or not."""
    ann, bob = api.user("ann"), api.user("bob")
    group = api.group("hikers", ann, bob)
    api.groupwide(ann, group, "first")
    cursors = [api.poll(bob)["cursor"]]
    api.remove(group, bob)
    cursors.append(api.poll(bob)["cursor"])
    api.groupwide(ann, group, "while out")
    api.add(group, bob)
    api.groupwide(ann, group, "back")
    for cursor in cursors:
        assert api.texts(bob, cursor=cursor) == ["back"]


def test_after_a_removal_nothing_of_the_group_is_read(api: Api) -> None:
    """None of its messages, old or new, by no way of asking; their senders' other messages stay."""
    ann, bob = api.user("ann"), api.user("bob")
    group = api.group("hikers", ann, bob)
    cursor = api.poll(bob)["cursor"]
    stamp = api.private(ann, bob, "private")["timestamp"]
    api.groupwide(ann, group, "to all")
    api.groupwide(bob, group, "his own")
    api.remove(group, bob)
    assert api.texts(bob) == api.texts(bob, cursor=cursor) == api.texts(bob, timestamp=int(stamp) - 1) == ["private"]
    assert api.texts(bob, limit=10) == ["private"]


def test_pages_cover_everything_once(api: Api) -> None:
    """Seven messages by limit: every page size gives each once and in order, `more` on all pages but the last."""
    ann, bob = api.user("ann"), api.user("bob")
    group = api.group("hikers", ann, bob)
    sent = [api.private(bob, ann, str(n)) if n % 2 else api.groupwide(bob, group, str(n)) for n in range(7)]
    for limit in (1, 2, 3, 6, 7, 8, 1000):
        answer = api.poll(ann, limit=limit)
        read = list(answer["messages"])
        while answer.get("more"):
            assert len(answer["messages"]) == limit
            answer = api.poll(ann, limit=limit, cursor=answer["cursor"])
            read += answer["messages"]
        assert read == sent
        assert "more" not in answer
        assert api.poll(ann, cursor=answer["cursor"])["messages"] is None


def test_pages_by_timestamp_cover_everything_once(api: Api) -> None:
    """The largest timestamp received is passed on: nothing is missed and nothing comes twice."""
    ann, bob = api.user("ann"), api.user("bob")
    sent = [api.private(bob, ann, str(n)) for n in range(5)]
    read, answer = [], api.poll(ann, timestamp=1, limit=2)
    while answer["messages"]:
        read += answer["messages"]
        assert answer.get("more", False) == (len(read) < len(sent))
        answer = api.poll(ann, timestamp=read[-1]["timestamp"], limit=2)
    assert read == sent


def test_parameters_must_be_what_they_are(api: Api) -> None:
    """Each wrong value has its code; nothing is guessed."""
    ann = api.user("ann")
    cursor = api.poll(ann)["cursor"]
    wrong: list[tuple[dict[str, str], str]] = [
        *(({"limit": limit}, "bad_limit") for limit in ("0", "1001", "-1", "", "x", "1.5", "1e2")),
        *(({"wait": wait}, "bad_wait") for wait in ("-1", "60.1", "x", "", "nan", "inf", "1e400", "1,5")),
        *(({"sent": sent}, "bad_sent") for sent in ("exclude", "1", "Include")),
        *(
            ({"cursor": bad}, "bad_cursor")
            for bad in ("x", "NOW", cursor[:-1], cursor + "A", "A" + cursor, "é", "A" * 9000)
        ),
        ({"cursor": cursor, "timestamp": "1"}, "both_cursor_and_timestamp"),
        ({"cursor": "now", "timestamp": "1"}, "both_cursor_and_timestamp"),
    ]
    for params, code in wrong:
        refused(api.get(f"/v1/messages/{ann}", **params), 400, code)


def test_repeated_parameters_are_refused_and_unknown_ones_ignored(api: Api) -> None:
    """cursor= twice is ambiguous; what we don't know is not ours to judge."""
    ann = api.user("ann")
    for query in ("limit=1&limit=1", "cursor=&cursor=", "timestamp=1&%74imestamp=2"):
        refused(api.get(f"/v1/messages/{ann}?{query}"), 400, "malformed")
    assert api.get(f"/v1/messages/{ann}?utm=1&utm=2&&=&x").json()["messages"] is None


def test_a_cursor_is_its_users_alone(api: Api) -> None:
    """Ann's cursor is a 400 for Bob: nobody is given what another's cursor says."""
    ann, bob = api.user("ann"), api.user("bob")
    refused(api.get(f"/v1/messages/{bob}", cursor=api.poll(ann)["cursor"]), 400, "bad_cursor")


@pytest.mark.parametrize("params", [{}, {"timestamp": 1}, {"limit": 5}, {"wait": 5}, {"cursor": "now"}])
def test_an_unknown_user_has_no_mailbox(api: Api, params: dict[str, str | float]) -> None:
    """404, however asked, at once, and before any other header goes out."""
    refused(api.get(f"/v1/messages/{NOBODY}", **params), 404, "unknown_user")


def test_copies_of_what_one_sent_come_only_when_asked_for(api: Api) -> None:
    """Ann's second device sees what she wrote privately, marked; a group's message comes once, unmarked."""
    ann, bob = api.user("ann"), api.user("bob")
    group = api.group("hikers", ann, bob)
    private, groupwide = api.private(ann, bob, "to bob"), api.groupwide(ann, group, "to all")
    assert api.poll(ann)["messages"] == [groupwide]
    assert api.poll(ann, sent="include")["messages"] == [{**private, "sent": True}, groupwide]
    assert api.poll(bob)["messages"] == [private, groupwide]


def test_copies_have_seqs_of_their_own(api: Api) -> None:
    """Each copy bears its place among the sender's copies, not the receiver's seq."""
    ann, bob, carol = api.user("ann"), api.user("bob"), api.user("carol")
    api.private(carol, bob, "first to bob")
    assert api.private(ann, bob, "one")["seq"] == 2
    api.private(ann, carol, "two")
    assert [message["seq"] for message in api.poll(ann, sent="include")["messages"]] == [1, 2]


def test_a_poll_without_sent_keeps_the_place_among_the_copies(api: Api) -> None:
    """Ann asks with, without, and again with copies: those sent in between come then, each once."""
    ann, bob = api.user("ann"), api.user("bob")
    cursor = api.poll(ann, sent="include")["cursor"]
    api.private(ann, bob, "one")
    answer = api.poll(ann, cursor=cursor)
    assert answer["messages"] is None
    api.private(ann, bob, "two")
    assert api.texts(ann, cursor=answer["cursor"], sent="include") == ["one", "two"]


def test_head_answers_without_a_body(api: Api) -> None:
    """HEAD says what GET would, in headers alone."""
    ann = api.user("ann")
    api.private(ann, ann, "note")
    got, head = api.get(f"/v1/messages/{ann}"), api.client.head(f"/v1/messages/{ann}")
    assert head.status_code == 200
    assert head.headers["content-length"] == got.headers["content-length"]
    assert api.client.head(f"/v1/messages/{NOBODY}").status_code == 404


def test_answers_are_kept_by_no_cache(api: Api) -> None:
    """Mail is nobody else's: no-store, and no guessing of types."""
    headers = api.get(f"/v1/messages/{api.user('ann')}").headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
