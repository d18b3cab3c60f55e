"""What the check step looks for: the two sets side by side, the evaluation set alone, and each variant's outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from quantbuild.lint import guessing, output_rules, pair_rules, set_rules
from quantbuild.lint.facts import SetFile
from quantbuild.lint.findings import Finding, errors, kept

REFERENCE = "float32"


class Judgement(NamedTuple):
    """The findings of the calibrate step, those made here, and the errors that count against each variant."""

    earlier: list[Finding]
    findings: list[Finding]
    against: dict[str, list[Finding]]
    """Variant → errors."""


def judge(
    model: str,
    *,
    calibration: SetFile | None,
    evaluation: SetFile | None,
    evaluations: Mapping[str, Mapping[str, Any]],
    calibrated: Iterable[str],
    ignored: Iterable[str],
) -> Judgement:
    """Judge what there is of a model.

    `calibration` and `evaluation` are what its calibrate step and float32's evaluation wrote of their samples,
    `evaluations` each variant's evaluation.json. `calibrated` are the variants that the calibration set has shaped: an
    error about that set counts against each of them, one about the evaluation set against every variant, whose figures
    then say nothing.
    """
    silent = list(ignored)
    pair: list[Finding] = []
    if calibration is not None and evaluation is not None:
        pair = kept(pair_rules.findings(calibration.facts, evaluation.facts), silent)
    judged_on = [] if evaluation is None else kept(set_rules.findings(evaluation.facts), silent)
    of_model = kept(guessing.findings(model, evaluations.get(REFERENCE, {})), silent)
    of_outputs = {
        variant: kept(output_rules.findings(f"{model}/{variant}", found), silent)
        for variant, found in evaluations.items()
    }
    shaped = set(calibrated)
    against = {
        variant: errors([*(pair if variant in shaped else ()), *judged_on, *of_outputs[variant]])
        for variant in of_outputs
    }
    every = [*pair, *judged_on, *of_model, *(finding for found in of_outputs.values() for finding in found)]
    return Judgement([] if calibration is None else list(calibration.findings), kept(every, ()), against)
