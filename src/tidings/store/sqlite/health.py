"""Whether writes succeed: said when that changes, not at each one that fails."""

import logging
import time
from collections.abc import Iterable

from tidings.errors import StoreUnavailable
from tidings.log import tell

log = logging.getLogger("tidings.store")


class Health:
    """What keeps the store from taking writes now, by its code; "" if nothing does."""

    def __init__(self) -> None:
        self._trouble = ""
        self._since = 0.0

    def note(self, errors: Iterable[Exception | None]) -> None:
        """Take note of how a commit's writes ended; a refusal is as good as a success."""
        outcomes = list(errors)
        codes = [error.code for error in outcomes if isinstance(error, StoreUnavailable)]
        if codes and codes[0] != self._trouble:
            self._trouble, self._since = codes[0], time.monotonic()
            tell(log, logging.ERROR, f"{codes[0]}_began", "writes are refused: %(code)s", code=codes[0])
        elif self._trouble and outcomes and not codes:
            lasted_s, code, self._trouble = round(time.monotonic() - self._since, 3), self._trouble, ""
            text = "writes are taken again: %(code)s lasted %(seconds).1f s"
            tell(log, logging.WARNING, f"{code}_ended", text, code=code, seconds=lasted_s)
