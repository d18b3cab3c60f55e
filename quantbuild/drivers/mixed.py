"""Searches the smallest or fastest artifact that meets an accuracy limit: int8 throughout, else with islands.

Trials are judged on the selection samples alone: the loss there must keep the limit, and of two artifacts the one with
the higher SQNR is believed. The winner is confirmed on the evaluation set; if it fails there, only what has a higher
SQNR is looked at. At most three confirmations share the gate's probability of error (Bonferroni), so that asking
several times proves no more than asking once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from quantbuild.decimals import difference
from quantbuild.drivers import auto
from quantbuild.drivers.driven import Driven, Make, made
from quantbuild.drivers.search import Budget, Judged, Units, pareto, pruned, ranks, shortest_prefix
from quantbuild.drivers.trials import JUDGE_TOOLS, Trials
from quantbuild.errors import MachineError, StepError
from quantbuild.outcome import Outcome
from quantbuild.schemes import int8
from quantbuild.step import Step

ACTIONS = (*auto.ACTIONS, "judge", "rank")
"""What it may have done: see `auto`."""
TOOLS = JUDGE_TOOLS
BY_METRIC = True
"""Its trials are judged by the model's metric, too."""
MOST_CONFIRMATIONS = 3
TIED = 1.05
"""Latencies up to this ratio count as equal, since processes of one artifact differ by as much: the smaller wins."""
NONE: Units = frozenset()
OF_CLASSES = ("top1", "top5")
"""Metrics whose loss without labels is taken for the share of samples that choose another class than float32."""
_LOSS_KEYS = ("loss", "loss_low", "loss_high", "n")


class Unit(NamedTuple):
    """One line of the ranking: the activation tensor, its expected noise, the nodes that keep it from int8."""

    tensor: str
    noise: float
    nodes: tuple[str, ...]
    cost_bytes: int


class Latency(NamedTuple):
    """What one trial took on the device of choice; the ratio is to float32, measured in turn with it."""

    p50_ms: float
    ratio: float


class Confirmation(NamedTuple):
    """One look at the evaluation set."""

    units: Units
    judgement: Mapping[str, Any]

    @property
    def ends_the_search(self) -> bool:
        """Whether it passed, or nothing more can be known: no evaluation set, or one too small for any to pass."""
        if self.judgement["verdict"] in ("pass", "not_measured"):
            return True
        in_bounds = self.judgement["loss"] is not None and self.judgement["loss"] <= self.judgement["limit"]
        return in_bounds and not self.judgement["could_pass"]


def drive(step: Step, make: Make, root: Path) -> Driven:
    """Make `step` (quantize) by a search. Raises StepError where not even int8 throughout can be made."""
    return _Search(step, make, root).run()


