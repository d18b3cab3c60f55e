"""What the selection samples say of an artifact: whether its loss meets a limit."""

from __future__ import annotations

from quantbuild.decimals import difference
from quantbuild.drivers.candidates import Tried
from quantbuild.drivers.search import Judged
from quantbuild.errors import StepError
from quantbuild.outcome import Outcome
from quantbuild.step import Step

OF_CLASSES = ("top1", "top5")
"""Metrics whose loss without labels is taken for the share of samples that choose another class than float32."""


def judged(tried: Tried, limit: float) -> Judged:
    """Judge what was tried against the largest loss allowed."""
    loss = loss_of(tried.selection)
    meets_limit = loss is not None and loss <= limit
    return Judged(meets_limit, tried.sqnr_db, made=tried.error is None, by_machine=tried.by_machine)


def loss_of(selection: Outcome | None) -> float | None:
    """Return the loss on the selection samples; of a metric without baseline, the share that does not agree."""
    if selection is None or selection.result is None:
        return None
    values = selection.result.values
    if values.get("loss") is not None:
        return float(values["loss"])
    agreement = values.get("agreement")
    return None if agreement is None else difference(1.0, agreement)


def check_is_measured(step: Step, tried: Tried) -> None:
    """Raise StepError where the selection samples, lacking labels, tell of no loss in the metric's unit."""
    selection = step.parameters["selection"]
    values = tried.selection.result.values if tried.selection and tried.selection.result else {}
    if values.get("loss") is None and selection["metric"] not in OF_CLASSES:
        raise StepError(
            f"dataset {selection['dataset']['name']}: metric {selection['metric']} needs labels to tell a loss, "
            'and mixed precision is chosen on these samples; set label in the dataset, or scheme = "int8"'
        )
