"""What is allowed, and what happens: the rules between the edges and the store."""

import msgspec

from tidings.service.groups import Groups
from tidings.service.messages import Answer, Messages, Question
from tidings.service.node import Node, key
from tidings.service.users import Users


class Services(msgspec.Struct, frozen=True):
    """All services of one node."""

    node: Node
    users: Users
    groups: Groups
    messages: Messages

    def is_ready(self) -> None:
        """Raises Unavailable if this node should get no calls."""
        self.node.check_ready()


__all__ = ["Answer", "Groups", "Messages", "Node", "Question", "Services", "Users", "key"]
