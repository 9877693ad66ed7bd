"""`tidings group create|add|remove|show`."""

from typing import TYPE_CHECKING, Annotated

import typer

from tidings.cli.asking import URL, GroupId, Json, Server, UserId, ask
from tidings.cli.screen import Screen

if TYPE_CHECKING:
    from tidings.client import Client

Name = Annotated[str, typer.Argument(metavar="NAME", help="What the group is called.", show_default=False)]
Asker = Annotated[
    str, typer.Option("--as", metavar="USER", help="A member's id: only members look into a group.", show_default=False)
]


def create_group(group_name: Name, server: Server = URL, as_json: Json = False) -> int:
    """Make a group, empty as yet; prints the new id."""

    async def work(tidings: "Client", screen: Screen) -> None:
        group = await tidings.create_group(group_name)
        if screen.as_json:
            screen.json(group)
        elif screen.is_for_people:
            screen.say("Made ", group.group_name, " as ", group.group_id, "; it has no members yet")
        else:
            screen.fields(group.group_id)

    return ask(server, as_json, work)


def add_member(group_id: GroupId, user_id: UserId, server: Server = URL, as_json: Json = False) -> int:
    """Let a user into a group."""

    async def work(tidings: "Client", screen: Screen) -> None:
        await tidings.add_member(group_id, user_id)
        screen.done("", user_id, " is now in ", group_id)

    return ask(server, as_json, work)


def remove_member(group_id: GroupId, user_id: UserId, server: Server = URL, as_json: Json = False) -> int:
    """Take a user out of a group.

    From then on they read none of its messages, old or new.
    """

    async def work(tidings: "Client", screen: Screen) -> None:
        await tidings.remove_member(group_id, user_id)
        screen.done("", user_id, " is no longer in ", group_id)

    return ask(server, as_json, work)


def show_group(group_id: GroupId, asker_id: Asker, server: Server = URL, as_json: Json = False) -> int:
    """Show a group and its members, as one of them sees it."""

    async def work(tidings: "Client", screen: Screen) -> None:
        group = await tidings.group(group_id, asker_id)
        members = [member async for member in tidings.members(group_id, asker_id)]
        if screen.as_json:
            screen.json(
                {
                    "groupId": group.group_id,
                    "groupName": group.group_name,
                    "joinedSeq": group.joined_seq,
                    "members": members,
                }
            )
        elif screen.is_for_people:
            screen.say("", group.group_name, f"  {group.group_id}")
            screen.rows("Members", [(member.username, member.user_id) for member in members])
        else:
            screen.fields("group", group.group_id, group.group_name)
            for member in members:
                screen.fields("member", member.user_id, member.username)

    return ask(server, as_json, work)
