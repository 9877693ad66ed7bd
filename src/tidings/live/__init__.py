"""Live delivery: open streams, and what they share."""

from tidings.live.session import Ending, Event, Outlet, Session
from tidings.live.streams import Streams

__all__ = ["Ending", "Event", "Outlet", "Session", "Streams"]
