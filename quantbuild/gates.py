"""Judges one variant: its loss with an interval, then every gate the manifest sets. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from quantbuild.artifact_gates import row as _row
from quantbuild.decimals import difference
from quantbuild.statistics import (
    Interval,
    Verdict,
    is_binary,
    paired_mean,
    proportion,
    samples_to_decide,
    verdict,
)

CONFIDENCE = 0.95
"""Two-sided, where the gate names none."""

_WORST_FIRST: tuple[Verdict, ...] = ("fail", "undecided", "not_measured", "pass")
_MINIMUM = {"min_agreement": "agreement", "min_sqnr_db": "sqnr_db"}
_PER_DEVICE = {"max_latency_ratio": "latency_ratio", "max_peak_memory_ratio": "memory_ratio"}

Row = dict[str, Any]


def accuracy(
    evaluation: Mapping[str, Any], samples: Mapping[str, NDArray[Any]], gate: Mapping[str, Any], *, reference: bool
) -> Row:
    """Return the accuracy block of a variant, or (`reference`) of float32, whose loss is 0 by definition.

    `evaluation` and `samples` are what its evaluate step wrote. The loss is in the metric's unit,
    positive is worse; null for sqnr, which has no baseline. The intervals of the slices hold all at once.
    """
    confidence = gate.get("confidence", CONFIDENCE)
    limit = gate.get("max_accuracy_loss")
    loss = loss_of(evaluation, evaluation)
    interval = (0.0, 0.0) if reference and loss is not None else _interval(evaluation, samples, confidence)
    low, high = interval or (None, None)
    block: Row = {
        "value": evaluation["value"],
        "baseline": evaluation["baseline"],
        "loss": loss,
        "loss_low": low,
        "loss_high": high,
        "n": evaluation["n"],
        "agreement": evaluation["agreement"],
        "sqnr_db": evaluation["sqnr_db"],
        "verdict": "not_measured" if limit is None or loss is None else verdict(low, high, limit),
        "confidence": confidence,
    }
    block["agreement_low"], block["agreement_high"] = _agreement_interval(evaluation, samples, confidence)
    block["slices"] = _slices(evaluation, samples, gate, reference=reference)
    return block


def loss_of(evaluation: Mapping[str, Any], figures: Mapping[str, Any]) -> float | None:
    """Return how much worse `figures` ("value", "baseline") are than float32's; None without a baseline."""
    if figures["value"] is None or figures["baseline"] is None:
        return None
    value, baseline = figures["value"], figures["baseline"]
    return difference(baseline, value) if evaluation["higher_is_better"] else difference(value, baseline)


def judge(
    gate: Mapping[str, Any],
    *,
    accuracy: Mapping[str, Any] | None,
    size_ratio: float | None,
    float_ops: list[Mapping[str, Any]] | None,
    devices: Mapping[str, Mapping[str, Any]],
) -> list[Row]:
    """Return a row for every gate set: name, device (or None), limit, value, verdict, message.

    `devices` maps a device to its benchmark result. What was not measured is judged ``not_measured``,
    an unstable measurement ``undecided``.
    """
    rows: list[Row] = []
    if (limit := gate.get("max_accuracy_loss")) is not None:
        rows.append(_accuracy_row(limit, accuracy))
    if (limit := gate.get("max_slice_loss")) is not None:
        rows.append(_slice_row(limit, accuracy))
    for name, key in _MINIMUM.items():
        if (limit := gate.get(name)) is not None:
            rows.append(_minimum_row(name, limit, accuracy, key))
    if (limit := gate.get("max_size_ratio")) is not None:
        rows.append(_maximum_row("max_size_ratio", None, limit, size_ratio))
    for name, key in _PER_DEVICE.items():
        for device, limit in sorted((gate.get(name) or {}).items()):
            rows.append(_device_row(name, device, limit, devices.get(device), key))
    if gate.get("fully_integer"):
        rows.append(_integer_row(float_ops))
    return rows


def fails(row: Mapping[str, Any], gate: Mapping[str, Any]) -> bool:
    """Whether a judged gate makes the build fail."""
    undecided_fails = gate.get("undecided", "warn") == "fail"
    return bool(row["verdict"] == "fail" or (row["verdict"] == "undecided" and undecided_fails))


def number(value: float | None) -> str:
    """Return a number for a message: four significant digits."""
    return "none" if value is None else f"{value:.4g}"


def _interval(evaluation: Mapping[str, Any], samples: Mapping[str, NDArray[Any]], confidence: float) -> Interval | None:
    """Return the interval of the loss, from the samples' paired scores."""
    if "score" not in samples:
        return None
    scores, baseline = samples["score"], samples["baseline_score"]
    if evaluation["metric"] == "agreement" and is_binary(scores):
        # float32 agrees with itself by definition: no pair but one proportion, and no loss below 0.
        return proportion(int((scores == 0).sum()), len(scores), confidence)
    if evaluation["higher_is_better"]:
        return paired_mean(baseline, scores, confidence)
    return paired_mean(scores, baseline, confidence)


def _agreement_interval(
    evaluation: Mapping[str, Any], samples: Mapping[str, NDArray[Any]], confidence: float
) -> tuple[float | None, float | None]:
    if "agreement" not in samples or not is_binary(samples["agreement"]):
        return None, None
    return proportion(evaluation["agreed"], evaluation["n"], confidence)


