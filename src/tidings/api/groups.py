"""Groups over HTTP: making them, who is in them, and what was said."""

import msgspec

from tidings.api.call import Call
from tidings.api.operation import (
    ASKER,
    GROUP,
    LIMIT,
    MESSAGE,
    OTHER,
    READS,
    USER,
    WRITES,
    Link,
    Param,
    integer,
    operation,
)
from tidings.api.parse import Form, Id, Name, parse
from tidings.api.query import find_key, find_limit, find_seq, query, required
from tidings.api.replies import Reply, reply
from tidings.api.users import DONE, HI, Done
from tidings.errors import Malformed
from tidings.model import Group, GroupJoined, Message, User


class NewGroup(msgspec.Struct, rename="camel"):
    """A group to make; it starts empty."""

    group_name: Name


class Member(msgspec.Struct, rename="camel"):
    """Whom to add or remove."""

    user_id: Id


class Members(msgspec.Struct, omit_defaults=True):
    """A page of members in the order of their ids; `more` if there are any after it."""

    members: list[User]
    more: bool = False


class History(msgspec.Struct, omit_defaults=True):
    """A page of a group's messages, oldest first, or null; `more` if there are any beyond it in the way asked for."""

    messages: list[Message] | None
    more: bool = False


NEW_GROUP = Form(NewGroup)
MEMBER = Form(Member)
IN_IT = {"groupId": "$request.path.groupId"}
STAY = {**IN_IT, "userId": "$request.body#/userId"}
PAGE_ON = {**IN_IT, "userId": "$request.query.userId"}


@operation(
    "createGroup",
    "Make a group; it starts empty",
    bodies={"group": (NEW_GROUP, {"groupName": "hikers"})},
    answer=Group,
    example=Group(GROUP, "hikers"),
    codes=("name_too_long", *WRITES),
    links=(Link("changeGroup", "Add a member.", {"groupId": "$response.body#/groupId", "op": "add"}),),
)
async def create(call: Call) -> Reply:
    """Make a group."""
    wanted = await parse(call, NEW_GROUP)
    key = find_key(call, "create group", wanted.group_name)
    return reply(await call.services.groups.create(wanted.group_name, key))


@operation(
    "changeGroup",
    "Add a member to a group, or remove one",
    bodies={"member": (MEMBER, {"userId": USER})},
    params=(Param("op", "What to do.", {"enum": ["add", "remove"]}, "add", required=True),),
    answer=Done,
    example=DONE,
    codes=(
        *("unknown_operation", "unknown_group", "unknown_user", "already_a_member", "not_a_member_of_it"),
        *("too_many_groups", "group_full", *WRITES),
    ),
    links=(
        Link("showGroup", "Look at it as the member.", STAY),
        Link("listMembers", "See who is in it.", STAY),
        Link("readHistory", "Read what was said.", STAY),
        Link("showUser", "See the groups they are in.", {"userId": STAY["userId"]}),
        Link("readMessages", "Ask for their messages.", {"userId": STAY["userId"]}),
        Link("sendMessage", "Write to all.", {"type": "group"}, {"senderId": STAY["userId"], **IN_IT, "message": HI}),
        Link("changeGroup", "Remove the member.", {**IN_IT, "op": "remove"}, {"userId": STAY["userId"]}),
    ),
)
async def change(call: Call) -> Reply:
    """Add or remove."""
    wanted = await parse(call, MEMBER)
    op = query(call, "op").get("op", "")
    groups, group_id, user_id = call.services.groups, call.path("groupId"), wanted.user_id
    key = find_key(call, op, group_id, user_id)
    if op == "add":
        await groups.add(group_id, user_id, key)
    elif op == "remove":
        await groups.remove(group_id, user_id, key)
    else:
        raise Malformed("unknown_operation", "The parameter op must be add or remove.")
    return reply(DONE)


@operation(
    "showGroup",
    "A group, to one of its members",
    params=(ASKER,),
    answer=GroupJoined,
    example={"groupId": GROUP, "groupName": "hikers", "joinedSeq": 0},
    codes=("missing_field", "unknown_user", "unknown_group", "not_a_member", *READS),
)
async def show(call: Call) -> Reply:
    """Show a group."""
    asker_id = required(query(call, "userId"), "userId")
    return reply(await call.services.groups.show(call.path("groupId"), asker_id))


@operation(
    "listMembers",
    "A group's members, in the order of their ids, to one of them",
    params=(
        ASKER,
        Param("after", "Only members with ids above this one: the last of the page before.", {"type": "string"}, OTHER),
        LIMIT,
    ),
    answer=Members,
    example=Members([User(USER, "ann"), User(OTHER, "bob")]),
    codes=("missing_field", "bad_limit", "unknown_user", "unknown_group", "not_a_member", *READS),
    links=(Link("listMembers", "Go on.", {**PAGE_ON, "after": "$response.body#/members/0/userId"}),),
)
async def members(call: Call) -> Reply:
    """List members."""
    given = query(call, "userId", "after", "limit")
    limit = find_limit(given, call.settings.page_max) or call.settings.page_max
    asker_id, after = required(given, "userId"), given.get("after", "")
    page, more = await call.services.groups.members(call.path("groupId"), asker_id, after, limit)
    return reply(Members(page, more))


@operation(
    "readHistory",
    "A group's messages by seq, oldest first, to one of its members",
    params=(
        ASKER,
        Param("after", "Only messages with a seq above this one, from there on.", integer(0), 41),
        Param("before", "Only messages with a seq below this one, the last of them. Not with after.", integer(0), 42),
        LIMIT,
    ),
    answer=History,
    example=History([MESSAGE]),
    codes=(
        *("missing_field", "bad_limit", "bad_seq", "both_after_and_before"),
        *("unknown_user", "unknown_group", "not_a_member", *READS),
    ),
    links=(Link("readHistory", "Go on.", {**PAGE_ON, "after": "$response.body#/messages/0/seq"}),),
)
async def history(call: Call) -> Reply:
    """Read a group's history."""
    given = query(call, "userId", "after", "before", "limit")
    limit = find_limit(given, call.settings.page_max) or call.settings.page_max
    after, before = find_seq(given, "after"), find_seq(given, "before")
    if after is not None and before is not None:
        raise Malformed("both_after_and_before", "after and before are two ways to read; give one.")
    asker_id = required(given, "userId")
    page, more = await call.services.groups.history(call.path("groupId"), asker_id, after, before, limit)
    return reply(History(page or None, more))
