"""The rules of limits: gates, and what a search has to keep to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantbuild.manifest.context import Context, Known
from quantbuild.manifest.locate import KeyPath
from quantbuild.manifest.names import check_measured
from quantbuild.manifest.problems import key_text
from quantbuild.units import FRACTION_METRICS

LOSS_GATES = ("max_accuracy_loss", "max_slice_loss")
ACCURACY_GATES = (*LOSS_GATES, "min_agreement", "min_sqnr_db")
DEVICE_GATES = ("max_latency_ratio", "max_peak_memory_ratio")


def check_gate(gate: Any, path: KeyPath, model: Mapping[str, Any], known: Known, context: Context) -> None:
    """A gate asks for figures that the model's metric, datasets and devices can give."""
    if not isinstance(gate, dict):
        return
    for key in LOSS_GATES:
        if key in gate and model.get("metric") == "sqnr":
            context.add((*path, key), "sqnr has no loss against float32; use min_sqnr_db or another metric")
    for key in LOSS_GATES:
        _check_loss(gate.get(key), (*path, key), model.get("metric"), context)
    _check_slices(gate, path, model, known, context)
    for key in ACCURACY_GATES:
        if key in gate and "evaluation" not in model:
            text = f"there is nothing to judge it on; add evaluation = DATASET to {key_text(path[:2])}"
            context.add((*path, key), text)
    for key in DEVICE_GATES:
        ratios = gate.get(key)
        for device in ratios if isinstance(ratios, dict) else ():
            check_measured(device, (*path, key, device), model, known, context)


def check_search(search: Any, path: KeyPath, model: Mapping[str, Any], context: Context) -> None:
    """A search that has a loss to keep to has one that the model's metric can give."""
    limit = search.get("max_accuracy_loss") if isinstance(search, dict) else None
    if limit is None:
        return
    place, metric = (*path, "max_accuracy_loss"), model.get("metric")
    if metric == "sqnr":
        context.add(place, 'sqnr has no loss against float32; use another metric, or scheme = "int8"')
    _check_loss(limit, place, metric, context)


def _check_loss(limit: Any, path: KeyPath, metric: Any, context: Context) -> None:
    """A loss of a share is a share: whoever writes 1 or 2 means points, and would get a limit that nothing breaks.

    1.0 passes: that is how one writes all of it.
    """
    share = metric is None or metric in FRACTION_METRICS
    if share and type(limit) in (int, float) and (1 < limit <= 100 or (limit == 1 and type(limit) is int)):
        text = f"{limit:g} would be {limit * 100:g} points, which nothing can lose"
        context.add(path, f"{text}; one point is 0.01, so write {limit / 100:g}")


def _check_slices(
    gate: Mapping[str, Any], path: KeyPath, model: Mapping[str, Any], known: Known, context: Context
) -> None:
    """A gate on slices has slices, as far as the manifest tells: a labels file is only read by the build."""
    evaluation = model.get("evaluation")
    options = known.datasets.get(evaluation) if isinstance(evaluation, str) else None
    if "max_slice_loss" in gate and options is not None and getattr(options, "slice", "") is None:
        text = f"the evaluation set has no slices; add slice to dataset.{evaluation}, or leave the key out"
        context.add((*path, "max_slice_loss"), text)