def _slices(
    evaluation: Mapping[str, Any], samples: Mapping[str, NDArray[Any]], gate: Mapping[str, Any], *, reference: bool
) -> list[Row]:
    """Return each slice's figures, loss with its interval, and verdict against ``max_slice_loss``.

    The more slices there are, the likelier one of them looks bad by chance. So the probability of error is divided
    among them (Bonferroni): of k slices each has the confidence 1 − (1 − confidence) / k, and with at least
    `confidence` every interval holds: as true as each is, see `statistics.bootstrap_mean` for scores that are not right
    or wrong.
    """
    found = evaluation["slices"]
    error = (1 - gate.get("confidence", CONFIDENCE)) / max(len(found), 1)
    return [
        _slice(evaluation, found[number], _inside(samples, number), 1 - error, gate, reference=reference)
        for number in range(len(found))
    ]


def _inside(samples: Mapping[str, NDArray[Any]], number: int) -> dict[str, NDArray[Any]]:
    inside = samples["slice"] == number
    return {name: samples[name][inside] for name in ("score", "baseline_score")}


def _slice(
    evaluation: Mapping[str, Any],
    found: Mapping[str, Any],
    samples: Mapping[str, NDArray[Any]],
    confidence: float,
    gate: Mapping[str, Any],
    *,
    reference: bool,
) -> Row:
    limit = gate.get("max_slice_loss")
    low, high = (0.0, 0.0) if reference else _interval(evaluation, samples, confidence) or (None, None)
    return {
        **found,
        "loss": loss_of(evaluation, found),
        "loss_low": low,
        "loss_high": high,
        "verdict": "not_measured" if limit is None else verdict(low, high, limit),
    }


def _accuracy_row(limit: float, block: Mapping[str, Any] | None) -> Row:
    name = "max_accuracy_loss"
    if block is None or block["loss"] is None:
        return _row(name, limit, None, "not_measured", "not measured")
    judged: Verdict = block["verdict"]
    low, high = number(block["loss_low"]), number(block["loss_high"])
    relation = {"pass": "within", "fail": "beyond"}.get(judged, "not decided against")
    message = f"loss {number(block['loss'])} [{low}, {high}] of {block['n']} samples is {relation} {number(limit)}"
    return _with_estimate(_row(name, limit, block["loss"], judged, message), block)


def _slice_row(limit: float, block: Mapping[str, Any] | None) -> Row:
    """Judge every slice; the worst verdict decides, and of equal ones the largest loss is named, then the vaguest."""
    name = "max_slice_loss"
    if block is None or not block["slices"]:
        why = "not measured" if block is None else "not measured: the evaluation set has no slices"
        return {**_row(name, limit, None, "not_measured", why), "slice": None}
    worst = min(block["slices"], key=_badness)
    low, high = number(worst["loss_low"]), number(worst["loss_high"])
    relation = {"pass": "within", "fail": "beyond"}.get(worst["verdict"], "not decided against")
    message = (
        f"slice {worst['name']}: loss {number(worst['loss'])} [{low}, {high}] of {worst['n']} samples "
        f"is {relation} {number(limit)} (the worst of {len(block['slices'])})"
    )
    row = _row(name, limit, worst["loss"], worst["verdict"], message)
    return {**_with_estimate(row, worst), "slice": worst["name"]}


def _with_estimate(row: Row, found: Mapping[str, Any]) -> Row:
    """Return the row of a loss with what would roughly decide it, None where it is decided or nothing tells."""
    needed = None
    if row["verdict"] == "undecided" and found["loss_low"] is not None and found["loss_high"] is not None:
        interval = (found["loss_low"], found["loss_high"])
        needed = samples_to_decide(found["loss"], interval, row["limit"], found["n"])
    told = "" if needed is None else f"; about {needed} samples like these would decide it (an estimate)"
    return {**row, "message": row["message"] + told, "samples_to_decide": needed}


def _badness(found: Mapping[str, Any]) -> tuple[int, float, float]:
    high = found["loss_high"]
    return _WORST_FIRST.index(found["verdict"]), -found["loss"], -math.inf if high is None else -high


def _minimum_row(name: str, limit: float, block: Mapping[str, Any] | None, key: str) -> Row:
    """Judge the figure of these samples; for a gate with an interval there is metric = "agreement"."""
    if block is None or (block[key] is None and key == "agreement"):
        return _row(name, limit, None, "not_measured", "not measured")
    value = block[key]
    if value is None:
        return _row(name, limit, None, "pass", "outputs are identical to float32's")
    passed = value >= limit
    message = f"{number(value)} {'≥' if passed else '<'} {number(limit)}"
    return _row(name, limit, value, "pass" if passed else "fail", message)


def _maximum_row(name: str, device: str | None, limit: float, value: float | None) -> Row:
    if value is None:
        return _row(name, limit, None, "not_measured", "not measured", device=device)
    passed = value <= limit
    message = f"{number(value)} {'≤' if passed else '>'} {number(limit)}"
    return _row(name, limit, value, "pass" if passed else "fail", message, device=device)


def _device_row(name: str, device: str, limit: float, result: Mapping[str, Any] | None, key: str) -> Row:
    value = None if result is None else result.get(key)
    if result is not None and result["status"] == "unstable" and value is not None and key == "latency_ratio":
        message = f"{number(value)} against {number(limit)}, but the measurement was unstable"
        return _row(name, limit, value, "undecided", message, device=device)
    return _maximum_row(name, device, limit, value)


def _integer_row(float_ops: list[Mapping[str, Any]] | None) -> Row:
    name = "fully_integer"
    if float_ops is None:
        return _row(name, True, None, "not_measured", "not measured")
    if not float_ops:
        return _row(name, True, True, "pass", "no float op is left")
    kinds = ", ".join(sorted({str(op["op"]) for op in float_ops}))
    return _row(name, True, False, "fail", f"{len(float_ops)} float ops are left ({kinds})")
