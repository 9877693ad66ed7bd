"""Every URL: its methods and what answers them.

Before any of them, `api/limits.py` refuses foreign pages and hosts and what is too long. Polls without news are
answered by `api/hot.py`, before routing. There is no authentication yet: who calls is who they say they are.
"""

from collections.abc import Mapping

import msgspec
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from tidings.api import about, groups, live, messages, users
from tidings.api.call import Endpoint, Shared, refuse
from tidings.api.limits import Guard
from tidings.api.openapi import document
from tidings.api.operation import Operation
from tidings.config import Settings
from tidings.errors import Unknown
from tidings.live import Streams
from tidings.metrics import Metrics
from tidings.service import Services

# GET means HEAD, too. A path that is there but for a slash at its end is not there.
ROUTES: Mapping[str, Mapping[str, Operation]] = {
    "/v1/messages/send": {"POST": messages.send},  # ?type=private|group
    "/v1/messages/{userId}": {"GET": messages.read},  # ?cursor=|timestamp= &limit= &wait= &sent=
    "/v1/messages/{userId}/stream": {"GET": live.stream},  # ?cursor= &sent=, or Last-Event-ID
    "/v1/messages/{userId}/live": {"GET": live.live},  # WebSocket; ?cursor= &sent=
    "/v1/users/create": {"POST": users.create},
    "/v1/users/{userId}": {"POST": users.change, "GET": users.show},  # ?op=block|unblock
    "/v1/groups/create": {"POST": groups.create},
    "/v1/groups/{groupId}": {"POST": groups.change, "GET": groups.show},  # ?op=add|remove; ?userId=
    "/v1/groups/{groupId}/members": {"GET": groups.members},  # ?userId= &after= &limit=
    "/v1/groups/{groupId}/messages": {"GET": groups.history},  # ?userId= &after=|before= &limit=
    "/": {"GET": about.root},
    "/healthz": {"GET": about.healthz},
    "/readyz": {"GET": about.readyz},
    "/metrics": {"GET": about.metrics},
    "/openapi.json": {"GET": about.openapi},
    "/docs": {"GET": about.docs},
}


class Front:
    """The ASGI callable for all routes. Paths without parameters are looked up, which spares a send the routing."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._guard = Guard(shared.settings)
        endpoints = {
            path: Endpoint(path, {method: operation.handler for method, operation in methods.items()}, shared)
            for path, methods in ROUTES.items()
        }
        self._plain = {path: endpoint for path, endpoint in endpoints.items() if "{" not in path}
        routes = [Route(path, endpoint) for path, endpoint in endpoints.items()]
        self._router = Router(routes, redirect_slashes=False, default=self._lost)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that may pass, refuse others."""
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        refusal = self._guard.refuses(scope)
        if refusal is not None:
            await refuse(refusal, "refused", self._shared, scope, send)
            return
        await self._plain.get(scope["path"], self._router)(scope, receive, send)

    async def _lost(self, scope: Scope, receive: Receive, send: Send) -> None:
        await refuse(Unknown("unknown_path", "There is nothing at this path."), "unknown", self._shared, scope, send)


def build(services: Services, settings: Settings, metrics: Metrics, streams: Streams) -> ASGIApp:
    """All routes over these services, as one ASGI callable for http."""
    described = msgspec.json.encode(document(ROUTES, settings))
    return Front(Shared(services, settings, metrics, described, streams))