class _Search:
    """One search: what was tried, and what the samples said of it."""

    def __init__(self, step: Step, make: Make, root: Path) -> None:
        self._step = step
        self._root = root
        self._make = make
        self._trials = Trials(step, make)
        self._options = step.parameters["options"]
        self._wanted = self._options["search"]
        self._limit = float(self._wanted["max_accuracy_loss"])
        self._tried: dict[Units, auto.Tried] = {}
        self._rows: list[tuple[auto.Tried, Units]] = []
        self._confirmations: list[Confirmation] = []
        self._latencies: dict[Units, Latency] = {}
        self._base: auto.Candidate
        self._given: auto.Prepared
        self._units: list[Unit] = []

    def run(self) -> Driven:
        chosen = self._all_int8()
        budget = Budget(self._judge, self._wanted["trials"] - len(self._rows), {NONE: self._judged(chosen)})
        if budget.judged[NONE].meets_limit:
            self._confirm(NONE)
        if not self._is_over():
            self._units = self._ranked()
            self._look_for_islands(budget)
        return self._ending(budget)

    # Trials --------------------------------------------------------------------------------------------------------

    def _all_int8(self) -> auto.Tried:
        """Choose ranges and bias correction; equalize where that alone does not meet the limit."""
        self._try_int8()
        best = auto.best([each for each, _ in self._rows])
        self._check_is_measured(best)
        if not self._judged(best).meets_limit:
            self._try_int8(equalize=True)
            best = auto.best([each for each, _ in self._rows])
        self._tried[NONE] = best
        self._base = best.candidate
        self._given = auto.prepared(self._step, self._trials, best.candidate.options)
        return best

    def _try_int8(self, *, equalize: bool = False) -> None:
        """Try ranges, and bias correction of the best: half of what int8 by itself tries, for a budget to search with.

        Nothing where there are no channels to equalize.
        """
        options = msgspec.to_builtins(int8.Options(io=self._options["io"], equalize=equalize, bias_correction=False))
        if self._left() == 0:
            return
        try:
            given = auto.prepared(self._step, self._trials, options)
        except StepError as error:
            if not equalize or isinstance(error, MachineError):
                raise
            self._rows.append((self._failed(auto.Candidate(options, "equalized"), error), NONE))
            return
        if given.groups == 0:
            return
        sound = [each for each in self._try(options, given) if each.error is None]
        if sound:
            self._try({**auto.best(sound).candidate.options, "bias_correction": True}, given)

    def _try(self, options: Mapping[str, Any], given: auto.Prepared) -> list[auto.Tried]:
        """Try the candidates of `options` as far as the budget goes."""
        wanted = auto.candidates(options)[: self._left()]
        found = auto.try_all(wanted, given.inputs, self._trials, self._make) if wanted else []
        self._rows += [(each, NONE) for each in found]
        return found

    def _left(self) -> int:
        """Return how many trials the budget has left for int8 throughout."""
        return int(self._wanted["trials"]) - len(self._rows)

    def _failed(self, candidate: auto.Candidate, error: StepError) -> auto.Tried:
        """Return a candidate of which nothing could be made."""
        trial = self._trials.artifact(
            candidate.options, {role: self._step.inputs[role] for role in ("model", "statistics")}, candidate.label
        )
        return auto.Tried(candidate, trial, auto.failed(trial, error), None)

    def _check_is_measured(self, tried: auto.Tried) -> None:
        """Raise StepError where the selection samples, lacking labels, tell of no loss in the metric's unit."""
        selection = self._step.parameters["selection"]
        values = tried.selection.result.values if tried.selection and tried.selection.result else {}
        if values.get("loss") is None and selection["metric"] not in OF_CLASSES:
            raise StepError(
                f"dataset {selection['dataset']['name']}: metric {selection['metric']} needs labels to tell a loss, "
                'and mixed precision is chosen on these samples; set label in the dataset, or scheme = "int8"'
            )

    def _ranked(self) -> list[Unit]:
        label = "equalized" if self._base.options.get("equalize") else "float32"
        options = {"ranges": self._base.options["ranges"]}
        ranking = self._trials.ranking(self._given.inputs, options, f"{label}-{auto.method_of(options['ranges'])}")
        made(self._make([ranking])[0])
        listed = msgspec.json.decode((self._root / ranking.outputs["ranking"]).read_bytes())
        return [
            Unit(each["tensor"], each["noise"], tuple(each["nodes"]), each["cost_bytes"]) for each in listed["units"]
        ]

    def _judge(self, units: Units) -> Judged:
        """Make the artifact that keeps `units` from int8, and judge it on the selection samples."""
        nodes = sorted({node for unit in units for node in self._units[unit].nodes})
        key = {"float": "keep_float", "int16": "keep_int16"}[self._options["islands"]]
        candidate = auto.Candidate({**self._base.options, key: nodes}, f"{self._base.label}-islands-{ranks(units)}")
        found = auto.try_all([candidate], self._given.inputs, self._trials, self._make)[0]
        self._tried[units] = found
        self._rows.append((found, units))
        return self._judged(found)

    def _judged(self, tried: auto.Tried) -> Judged:
        loss = _loss(tried.selection)
        return Judged(loss is not None and loss <= self._limit, tried.sqnr_db)

    # Search --------------------------------------------------------------------------------------------------------

    def _look_for_islands(self, budget: Budget) -> None:
        costs = [unit.cost_bytes for unit in self._units]
        least = self._least_sqnr_db()
        while not self._is_over():
            found = shortest_prefix(self._longest(), budget, least)
            if found is not None:
                pruned(found, costs, budget, least)
            meeting = [u for u, j in budget.judged.items() if j.meets_limit and j.sqnr_db > least]
            if not meeting:
                return
            self._confirm(self._fastest(meeting) if self._wanted["objective"] == "latency" else self._smallest(meeting))
            least = self._least_sqnr_db()

    def _longest(self) -> int:
        """Return how many units may be kept so that something is still int8."""
        everything = {node for unit in self._units for node in unit.nodes}
        kept: set[str] = set()
        for length, unit in enumerate(self._units):
            kept.update(unit.nodes)
            if kept == everything:
                return length
        return len(self._units)

    def _smallest(self, meeting: Sequence[Units]) -> Units:
        """Return what has the least bytes; of equals the highest SQNR."""
        return min(meeting, key=lambda units: (self._cost(units), -self._tried[units].sqnr_db))

    def _fastest(self, meeting: Sequence[Units]) -> Units:
        """Return the smallest of those that are as fast as any. Raises StepError where nothing could be measured."""
        steps = {units: self._trials.benchmark(self._tried[units].trial) for units in meeting}
        outcomes = dict(zip(steps, self._make(list(steps.values())), strict=True))
        auto.check_machine(outcomes.values())
        for units, outcome in outcomes.items():
            if outcome.result is not None:
                result = msgspec.json.decode((self._root / steps[units].outputs["result"]).read_bytes())
                if result.get("latency_ratio") is not None:  # a device may be out of reach without being required
                    self._latencies[units] = Latency(result["latency_ms"]["p50"], result["latency_ratio"])
        measured = [units for units in meeting if units in self._latencies]
        if not measured:
            why = next((outcome.message for outcome in outcomes.values() if outcome.message), "it measured nothing")
            raise StepError(f'search.device: no latency from "{self._wanted["device"]}": {why}')
        least = min(self._latencies[units].ratio for units in measured)
        return self._smallest([units for units in measured if self._latencies[units].ratio <= TIED * least])

    def _least_sqnr_db(self) -> float:
        """Return the SQNR that was not enough on the evaluation set."""
        return max((self._tried[each.units].sqnr_db for each in self._confirmations), default=-math.inf)

    def _cost(self, units: Units) -> float:
        result = self._tried[units].artifact.result
        return math.inf if result is None else float(result.outputs["model"].size_bytes)

    # Confirmation --------------------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        if self._confirmations and self._confirmations[-1].ends_the_search:
            return True
        return len(self._confirmations) >= MOST_CONFIRMATIONS

    def _confirm(self, units: Units) -> None:
        """Look at the evaluation set, where the model has one; without one, nothing more can be known."""
        if "evaluation" not in self._step.parameters:
            judgement = {"verdict": "not_measured", "loss": None, "limit": self._limit}
            self._confirmations.append(Confirmation(units, judgement))
            return
        confidence = 1 - (1 - self._step.parameters["confidence"]) / MOST_CONFIRMATIONS
        evaluate = self._trials.confirmation(self._tried[units].trial)
        made(self._make([evaluate])[0])
        judge = self._trials.judgement(evaluate, self._limit, confidence)
        judged = made(self._make([judge])[0])
        self._confirmations.append(Confirmation(units, {**judged.values, "limit": self._limit}))

    # Ending --------------------------------------------------------------------------------------------------------

    def _ending(self, budget: Budget) -> Driven:
        units, verdict = self._winner(budget)
        chosen = self._tried[units]
        result = made(chosen.artifact)
        told = {
            "trials": self._told_rows(chosen),
            "chosen": chosen.candidate.label,
            "islands": [self._told_unit(unit) for unit in sorted(units)],
            "confirmations": [self._told_confirmation(each) for each in self._confirmations if "n" in each.judgement],
            "limit": self._limit,
            "objective": self._wanted["objective"],
            "device": self._wanted["device"],
            "verdict": verdict,
            "best": self._told_best(units),
            "trials_left": budget.left,
        }
        values = {**result.values, **self._given.told, "scheme": self._step.parameters["scheme"], "search": told}
        return Driven(files=dict(chosen.trial.outputs), values=values)

    def _winner(self, budget: Budget) -> tuple[Units, str]:
        """Return the confirmed artifact; else the best that was found, with the verdict that it has.

        What was confirmed last has the highest SQNR of those: by their losses, nothing may be chosen.
        """
        if self._confirmations:
            last = self._confirmations[-1]
            return last.units, str(last.judgement["verdict"])
        sound = [units for units, tried in self._tried.items() if tried.error is None]
        return max(sound, key=lambda units: (self._tried[units].sqnr_db, -self._cost(units))), "fail"

    def _told_rows(self, chosen: auto.Tried) -> list[dict[str, Any]]:
        rows = [self._told_row(tried, units, chosen) for tried, units in self._rows]
        sizes = [math.inf if row["size_bytes"] is None else float(row["size_bytes"]) for row in rows]
        points = [(size, tried.sqnr_db) for size, (tried, _) in zip(sizes, self._rows, strict=True)]
        return [
            {**row, "front": front and row["error"] is None} for row, front in zip(rows, pareto(points), strict=True)
        ]

    def _told_row(self, tried: auto.Tried, units: Units, chosen: auto.Tried) -> dict[str, Any]:
        latency = self._latencies.get(units) if self._tried.get(units) is tried else None
        return {
            **auto.row(tried, chosen),
            "loss": _loss(tried.selection),
            "kept": [self._units[unit].tensor for unit in sorted(units)],
            "latency_ms": None if latency is None else latency.p50_ms,
            "latency_ratio": None if latency is None else latency.ratio,
        }

    def _told_best(self, units: Units) -> dict[str, Any]:
        """Return what the artifact that was taken loses, and on which samples that was found."""
        tried = self._tried[units]
        found = next((each.judgement for each in self._confirmations if each.units == units), None)
        about = {"label": tried.candidate.label, "sqnr_db": auto.row(tried)["sqnr_db"]}
        if found is not None and "n" in found:
            return {**about, "samples": "evaluation", **{key: found[key] for key in _LOSS_KEYS}}
        row = auto.row(tried)
        selection = {"loss": _loss(tried.selection), "loss_low": None, "loss_high": None, "n": row["n"]}
        return {**about, "samples": "selection", **selection}

    def _told_unit(self, unit: int) -> dict[str, Any]:
        found = self._units[unit]
        return {"tensor": found.tensor, "noise": found.noise, "rank": unit + 1, "nodes": list(found.nodes)}

    def _told_confirmation(self, each: Confirmation) -> dict[str, Any]:
        return {"label": self._tried[each.units].candidate.label, **each.judgement}


def _loss(selection: Outcome | None) -> float | None:
    """Return the loss on the selection samples; of a metric without baseline, the share that does not agree."""
    if selection is None or selection.result is None:
        return None
    values = selection.result.values
    if values.get("loss") is not None:
        return float(values["loss"])
    agreement = values.get("agreement")
    return None if agreement is None else difference(1.0, agreement)
