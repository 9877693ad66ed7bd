"""Users over HTTP: signing up, blocking, and what one's own app shows of oneself."""

import msgspec

from tidings.api.call import Call
from tidings.api.operation import GROUP, OTHER, READS, USER, WRITES, Link, Param, operation
from tidings.api.parse import Form, Id, Name, parse
from tidings.api.query import find_key, query
from tidings.api.replies import Reply, reply
from tidings.errors import Malformed
from tidings.model import User, UserShown


class NewUser(msgspec.Struct, rename="camel"):
    """Who signs up; names are not unique."""

    username: Name


class Blocked(msgspec.Struct, rename="camel"):
    """Whose private messages to refuse."""

    blocked_user_id: Id


class Done(msgspec.Struct):
    """It is done; there is nothing to say of it."""


NEW_USER = Form(NewUser, username="userName")
BLOCKED = Form(Blocked)
DONE = Done()

MADE, HI = "$response.body#/userId", "Hi"


@operation(
    "createUser",
    "Sign a user up",
    bodies={"user": (NEW_USER, {"username": "ann"})},
    answer=User,
    example=User(USER, "ann"),
    codes=("name_too_long", *WRITES),
    links=(
        Link("showUser", "Look at the user.", {"userId": MADE}),
        Link("readMessages", "Ask for the user's messages.", {"userId": MADE}),
        Link(
            "sendMessage", "Write to them.", {"type": "private"}, {"senderId": MADE, "receiverId": MADE, "message": HI}
        ),
        Link("changeUser", "Block them.", {"userId": MADE, "op": "block"}, {"blockedUserId": MADE}),
        Link("changeUser", "Unblock them.", {"userId": MADE, "op": "unblock"}, {"blockedUserId": MADE}),
    ),
)
async def create(call: Call) -> Reply:
    """Sign a user up."""
    wanted = await parse(call, NEW_USER)
    key = find_key(call, "create user", wanted.username)
    return reply(await call.services.users.create(wanted.username, key))


@operation(
    "changeUser",
    "Block another user's private messages, or take a block back",
    bodies={"block": (BLOCKED, {"blockedUserId": OTHER})},
    params=(Param("op", "What to do.", {"enum": ["block", "unblock"]}, "block", required=True),),
    answer=Done,
    example=DONE,
    codes=("unknown_operation", "unknown_user", "already_blocked", "not_blocked", "too_many_blocks", *WRITES),
)
async def change(call: Call) -> Reply:
    """Block or unblock."""
    wanted = await parse(call, BLOCKED)
    op = query(call, "op").get("op", "")
    users, user_id, other_id = call.services.users, call.path("userId"), wanted.blocked_user_id
    key = find_key(call, op, user_id, other_id)
    if op == "block":
        await users.block(user_id, other_id, key)
    elif op == "unblock":
        await users.unblock(user_id, other_id, key)
    else:
        raise Malformed("unknown_operation", "The parameter op must be block or unblock.")
    return reply(DONE)


@operation(
    "showUser",
    "A user, the groups they are in, and whom they block",
    answer=UserShown,
    example={
        "userId": USER,
        "username": "ann",
        "groups": [{"groupId": GROUP, "groupName": "hikers", "joinedSeq": 0}],
        "blocks": [OTHER],
    },
    codes=("unknown_user", *READS),
)
async def show(call: Call) -> Reply:
    """Show a user."""
    return reply(await call.services.users.show(call.path("userId")))
