"""Looks at the evaluation set: at most three, which share the gate's probability of error (Bonferroni)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from quantbuild.drivers.candidates import Tried
from quantbuild.drivers.driven import Make, made
from quantbuild.drivers.search import Units
from quantbuild.drivers.trials import Trials
from quantbuild.step import Step

MOST = 3


class Confirmation(NamedTuple):
    """One look at the evaluation set; without one, the verdict "not_measured" alone."""

    units: Units
    tried: Tried
    judgement: Mapping[str, Any]

    @property
    def is_measured(self) -> bool:
        """Whether there were samples to look at."""
        return "n" in self.judgement

    @property
    def ends_the_search(self) -> bool:
        """Whether it passed, or nothing more can be known: no evaluation set, or one too small for any to pass."""
        if self.judgement["verdict"] in ("pass", "not_measured"):
            return True
        in_bounds = self.judgement["loss"] is not None and self.judgement["loss"] <= self.judgement["limit"]
        return in_bounds and not self.judgement["could_pass"]


class Confirmations:
    """The looks of one search, in order; each is at something with a higher SQNR than the one before."""

    def __init__(self, step: Step, trials: Trials, make: Make) -> None:
        self._step = step
        self._trials = trials
        self._make = make
        self._limit = float(step.parameters["options"]["search"]["max_accuracy_loss"])
        self.looks: list[Confirmation] = []

    @property
    def last(self) -> Confirmation | None:
        """The latest look."""
        return self.looks[-1] if self.looks else None

    @property
    def are_over(self) -> bool:
        """Whether there is nothing left to ask."""
        return len(self.looks) >= MOST or (self.last is not None and self.last.ends_the_search)

    def confirm(self, units: Units, tried: Tried) -> None:
        """Look at the evaluation set, where the model has one; without one, nothing more can be known."""
        self.looks.append(Confirmation(units, tried, {**self._judgement(tried), "limit": self._limit}))

    def _judgement(self, tried: Tried) -> Mapping[str, Any]:
        if "evaluation" not in self._step.parameters:
            return {"verdict": "not_measured", "loss": None}
        confidence = 1 - (1 - self._step.parameters["confidence"]) / MOST
        evaluate = self._trials.confirmation(tried.trial)
        made(self._make([evaluate])[0])
        return made(self._make([self._trials.judgement(evaluate, self._limit, confidence)])[0]).values
