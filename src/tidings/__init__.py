"""Tidings: a messaging backend that an app team runs instead of renting one."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidings.client import Client, Expired, Hole, NotUnderstood, Retries, Unreachable
    from tidings.errors import AnotherHistory, TidingsError

__all__ = [
    "AnotherHistory",
    "Client",
    "Expired",
    "Hole",
    "NotUnderstood",
    "Retries",
    "TidingsError",
    "Unreachable",
]


if not TYPE_CHECKING:  # who checks types shall know that there are no other names

    def __getattr__(name: str) -> object:
        """The client's names, imported when they are asked for: a server has no use for an HTTP client (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from tidings import client, errors

        return getattr(client, name, None) or getattr(errors, name)
