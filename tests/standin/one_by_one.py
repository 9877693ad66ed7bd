"""moto's server, one call at a time: `python one_by_one.py PORT`, by the environment that has moto.

Its own, `moto_server`, gives each call a thread over tables without locks: of several conditional transactions about
one item two can succeed, and one that is refused takes back what others wrote meanwhile.
"""

import sys
from collections.abc import Iterable
from threading import Lock
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple


class OneByOne:
    """A WSGI application that is called again only once it has answered."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._turn = Lock()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        with self._turn:
            return list(self._app(environ, start_response))


if __name__ == "__main__":
    app = OneByOne(DomainDispatcherApplication(create_backend_app))
    # Connections have a thread each, so that they can be kept.
    run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True, request_handler=MotoRequestHandler)
