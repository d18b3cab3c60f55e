"""Chooses ranges and bias correction by what they do to the outputs, on samples that no gate ever judges.

Every candidate is made and run over the selection samples beside float32; the one whose outputs have the highest
signal-to-quantization-noise ratio is the artifact; a classifier's logits count as an output (see `tflite.logits`). SQNR
decides and not the metric: over 55 variants of a MobileNetV2 its correlation with the top-1 of unseen pictures was
0.62, that of the loss on a hundred pictures 0.25.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from quantbuild.drivers.driven import Driven, Make, made
from quantbuild.drivers.trials import Trials
from quantbuild.errors import MachineError, StepError
from quantbuild.outcome import Outcome
from quantbuild.step import Input, Step
from quantbuild.tflite import range_options

ACTIONS = ("calibrate", "equalize", "evaluate", "histograms", "quantize")
"""What it may have done: the key of its own step covers their code, since they decide what it makes."""
TOOLS: tuple[str, ...] = ()
"""Distributions that these use beside the scheme's and the datasets' own."""
BY_METRIC = False
"""Its trials are judged by SQNR alone: the metric may need labels that calibration samples lack."""
AUTO = "auto"
DEFAULT_CANDIDATES = tuple(msgspec.to_builtins(each) for each in range_options.DEFAULT_CANDIDATES)
NEED_HISTOGRAMS = frozenset({"percentile", "mse", "kl"})


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
    def error(self) -> str | None:
        """Why it cannot be chosen."""
        failed = next((o for o in (self.artifact, self.selection) if o is not None and not o.done), None)
        return None if failed is None else failed.message

    @property
    def sqnr_db(self) -> float:
        """SQNR of the worst output; infinite where all are equal to float32's, minus infinite where it failed."""
        if self.selection is None or self.selection.result is None:
            return -math.inf
        found = self.selection.result.values["sqnr_db"]
        return math.inf if found is None else float(found)


def drive(step: Step, make: Make, root: Path) -> Driven:
    """Make `step` (quantize) by the best of its candidates; one candidate alone is not measured.

    Raises StepError where none can be made.
    """
    del root
    trials = Trials(step, make)
    options = step.parameters["options"]
    given = prepared(step, trials, options)
    found = candidates(options)
    if len(found) == 1:
        trial = trials.artifact(found[0].options, inputs_of(found[0], given.inputs, trials), found[0].label)
        result = made(make([trial])[0])
        return Driven(files=dict(trial.outputs), values={**result.values, **given.told})
    tried = try_all(found, given.inputs, trials, make)
    chosen = best(tried)
    assert chosen.artifact.result is not None
    told = {"trials": [row(each, chosen) for each in tried], "chosen": chosen.candidate.label, "confirmations": []}
    values = {**chosen.artifact.result.values, **given.told, "search": told}
    return Driven(files=dict(chosen.trial.outputs), values=values)


def prepared(step: Step, trials: Trials, options: Mapping[str, Any]) -> Prepared:
    """Return what candidates are made from: equalized where asked for. Raises StepError."""
    if options.get("equalize"):
        return Prepared(*trials.equalized())
    return Prepared({role: step.inputs[role] for role in ("model", "statistics")})


def inputs_of(candidate: Candidate, inputs: Mapping[str, Input], trials: Trials) -> dict[str, Input]:
    """Return a candidate's inputs: with histograms where its ranges follow from them."""
    if method_of(candidate.options["ranges"]) not in NEED_HISTOGRAMS:
        return dict(inputs)
    label = "equalized" if candidate.options.get("equalize") else "float32"
    return {**inputs, "histograms": trials.histograms(inputs, label)}


def candidates(options: Mapping[str, Any]) -> list[Candidate]:
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
    check_machine(outcomes.values())
    standing = [step for step in steps if outcomes[step.id].done]
    selections = make(trials.selection(standing)) if standing else []
    check_machine(selections)
    by_step = dict(zip((step.id for step in standing), selections, strict=True))
    return [
        Tried(candidate, step, outcomes[step.id], by_step.get(step.id))
        for candidate, step in zip(found, steps, strict=True)
    ]


def check_machine(outcomes: Iterable[Outcome]) -> None:
    """Raise MachineError where time, memory or room ran out."""
    for outcome in outcomes:
        if outcome.by_machine:
            made(outcome)


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


def _label(ranges: Any, options: Mapping[str, Any], *, corrected: bool) -> str:
    words = range_options.words(msgspec.convert(ranges, range_options.Choice)).split()
    words += ["equalized"] if options.get("equalize") else []
    words += ["bias-corrected"] if corrected else []
    return "-".join(words)
