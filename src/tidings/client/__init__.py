"""The client: `async with Client("http://127.0.0.1:8080") as tidings:`; docs/client.md shows it."""

from tidings.client.calls import Client
from tidings.client.following import Following
from tidings.client.pages import History, Page
from tidings.client.refusals import Expired, Hole, NotUnderstood, Unreachable
from tidings.client.wire import Retries

__all__ = ["Client", "Expired", "Following", "History", "Hole", "NotUnderstood", "Page", "Retries", "Unreachable"]
