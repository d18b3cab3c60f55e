"""What artifacts take on the device of choice, where a search is for the fastest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from quantbuild.drivers.candidates import Tried
from quantbuild.drivers.driven import Make
from quantbuild.drivers.trials import Trials
from quantbuild.errors import MachineError, StepError
from quantbuild.outcome import Outcome
from quantbuild.step import Step

TIED = 1.05
"""Latencies up to this ratio count as equal, since processes of one artifact differ by as much."""


class Latency(NamedTuple):
    """What one trial took on the device of choice; the ratio is to float32, measured in turn with it."""

    p50_ms: float
    ratio: float


class Latencies:
    """The measurements of one search, by the labels of what was measured."""

    def __init__(self, device: str | None, trials: Trials, make: Make, root: Path) -> None:
        self._device = device
        self._trials = trials
        self._make = make
        self._root = root
        self.measured: dict[str, Latency] = {}
        self.failed_by_machine: dict[str, str] = {}
        """What was not measured because time, memory or room ran out, each with the message."""

    def fastest(self, tried: Sequence[Tried]) -> list[Tried]:
        """Return those that are as fast as any. Raises StepError where nothing could be measured."""
        steps = [self._trials.benchmark(each.trial) for each in tried]
        outcomes = self._make(steps)
        for each, step, outcome in zip(tried, steps, outcomes, strict=True):
            self._note(each.candidate.label, step, outcome)
        measured = [each for each in tried if each.candidate.label in self.measured]
        if not measured:
            why = next((outcome.message for outcome in outcomes if outcome.message), "it measured nothing")
            error = MachineError if self.failed_by_machine else StepError
            raise error(f'search.device: no latency from "{self._device}": {why}')
        least = min(self._ratio(each) for each in measured)
        return [each for each in measured if self._ratio(each) <= TIED * least]

    def _note(self, label: str, step: Step, outcome: Outcome) -> None:
        if outcome.by_machine:
            self.failed_by_machine[f"{label} on {self._device}"] = str(outcome.message)
        if outcome.result is None:
            return
        result = msgspec.json.decode((self._root / step.outputs["result"]).read_bytes())
        if result.get("latency_ratio") is not None:  # a device may be out of reach without being required
            self.measured[label] = Latency(result["latency_ms"]["p50"], result["latency_ratio"])

    def _ratio(self, tried: Tried) -> float:
        return self.measured[tried.candidate.label].ratio
