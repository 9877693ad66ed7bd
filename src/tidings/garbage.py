"""Garbage collection: rare and short, and each pause told of, since whatever thread it is in, all others wait.

Nearly all that we make is freed by reference counts. What is held in large numbers (entries, heads, messages) is made
of what the collector need not know, in containers that it does not look into; so its work is what was made lately.
"""

import gc
import time
from collections.abc import Callable
from typing import Any

# So many new containers more than were freed, and the young ones are looked through: some 0.3 ms.
_YOUNG = 5_000


def collect_rarely(on_pause: Callable[[int, float], None]) -> None:
    """Leave what is there now out of it for ever; `on_pause` gets the generation and the seconds of each pause."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 5, 100)
    gc.callbacks.append(_Watch(on_pause))


class _Watch:
    """What the collector calls before and after its work (gc.callbacks)."""

    def __init__(self, on_pause: Callable[[int, float], None]) -> None:
        self._on_pause = on_pause
        self._began = 0.0

    def __call__(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self._on_pause(info["generation"], time.perf_counter() - self._began)
