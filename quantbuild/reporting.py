"""How far a step is: an action says it here, and the worker passes it to the build."""

from __future__ import annotations

import time
from collections.abc import Callable

LEAST_SECONDS_BETWEEN = 0.25

_listener: Callable[[int, int], None] | None = None
_last = 0.0


def listen(listener: Callable[[int, int], None] | None) -> None:
    """Have `listener` told of progress from now on; None ends that."""
    global _listener, _last
    _listener, _last = listener, 0.0


def progress(done: int, total: int) -> None:
    """Say that `done` of `total` samples are done; costs next to nothing, told a few times a second."""
    global _last  # noqa: PLW0603
    if _listener is None:
        return
    now = time.monotonic()
    if now - _last >= LEAST_SECONDS_BETWEEN:
        _last = now
        _listener(done, total)
