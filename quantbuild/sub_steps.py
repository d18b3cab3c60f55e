"""The steps that drivers have made: they are no tasks, and no count of tasks has them."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from quantbuild.outcome import Outcome
from quantbuild.step import Step


class SubSteps:
    """Makes each step once in a build, however many drivers ask for it. `outcomes` says what became of each."""

    def __init__(self, done: Callable[[Step], Outcome]) -> None:
        """Have them found or done by `done`, which raises nothing."""
        self.outcomes: dict[str, Outcome] = {}
        self._done = done
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def make(self, steps: Sequence[Step]) -> list[Outcome]:
        """Make steps side by side, for a driver; return what became of each, in order.

        They have keys, records and cache entries as every step has. Called from a driver's thread; raises nothing.
        """
        with ThreadPoolExecutor(max_workers=max(len(steps), 1)) as threads:
            return list(threads.map(self._make_one, steps))

    def _make_one(self, step: Step) -> Outcome:
        with self._locks[step.id]:  # two variants of a model may try the same
            known = self.outcomes.get(step.id)
            if known is None:
                known = self.outcomes[step.id] = self._done(step)
        return known
