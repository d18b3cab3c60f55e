"""Candidates for one artifact: what the options leave open, each made and run over the selection samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from quantbuild.drivers.driven import Make, made
from quantbuild.drivers.trials import Trials
from quantbuild.errors import MachineError, StepError
from quantbuild.outcome import Outcome
from quantbuild.step import Input, Step
from quantbuild.tflite import range_options

AUTO = "auto"
DEFAULT_CANDIDATES = tuple(msgspec.to_builtins(each) for each in range_options.DEFAULT_CANDIDATES)


class Candidate(NamedTuple):
    """One way to make the artifact: the scheme's options in full, and a few words for it."""

    options: Mapping[str, Any]
    label: str


class Prepared(NamedTuple):
    """What candidates are made from: a float model and its statistics, by role."""

    inputs: Mapping[str, Input]
    groups: int | None = None
    """Groups of channels that were equalized; None where that was not asked for."""
    most_uneven: Mapping[str, Any] | None = None
    """The group whose channels were furthest apart: a tensor of it, the smallest and the largest scale."""

    @property
    def told(self) -> dict[str, Any]:
        """What the record says of it."""
        if self.groups is None:
            return {}
        return {"equalized_groups": self.groups, "most_uneven": self.most_uneven}


class Tried(NamedTuple):
    """A candidate with what became of its artifact and of the look at the selection samples."""

    candidate: Candidate
    trial: Step
    artifact: Outcome
    selection: Outcome | None

    @property
    def failure(self) -> Outcome | None:
        """What keeps it from being chosen."""
        return next((o for o in (self.artifact, self.selection) if o is not None and not o.done), None)

    @property
    def error(self) -> str | None:
        """Why it cannot be chosen."""
        return None if self.failure is None else self.failure.message

    @property
    def by_machine(self) -> bool:
        """Whether time, memory or room ran out, so that it might have been the one to choose."""
        return self.failure is not None and self.failure.by_machine

    @property
    def sqnr_db(self) -> float:
        """SQNR of the worst output; infinite where all are equal to float32's, minus infinite where it failed."""
        if self.selection is None or self.selection.result is None:
            return -math.inf
        found = self.selection.result.values["sqnr_db"]
        return math.inf if found is None else float(found)


def prepared(step: Step, trials: Trials, options: Mapping[str, Any]) -> Prepared:
    """Return what candidates are made from: equalized where asked for. Raises StepError."""
    if options.get("equalize"):
        return Prepared(*trials.equalized())
    return Prepared({role: step.inputs[role] for role in ("model", "statistics")})


def inputs_of(candidate: Candidate, inputs: Mapping[str, Input], trials: Trials) -> dict[str, Input]:
    """Return a candidate's inputs: with histograms where its ranges follow from them."""
    if not range_options.needs_histograms(choice_of(candidate.options["ranges"])):
        return dict(inputs)
    label = "equalized" if candidate.options.get("equalize") else "float32"
    return {**inputs, "histograms": trials.histograms(inputs, label)}


def of(options: Mapping[str, Any]) -> list[Candidate]:
    """Return what the options leave open, in the order in which equals are preferred: the simplest first."""
    ranges = options["ranges"]
    methods = [ranges]
    corrections = [bool(options.get("bias_correction"))]
    if method_of(ranges) == AUTO:
        given = ranges.get("candidates") if isinstance(ranges, Mapping) else None
        methods = list(given or DEFAULT_CANDIDATES)
        if options.get("bias_correction") is None:
            corrections = [False, True]
    return [
        Candidate(
            {**options, "ranges": method, "bias_correction": corrected}, _label(method, options, corrected=corrected)
        )
        for method in methods
        for corrected in corrections
    ]


def try_all(found: Sequence[Candidate], inputs: Mapping[str, Input], trials: Trials, make: Make) -> list[Tried]:
    """Make every candidate's artifact, and run those that could be made over the selection samples.

    A candidate that fails is one that cannot be chosen. But what the machine failed might have been the best, and what
    is chosen stands for good: that raises MachineError.
    """
    tried = look_at(found, inputs, trials, make)
    for each in tried:
        if each.by_machine:
            assert each.failure is not None
            made(each.failure)
    return tried


def look_at(found: Sequence[Candidate], inputs: Mapping[str, Input], trials: Trials, make: Make) -> list[Tried]:
    """Make every candidate's artifact, and run those that could be made over the selection samples.

    Raises MachineError where the machine failed what several of them are made from.
    """
    steps: list[Step] = []
    outcomes: dict[str, Outcome] = {}
    for each in found:
        try:
            steps.append(trials.artifact(each.options, inputs_of(each, inputs, trials), each.label))
        except MachineError:
            raise
        except StepError as error:  # of its histograms: the others need none
            steps.append(trials.artifact(each.options, inputs, each.label))
            outcomes[steps[-1].id] = failed(steps[-1], error)
    wanted = [step for step in steps if step.id not in outcomes]
    outcomes |= zip((step.id for step in wanted), make(wanted), strict=True)
    standing = [step for step in steps if outcomes[step.id].done]
    selections = make(trials.selection(standing)) if standing else []
    by_step = dict(zip((step.id for step in standing), selections, strict=True))
    return [
        Tried(candidate, step, outcomes[step.id], by_step.get(step.id))
        for candidate, step in zip(found, steps, strict=True)
    ]


def failed(step: Step, error: StepError) -> Outcome:
    """Return the outcome of a step that could not even be tried."""
    return Outcome(step=step.id, status="failed", message=str(error))


def best(tried: Sequence[Tried]) -> Tried:
    """Return the candidate with the highest SQNR, the first of equals. Raises StepError where each one failed."""
    sound = [each for each in tried if each.error is None]
    if not sound:
        raise StepError(tried[0].error or "no candidate could be made")
    return max(sound, key=lambda each: each.sqnr_db)


def row(each: Tried, chosen: Tried | None = None) -> dict[str, Any]:
    """Return what the report tells of a candidate."""
    result = each.selection.result if each.selection is not None else None
    values = result.values if result is not None else {}
    return {
        "label": each.candidate.label,
        "chosen": each is chosen,
        "sqnr_db": values.get("sqnr_db"),
        "agreement": values.get("agreement"),
        "n": values.get("n"),
        "size_bytes": each.artifact.result.outputs["model"].size_bytes if each.artifact.result is not None else None,
        "error": each.error,
    }


def method_of(ranges: Any) -> str:
    """Return the method that `ranges` names, as text or in a table with its options."""
    return str(ranges["method"] if isinstance(ranges, Mapping) else ranges)


def choice_of(ranges: Any) -> range_options.Choice:
    """Return the method with its options, as text or a table has them."""
    found: range_options.Choice = msgspec.convert(ranges, range_options.Choice)
    return found


def _label(ranges: Any, options: Mapping[str, Any], *, corrected: bool) -> str:
    words = range_options.words(choice_of(ranges)).split()
    words += ["equalized"] if options.get("equalize") else []
    words += ["bias-corrected"] if corrected else []
    return "-".join(words)
