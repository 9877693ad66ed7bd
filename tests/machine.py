"""Calls in any mixture, over HTTP, each answer held against the reference model: what `test_machine.py` runs.

Each example has users and groups of its own on a server shared by many.
"""

from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any
from uuid import uuid4

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.reference import OK, Given, Json, Page, Reference
from tests.served import Served, outcome
from tests.server import ServerProcess

WAIT_S = 60.0  # twice as long as the connections' patience: a long-poll that is not woken fails

user = st.integers(0, 3)
group = st.integers(0, 2)
back = st.integers(0, 12)  # how many cursors ago
limits = st.none() | st.integers(1, 3)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)


class Machine(RuleBasedStateMachine):
    """Users 0 to 3, groups 0 to 2; `cursors` keeps every cursor ever given, with what it stands for."""

    may_restart = False

    def __init__(self, served: Served) -> None:
        super().__init__()
        self.served = served
        self.model = Reference()
        self.users: list[str] = []
        self.groups: list[str] = []
        self.cursors: dict[str, list[tuple[str, Given]]] = {}
        self.keyed: list[tuple[str, Json, str, Json]] = []
        self.restarts = 0
        self._keys = (f"{uuid4()}" for _ in count())

    @initialize(members=st.sets(st.tuples(group, user), min_size=3, max_size=8))
    def begin(self, members: set[tuple[int, int]]) -> None:
        """Four users, three groups, some in them, and a few messages, sent at once and read one by one."""
        for name in ("ann", "bob", "carol", "eve"):
            self.users.append(self.served.post("/v1/users/create", {"username": name}).json()["userId"])
            self.model.users[self.users[-1]] = name
            self.cursors[self.users[-1]] = []
        for name in ("friends", "family", "work"):
            self.groups.append(self.served.post("/v1/groups/create", {"groupName": name}).json()["groupId"])
            self.model.groups[self.groups[-1]] = name
        for group, user in sorted(members):
            self.change_group(group, user, is_add=True)
        self.send_together([(0, 1), (1, 0), (2, 3), (3, 2), (0, 2), (1, 3)])
        self.poll_to_the_end(0, limit=1, with_sent=True, from_start=True)

    # Writing

    @rule(user=user, other=user, is_block=st.booleans())
    def change_block(self, user: int, other: int, is_block: bool) -> None:
        """Block or unblock, whether or not it is so already."""
        blocker, blocked = self.users[user], self.users[other]
        expected = (self.model.block if is_block else self.model.unblock)(blocker, blocked)
        op = "block" if is_block else "unblock"
        response = self.served.post(f"/v1/users/{blocker}?op={op}", {"blockedUserId": blocked})
        assert outcome(response) == expected

    @rule(group=group, user=user, is_add=st.booleans())
    def change_group(self, group: int, user: int, is_add: bool) -> None:
        """Add or remove, whether or not it is so already."""
        group_id, user_id = self.groups[group], self.users[user]
        expected = (self.model.add if is_add else self.model.remove)(group_id, user_id)
        op = "add" if is_add else "remove"
        assert outcome(self.served.post(f"/v1/groups/{group_id}?op={op}", {"userId": user_id})) == expected

    @rule(sender=user, to=st.integers(0, 6), text=texts, is_keyed=st.booleans())
    def send(self, sender: int, to: int, text: str, is_keyed: bool) -> None:
        """To a user (oneself too) or a group, allowed or not."""
        path, body, is_group = self._draft(sender, to, text)
        key = next(self._keys) if is_keyed else None
        response = self.served.post(path, body, key)
        assert outcome(response) == self.model.may_send(*_ends(body), is_group)
        if response.status_code == 200:
            self._take(body, response.json(), is_group)
            if key:
                self.keyed.append((path, body, key, response.json()))

    @rule(group=group, which=user, times=st.integers(1, 3))
    def send_as_a_member(self, group: int, which: int, times: int) -> None:
        """To a group by somebody in it, if there is anybody."""
        inside = [n for n, user_id in enumerate(self.users) if self.groups[group] in self.model.stays[user_id]]
        for n in range(times if inside else 0):
            self.send(inside[which % len(inside)], 4 + group, f"{n}", is_keyed=False)

    @rule(group=group, user=user, back=back, limit=limits, is_rejoin=st.booleans(), more=st.integers(0, 2))
    def be_away(self, group: int, user: int, back: int, limit: int | None, is_rejoin: bool, more: int) -> None:
        """Somebody is out of a group while others write there, comes (or comes back), and asks by an old cursor."""
        other = (user + 1) % len(self.users)
        if is_rejoin:
            self.change_group(group, user, is_add=True)
            self.poll_by_cursor(user, back, limit, with_sent=False)
        self.change_group(group, user, is_add=False)
        self.change_group(group, other, is_add=True)
        self.send_as_a_member(group, 0, times=2)
        self.change_group(group, user, is_add=True)
        self.send_as_a_member(group, 0, times=more)
        self.poll_by_cursor(user, back, limit, with_sent=False)

    @rule(sends=st.lists(st.tuples(user, st.integers(0, 6)), min_size=2, max_size=8))
    def send_together(self, sends: list[tuple[int, int]]) -> None:
        """Several at once, so that some share a commit and with it a timestamp."""
        drafts = [self._draft(sender, to, f"{n}") for n, (sender, to) in enumerate(sends)]
        answers = list(self.served.pool.map(lambda draft: self.served.post(draft[0], draft[1]), drafts))
        taken = []
        for (_, body, is_group), response in zip(drafts, answers, strict=True):
            assert outcome(response) == self.model.may_send(*_ends(body), is_group)
            if response.status_code == 200:
                _check_echo(body, response.json())
                taken.append((response.json(), is_group))
        self.model.took_together(taken)
        times = Counter(message["timestamp"] for message, _ in taken)
        self.served.seen["equal timestamps"] += sum(n - 1 for n in times.values())

    @precondition(lambda self: self.keyed)
    @rule(which=st.integers(0, 100), is_changed=st.booleans())
    def repeat(self, which: int, is_changed: bool) -> None:
        """A send again under its key: answered as then; with another text under that key: refused."""
        path, body, key, answer = self.keyed[which % len(self.keyed)]
        response = self.served.post(path, {**body, "message": body["message"] + "!"} if is_changed else body, key)
        if is_changed:
            assert outcome(response) == (422, "idempotency_key_reused")
        else:
            assert (outcome(response), response.json()) == (OK, answer)

    @rule(sender=user, to=st.integers(0, 6))
    def race_under_one_key(self, sender: int, to: int) -> None:
        """Six equal calls at once under one key take effect once."""
        path, body, is_group = self._draft(sender, to, "once")
        expected, key = self.model.may_send(*_ends(body), is_group), next(self._keys)
        answers = list(self.served.pool.map(lambda _: self.served.post(path, body, key), range(6)))
        assert [outcome(answer) for answer in answers] == [expected] * 6
        if expected == OK:
            assert all(answer.json() == answers[0].json() for answer in answers)
            self._take(body, answers[0].json(), is_group)

    # Reading

    @rule(user=user, limit=limits, with_sent=st.booleans())
    def poll_all(self, user: int, limit: int | None, with_sent: bool) -> None:
        """With neither cursor nor timestamp."""
        self._poll(self.users[user], None, limit, with_sent)

    @rule(user=user, back=back, limit=limits, with_sent=st.booleans())
    def poll_by_cursor(self, user: int, back: int, limit: int | None, with_sent: bool) -> None:
        """With any cursor this user was ever given, the latest most often; then with and without `sent` turned."""
        kept = self.cursors[self.users[user]]
        if kept:
            self._poll(self.users[user], kept[-1 - back % len(kept)], limit, with_sent)
            self._poll(self.users[user], kept[-1], None, not with_sent)

    @rule(user=user, limit=st.integers(1, 3), with_sent=st.booleans(), from_start=st.booleans())
    def poll_to_the_end(self, user: int, limit: int, with_sent: bool, from_start: bool) -> None:
        """Page after page while there is more, from the start or from the latest cursor; then once more."""
        user_id = self.users[user]
        kept = self.cursors[user_id]
        cursor = None if from_start or not kept else kept[-1]
        more = True
        while more:
            more = self._poll(user_id, cursor, limit, with_sent).more
            cursor = kept[-1]
        assert not self._poll(user_id, cursor, None, with_sent).messages

    @rule(user=user, which=st.integers(0, 100), shift=st.integers(-1, 1), limit=limits, with_sent=st.booleans())
    def poll_by_timestamp(self, user: int, which: int, shift: int, limit: int | None, with_sent: bool) -> None:
        """At, just before and just after a message's timestamp."""
        times = self.model.times_around(self.users[user]) or [10**12]
        timestamp = times[-1 - which % len(times)] + shift
        response = self._get(self.users[user], limit, with_sent, timestamp=timestamp)
        expected = self.model.poll_since(self.users[user], timestamp, self._room(response, limit), with_sent)
        self._check(response, expected, limit)
        assert "cursor" not in response

    @rule(user=user, limit=st.integers(1, 3), with_sent=st.booleans())
    def poll_to_the_end_by_timestamp(self, user: int, limit: int, with_sent: bool) -> None:
        """Beginning with neither, then always passing on the largest timestamp received, gives everything once."""
        user_id, received = self.users[user], []
        page = self._get(user_id, limit, with_sent)["messages"]
        while page:
            received += page
            timestamp = max(int(message["timestamp"]) for message in page)
            page = self._get(user_id, limit, with_sent, timestamp=timestamp)["messages"]
        assert received == self.model.poll_since(user_id, 0, None, with_sent).messages

    @rule(user=user, with_sent=st.booleans())
    def ask_for_now(self, user: int, with_sent: bool) -> None:
        """`cursor=now`: a cursor, no messages."""
        response = self._get(self.users[user], None, with_sent, cursor="now")
        assert set(response) == {"messages", "cursor"}
        assert response["messages"] is None
        self.cursors[self.users[user]].append((response["cursor"], self.model.now(self.users[user], with_sent)))

    @rule(user=user, sender=user, limit=limits, with_sent=st.booleans())
    def wait_for_news(self, user: int, sender: int, limit: int | None, with_sent: bool) -> None:
        """A long-poll that begins about when a message is sent answers with it."""
        reader, kept = self.users[user], self.cursors[self.users[user]]
        path, body, _ = self._draft(sender, user, "wake up")
        if not kept or self.model.may_send(self.users[sender], reader, is_group=False) != OK:
            return
        cursor, given = kept[-1]
        if self.model.poll(reader, given, limit, with_sent).messages:
            return
        waiting = self.served.pool.submit(self._get, reader, limit, with_sent, cursor=cursor, wait=WAIT_S)
        self._take(body, self.served.post(path, body).json(), is_group=False)
        response = waiting.result()
        self._keep(reader, response, self.model.poll(reader, given, self._room(response, limit), with_sent), limit)

    @rule(user=user, other=user)
    def use_anothers_cursor(self, user: int, other: int) -> None:
        """A cursor is good for the user it was given to."""
        if user != other and self.cursors[self.users[other]]:
            path = f"/v1/messages/{self.users[user]}"
            response = self.served.get(path, cursor=self.cursors[self.users[other]][-1][0])
            assert outcome(response) == (400, "bad_cursor")

    @rule(
        group=group, user=user, after=st.integers(0, 9), before=st.none() | st.integers(0, 9), limit=st.integers(1, 3)
    )
    def read_history(self, group: int, user: int, after: int, before: int | None, limit: int) -> None:
        """A group's messages by seq, from either side, for members."""
        group_id, user_id = self.groups[group], self.users[user]
        where = {"after": after} if before is None else {"before": before}
        response = self.served.get(f"/v1/groups/{group_id}/messages", userId=user_id, limit=limit, **where)
        assert outcome(response) == self.model.may_look(group_id, user_id)
        if response.status_code == 200:
            self._check(response.json(), self.model.history(group_id, user_id, after, before, limit), limit)

    @rule(group=group, user=user, after=user)
    def look_around(self, group: int, user: int, after: int) -> None:
        """Users, groups and members are shown as they are."""
        group_id, user_id = self.groups[group], self.users[user]
        assert self.served.get(f"/v1/users/{user_id}").json() == self.model.user_shown(user_id)
        shown = self.served.get(f"/v1/groups/{group_id}", userId=user_id)
        listed = self.served.get(f"/v1/groups/{group_id}/members", userId=user_id, after=self.users[after], limit=3)
        assert outcome(shown) == outcome(listed) == self.model.may_look(group_id, user_id)
        if shown.status_code == 200:
            assert shown.json() == self.model.group_shown(group_id, user_id)
            assert listed.json() == {"members": self.model.members(group_id, self.users[after])}

    @precondition(lambda self: self.may_restart and self.restarts < 2)
    @rule(end=st.sampled_from([ServerProcess.kill, ServerProcess.terminate]))
    def restart(self, end: Callable[[ServerProcess], object]) -> None:
        """The server is killed, or asked to end, and started again."""
        self.restarts += 1
        self.served.restart(end)

    def _draft(self, sender: int, to: int, text: str) -> tuple[str, Json, bool]:
        is_group = to > 3
        path = f"/v1/messages/send?type={'group' if is_group else 'private'}"
        recipient = {"groupId": self.groups[to - 4]} if is_group else {"receiverId": self.users[to]}
        return path, {"senderId": self.users[sender], **recipient, "message": text}, is_group

    def _take(self, body: Json, message: Json, is_group: bool) -> None:
        _check_echo(body, message)
        self.model.took(message, is_group)

    def _poll(self, user: str, kept: tuple[str, Given] | None, limit: int | None, with_sent: bool) -> Page:
        cursor, given = kept or (None, None)
        response = self._get(user, limit, with_sent, cursor=cursor)
        expected = self.model.poll(user, given, self._room(response, limit), with_sent)
        self._keep(user, response, expected, limit)
        return expected

    def _keep(self, user: str, response: Json, expected: Page, limit: int | None) -> None:
        self._check(response, expected, limit)
        assert expected.given is not None
        self.cursors[user].append((response["cursor"], expected.given))

    def _get(self, user: str, limit: int | None, with_sent: bool, **params: object) -> Any:
        sent = "include" if with_sent else None
        response = self.served.get(f"/v1/messages/{user}", **params, limit=limit, sent=sent)  # as hot polls have them
        assert outcome(response) == OK, response.text
        return response.json()

    def _room(self, response: Json, limit: int | None) -> int | None:
        """How many messages the page had room for: the limit, or fewer (but some) where its text is bounded."""
        given = len(response["messages"] or ())
        is_short = self.served.has_short_pages and limit is not None and 0 < given < limit and response.get("more")
        return given if is_short else limit

    def _check(self, response: Json, expected: Page, limit: int | None) -> None:
        assert response["messages"] == (expected.messages or None)
        assert response.get("more", False) == (expected.more and limit is not None)
        assert set(response) <= {"messages", "more", "cursor"}
        self.served.seen["more"] += expected.more


class Restarting(Machine):
    """The same, with restarts between the steps."""

    may_restart = True


def _ends(body: Json) -> tuple[str, str]:
    return body["senderId"], body.get("receiverId") or body["groupId"]


def _check_echo(body: Json, message: Json) -> None:
    assert set(message) == {"senderId", "message", "recipientId", "timestamp", "messageId", "seq"}
    assert (message["senderId"], message["recipientId"], message["message"]) == (*_ends(body), body["message"])
    assert isinstance(message["timestamp"], str)
