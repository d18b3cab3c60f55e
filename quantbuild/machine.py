"""Who may use this machine's processors and memory: many steps at once, or one benchmark alone."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a build with nothing to do imports this module, and has no workers
    from quantbuild.memory import Claim, Memory

# How often a step that waits for memory looks again: other programs give it back without a word.
MEMORY_SECONDS = 1.0
# A benchmark that waits for other steps goes ahead when the build has stood still for this long: it then holds a thread
# that they need.
STALL_SECONDS = 1.0


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Machine:
    """Shares this machine among steps, and gives it to one benchmark alone when nothing else runs or hashes.

    Steps come before benchmarks: the machine is drained once, at the end of a build. `expect` says how many steps the
    run still has to settle besides benchmarks and what needs them. `memory` says whether a further step fits; without
    one every step does.
    """

    def __init__(self, slots: int, memory: Memory | None = None) -> None:
        self._condition = threading.Condition()
        self._slots = slots
        self._memory = memory
        self._claims: list[Claim] = []
        self._running = 0
        self._hashing = 0
        self._waiting = 0
        self._alone = False
        self._expected: set[str] = set()
        self._changes = 0

    def expect(self, steps: set[str]) -> None:
        """Name the steps that benchmarks let go first."""
        with self._condition:
            self._expected = set(steps)

    def settled(self, step: str) -> None:
        """Note that a step is settled."""
        with self._condition:
            self._expected.discard(step)
            self._changed()

    @contextlib.contextmanager
    def shared(self, claim: Claim | None = None) -> Iterator[None]:
        """Hold one of the slots, and the memory that is claimed, while nothing runs alone."""
        claims = [claim] if claim is not None else []
        with self._condition:
            self._waiting += 1
            while not self._condition.wait_for(lambda: self._admits(claim), timeout=MEMORY_SECONDS if claim else None):
                pass
            self._waiting -= 1
            self._running += 1
            self._claims += claims
        try:
            yield
        finally:
            with self._condition:
                self._running -= 1
                for held in claims:
                    self._claims.remove(held)
                self._changed()

    def _admits(self, claim: Claim | None) -> bool:
        if self._alone or self._running >= self._slots:
            return False
        return claim is None or self._memory is None or self._memory.admits(claim, self._claims)

    @contextlib.contextmanager
    def hashing(self) -> Iterator[None]:
        """Keep benchmarks from starting while files are being read; takes no slot."""
        with self._condition:
            self._condition.wait_for(lambda: not self._alone)
            self._hashing += 1
        try:
            yield
        finally:
            with self._condition:
                self._hashing -= 1
                self._changed()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Have the machine alone, after the expected steps."""
        with self._condition:
            self._others_first()
            self._condition.wait_for(self._idle)
            self._alone = True
        try:
            yield
        finally:
            with self._condition:
                self._alone = False
                self._changed()

    def wait_for_the_others(self) -> None:
        """Let the expected steps go first; nothing is held afterwards."""
        with self._condition:
            self._others_first()

    def _others_first(self) -> None:
        if threading.current_thread() is threading.main_thread():
            return  # a serial run: nothing else can go on while this waits
        while True:
            changes = self._changes
            if self._condition.wait_for(lambda: self._idle() and not self._expected, timeout=STALL_SECONDS):
                return
            if self._idle() and self._changes == changes:
                return

    def _idle(self) -> bool:
        return not (self._alone or self._running or self._waiting or self._hashing)

    def _changed(self) -> None:
        self._changes += 1
        self._condition.notify_all()
