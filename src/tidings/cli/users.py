"""`tidings user create|show`, `tidings block`, `tidings unblock`."""

from typing import TYPE_CHECKING, Annotated

import typer

from tidings.cli.asking import URL, Json, OtherId, Server, UserId, ask
from tidings.cli.screen import Screen

if TYPE_CHECKING:
    from tidings.client import Client

Name = Annotated[str, typer.Argument(metavar="NAME", help="What to be called; need not be unique.", show_default=False)]


def create_user(username: Name, server: Server = URL, as_json: Json = False) -> int:
    """Sign a user up; prints the new id."""

    async def work(tidings: "Client", screen: Screen) -> None:
        user = await tidings.create_user(username)
        if screen.as_json:
            screen.json(user)
        elif screen.is_for_people:
            screen.say("Signed up ", user.username, " as ", user.user_id)
        else:
            screen.fields(user.user_id)

    return ask(server, as_json, work)


def show_user(user_id: UserId, server: Server = URL, as_json: Json = False) -> int:
    """Show a user, their groups, and whom they block."""

    async def work(tidings: "Client", screen: Screen) -> None:
        user = await tidings.user(user_id)
        groups = [(group.group_name, group.group_id) for group in user.groups]
        if screen.as_json:
            screen.json(user)
        elif screen.is_for_people:
            screen.say("", user.username, f"  {user.user_id}")
            screen.rows("In groups", groups)
            screen.rows("Refuses private messages of", [("", other_id) for other_id in user.blocks])
        else:
            screen.fields("user", user.user_id, user.username)
            for name, group_id in groups:
                screen.fields("group", group_id, name)
            for other in user.blocks:
                screen.fields("block", other)

    return ask(server, as_json, work)


def block(user_id: UserId, other_id: OtherId, server: Server = URL, as_json: Json = False) -> int:
    """Refuse private messages of OTHER to USER."""

    async def work(tidings: "Client", screen: Screen) -> None:
        await tidings.block(user_id, other_id)
        screen.done("", user_id, " now refuses private messages of ", other_id)

    return ask(server, as_json, work)


def unblock(user_id: UserId, other_id: OtherId, server: Server = URL, as_json: Json = False) -> int:
    """Take a block back."""

    async def work(tidings: "Client", screen: Screen) -> None:
        await tidings.unblock(user_id, other_id)
        screen.done("", user_id, " now takes private messages of ", other_id)

    return ask(server, as_json, work)
