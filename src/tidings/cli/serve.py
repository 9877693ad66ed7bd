"""`tidings serve`, each of whose options is a field of `Settings`."""

import inspect
from typing import Any

from tidings.cli.exits import FAILED, WRONG_USE, complain
from tidings.cli.flags import check_variables, options
from tidings.config import Settings
from tidings.errors import StartError


def serve(**chosen: Any) -> int:
    """Serve the HTTP API until SIGTERM or Ctrl-C.

    Each option is an environment variable as well: --wait-max-s is TIDINGS_WAIT_MAX_S, and so on. The option wins.
    """
    try:
        check_variables()
        settings = Settings(**chosen)
    except StartError as error:
        return complain(str(error), WRONG_USE)
    try:
        return _run(settings)
    except (StartError, OSError) as error:  # too many open files, no room for a directory: not a fault of ours
        return complain(str(error), FAILED)


def _run(settings: Settings) -> int:
    if settings.workers > 1:
        from tidings.supervisor import run
    else:
        from tidings.server import run  # each alone: what one needs the other need not import

    return run(settings)


_parameters = options()
serve.__signature__ = inspect.Signature(_parameters)  # type: ignore[attr-defined]  # PEP 362: what inspect then gives
serve.__annotations__ = {parameter.name: parameter.annotation for parameter in _parameters}
