"""Whether the memory suffices for one more step: from what steps are known to take and what is free now. Pure.

What a step takes at most is the peak that its worker had when it was last done here; else the greatest peak of the same
action in the same kind of worker; else a default. Steps that run may not have grown to their peak yet: what they still
lack is held back for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from quantbuild.errors import UsageError
from quantbuild.units import parse_size, size
from quantbuild.workers import Kind, Residents

BOUND_VARIABLE = "QUANTBUILD_MEMORY"

# Twice what a worker took at its peak for the shipped examples: where nothing is recorded, a model may be larger.
DEFAULT_PEAK_BYTES: Mapping[Kind, int] = {"light": 100 * 10**6, "litert": 200 * 10**6, "tensorflow": 1500 * 10**6}


class Claim(NamedTuple):
    """What a step is expected to take at most, in bytes, in a worker of `kind`."""

    step: str
    kind: Kind
    peak_bytes: int


def bound_of(environ: Mapping[str, str]) -> int | None:
    """Return the most that this build's workers may take together, None where the environment sets no bound.

    Raises:
        UsageError: the variable holds no size.
    """
    text = environ.get(BOUND_VARIABLE)
    if not text:
        return None
    bound = parse_size(text)
    if bound is None:
        raise UsageError(f'{BOUND_VARIABLE}: "{text}" is no size; write a number and a unit: 8GB, 6GiB')
    return bound


def room_bytes(
    *, free_bytes: int | None, bound_bytes: int | None, residents: Residents, running: Sequence[Claim]
) -> int | None:
    """Return what a further step may take, below 0 where the running ones will take too much; None: nothing bounds it.

    `free_bytes` is what the system could give now (None where that is not known), `bound_bytes` the most for all
    workers together, `residents` what the workers hold now, `running` what the steps that run were admitted with.
    """
    limits = [] if free_bytes is None else [free_bytes]
    if bound_bytes is not None:
        limits.append(bound_bytes - sum(residents.busy.values()) - sum(map(sum, residents.idle.values())))
    if not limits:
        return None
    growth = sum(max(0, claim.peak_bytes - residents.busy.get(claim.step, 0)) for claim in running)
    return min(limits) - growth


def still_needed(claim: Claim, residents: Residents) -> int:
    """Return the bytes that a step will take beyond what the idle worker that it would get holds already."""
    idle = residents.idle.get(claim.kind, ())
    return max(0, claim.peak_bytes - (idle[-1] if idle else 0))


class Memory:
    """Decides, by what can be seen now, whether a step may join those that run. One that would be alone always may.

    `free` and `residents` look at the system and at the workers; `short` is told once, when first a step has to wait.
    """

    def __init__(
        self,
        *,
        bound_bytes: int | None,
        free: Callable[[], int | None],
        residents: Callable[[], Residents],
        short: Callable[[str], None],
    ) -> None:
        self._bound_bytes = bound_bytes
        self._free = free
        self._residents = residents
        self._short = short
        self._told = False

    def admits(self, claim: Claim, running: Sequence[Claim]) -> bool:
        """Whether the step of `claim` may start beside those of `running`."""
        if not running:
            return True
        residents = self._residents()
        room = room_bytes(free_bytes=self._free(), bound_bytes=self._bound_bytes, residents=residents, running=running)
        needed = still_needed(claim, residents)
        if room is None or needed <= room:
            return True
        if not self._told:
            self._told = True
            self._short(
                f"memory: {claim.step} needs about {size(needed)} more, {size(max(0, room))} is free beside the steps "
                "that run; such steps wait for each other"
            )
        return False


class Peaks:
    """What actions took at most, as far as is known: from earlier records when first asked, and from this build.

    `earlier` gives the recorded peaks, in bytes, of an action in a kind of worker.
    """

    def __init__(self, earlier: Callable[[str, Kind], Iterable[int]] = lambda action, kind: ()) -> None:
        self._earlier = earlier
        self._recorded: dict[tuple[str, Kind], int] = {}
        self._noted: dict[tuple[str, Kind], int] = {}
        self._lock = threading.Lock()

    def expected(self, action: str, kind: Kind, usual_bytes: int | None) -> int:
        """Return what a step is expected to take at most; `usual_bytes` is what it took last time, if that is known."""
        if usual_bytes is not None:
            return usual_bytes
        with self._lock:
            if (action, kind) not in self._recorded:
                self._recorded[action, kind] = max(self._earlier(action, kind), default=0)
            known = max(self._recorded[action, kind], self._noted.get((action, kind), 0))
        return known or DEFAULT_PEAK_BYTES[kind]

    def note(self, action: str, kind: Kind, peak_bytes: int) -> None:
        """Note what a step has taken."""
        with self._lock:
            self._noted[action, kind] = max(peak_bytes, self._noted.get((action, kind), 0))
