"""Searches the smallest or fastest artifact that meets an accuracy limit: int8 throughout, else with islands.

Trials are judged on the selection samples alone: the loss there must keep the limit, and of two artifacts the one with
the higher SQNR is believed. The winner is confirmed on the evaluation set; if it fails there, only what has a higher
SQNR is looked at. At most three confirmations share the gate's probability of error (Bonferroni), so that asking
several times proves no more than asking once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantbuild.drivers import auto, candidates, int8_throughout, ranked_units, telling
from quantbuild.drivers.candidates import Candidate, Tried
from quantbuild.drivers.confirmations import Confirmations
from quantbuild.drivers.driven import Driven, Make, made
from quantbuild.drivers.int8_throughout import Throughout
from quantbuild.drivers.judging import judged
from quantbuild.drivers.latencies import Latencies
from quantbuild.drivers.ranked_units import Unit
from quantbuild.drivers.search import Budget, Judged, Ranking, Units, pruned, ranks, shortest_prefix
from quantbuild.drivers.telling import Trial
from quantbuild.drivers.trials import JUDGE_TOOLS, Trials
from quantbuild.errors import MachineError
from quantbuild.step import Step

ACTIONS = (*auto.ACTIONS, "judge", "rank")
"""What it may have done: see `auto`."""
TOOLS = JUDGE_TOOLS
BY_METRIC = True
"""Its trials are judged by the model's metric, too."""
NONE: Units = frozenset()


def drive(step: Step, make: Make, root: Path) -> Driven:
    """Make `step` (quantize) by a search.

    Raises:
        StepError: not even int8 throughout can be made.
        MachineError: time, memory or room ran out, and nothing was found that meets the limit.
    """
    trials = Trials(step, make)
    return _Search(step, make, root, trials, int8_throughout.choose(step, trials, make)).run()


class _Search:
    """One search: what was tried, and what the samples said of it."""

    def __init__(self, step: Step, make: Make, root: Path, trials: Trials, base: Throughout) -> None:
        self._step = step
        self._root = root
        self._make = make
        self._trials = trials
        self._options = step.parameters["options"]
        self._wanted = self._options["search"]
        self._limit = float(self._wanted["max_accuracy_loss"])
        self._base = base
        self._tried = {NONE: base.best}
        self._rows = [Trial(each, NONE) for each in base.tried]
        self._budget = Budget(self._judge, self._wanted["trials"] - len(self._rows), {NONE: self._judged(NONE)})
        self._confirmations = Confirmations(step, trials, make)
        self._latencies = Latencies(self._wanted["device"], trials, make, root)
        self._units: list[Unit] = []
        self._ranking = Ranking([], nodes=0)

    def run(self) -> Driven:
        if self._judged(NONE).meets_limit:
            self._confirm(NONE)
        if not self._confirmations.are_over:
            self._units = ranked_units.ranked(self._base, self._trials, self._make, self._root)
            self._ranking = ranked_units.ranking(self._units)
            self._look_for_islands()
        return self._ending()

    # Search --------------------------------------------------------------------------------------------------------

    def _look_for_islands(self) -> None:
        costs = [unit.cost_bytes for unit in self._units]
        while not self._confirmations.are_over:
            least = self._least_sqnr_db()
            found = shortest_prefix(self._ranking, self._budget, least)
            if found is not None:
                pruned(found, costs, self._budget, least)
            meeting = [units for units, found in self._budget.judged.items() if found.suffices(least)]
            if not meeting:
                return
            self._confirm(self._least_of(meeting))

    def _judge(self, units: Units) -> Judged:
        """Make the artifact that keeps `units` from int8, and judge it on the selection samples."""
        nodes = sorted({node for unit in units for node in self._units[unit].nodes})
        key = {"float": "keep_float", "int16": "keep_int16"}[self._options["islands"]]
        base = self._base.best.candidate
        candidate = Candidate({**base.options, key: nodes}, f"{base.label}-islands-{ranks(units)}")
        found = candidates.look_at([candidate], self._base.given.inputs, self._trials, self._make)[0]
        self._tried[units] = found
        self._rows.append(Trial(found, units))
        return self._judged(units)

    def _judged(self, units: Units) -> Judged:
        return judged(self._tried[units], self._limit)

    def _least_of(self, meeting: Sequence[Units]) -> Units:
        """Return the smallest of those that are as fast as any, where that counts; of equals the highest SQNR."""
        if self._wanted["objective"] == "latency":
            fastest = self._latencies.fastest([self._tried[units] for units in meeting])
            meeting = [units for units in meeting if self._tried[units] in fastest]
        return min(meeting, key=lambda units: (self._size(units), -self._tried[units].sqnr_db))

    def _least_sqnr_db(self) -> float:
        """Return the SQNR that was not enough on the evaluation set."""
        return max((each.tried.sqnr_db for each in self._confirmations.looks), default=-math.inf)

    def _size(self, units: Units) -> float:
        return telling.size(self._tried[units])

    def _confirm(self, units: Units) -> None:
        self._confirmations.confirm(units, self._tried[units])

    # Ending --------------------------------------------------------------------------------------------------------

    def _ending(self) -> Driven:
        units, verdict = self._winner()
        provisional = self._provisional()
        chosen = self._tried[units]
        told = {**self._told(units, chosen), "verdict": verdict, "provisional": provisional}
        scheme = self._step.parameters["scheme"]
        values = {**made(chosen.artifact).values, **self._base.given.told, "scheme": scheme, "search": told}
        return Driven(files=dict(chosen.trial.outputs), values=values, provisional=provisional)

    def _winner(self) -> tuple[Units, str]:
        """Return the confirmed artifact; else the best that was found, with the verdict that it has.

        What was confirmed last has the highest SQNR of those: by their losses, nothing may be chosen.
        """
        if self._confirmations.last is not None:
            return self._confirmations.last.units, str(self._confirmations.last.judgement["verdict"])
        sound = [units for units, tried in self._tried.items() if tried.error is None]
        return max(sound, key=lambda units: (self._tried[units].sqnr_db, -self._size(units))), "fail"

    def _provisional(self) -> str | None:
        """Return why what was found stands for this build alone, where the machine failed a trial.

        What was found is sound whatever else failed. That nothing was found proves nothing: raises MachineError.
        """
        failed = {each.candidate.label: str(each.error) for each, _ in self._rows if each.by_machine}
        failed |= self._latencies.failed_by_machine
        if not failed:
            return None
        label, message = next(iter(failed.items()))
        words = f"the machine failed {len(failed)} trial{'s' if len(failed) > 1 else ''} ({label}: {message})"
        if self._confirmations.last is None:
            raise MachineError(f"nothing was found that meets the limit, but {words}")
        return f"{words}; what is chosen is the best of the others, and the next build tries again"

    def _told(self, units: Units, chosen: Tried) -> dict[str, Any]:
        confirmed = {each.units: each for each in self._confirmations.looks}
        return {
            "trials": telling.rows(self._rows, chosen, self._units, self._latencies.measured),
            "chosen": chosen.candidate.label,
            "islands": [telling.unit(self._units, unit) for unit in sorted(units)],
            "left_out": [
                {**telling.unit(self._units, unit), "error": self._tried[kept].error}
                for unit, kept in sorted(self._ranking.left_out.items())
            ],
            "confirmations": [telling.confirmation(each) for each in confirmed.values() if each.is_measured],
            "limit": self._limit,
            "objective": self._wanted["objective"],
            "device": self._wanted["device"],
            "best": telling.best(chosen, confirmed.get(units)),
            "trials_left": self._budget.left,
        }
