"""The words of the page: what a gate, a verdict, a metric and a scheme mean to somebody who has never met them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantbuild import units
from quantbuild.report import artifact_wording

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A verdict as the page shows it: a sign and a word, so that colour is never alone; `kind` picks the colour."""

    sign: str
    word: str
    kind: str


PASS = Mark(sign="✓", word="pass", kind="pass")
FAIL = Mark(sign="✗", word="fail", kind="fail")
UNDECIDED = Mark(sign="?", word="undecided", kind="undecided")
UNDECIDED_FAILS = Mark(sign="✗", word="undecided, which is set to fail", kind="fail")
NOT_MEASURED = Mark(sign="–", word="not measured", kind="none")
NO_LIMITS = Mark(sign="–", word="no limits set", kind="none")
NOT_BUILT = Mark(sign="✗", word="not built", kind="fail")
INCOMPLETE = Mark(sign="✗", word="not all measured", kind="fail")
REFERENCE = Mark(sign="◆", word="reference", kind="reference")

_MARKS = {"pass": PASS, "fail": FAIL, "undecided": UNDECIDED, "not_measured": NOT_MEASURED}

_METRICS = {
    "top1": ("Top-1 accuracy", "the share of samples whose most probable class is the right one"),
    "top5": ("Top-5 accuracy", "the share of samples whose right class is among the five most probable"),
    "agreement": ("Agreement", "the share of samples that get the same answer as from float32"),
    "sqnr": ("SQNR", "how far the outputs' signal stands above the noise that quantization adds"),
    "mae": ("Mean absolute error", "the mean distance of the outputs from the right values; less is better"),
    "mse": ("Mean squared error", "the mean squared distance of the outputs from the right values; less is better"),
}

SEARCH_LIMIT = "search.max_accuracy_loss"
_LOSSES = ("max_accuracy_loss", "max_slice_loss", SEARCH_LIMIT)

_GATES = {
    "max_accuracy_loss": ("Loss against float32", "at most"),
    "max_slice_loss": ("Loss of any slice against float32", "at most"),
    "min_agreement": ("Agreement with float32", "at least"),
    "min_sqnr_db": ("SQNR of the outputs", "at least"),
    "max_size_ratio": ("File size against float32", "at most"),
    "max_latency_ratio": ("Latency against float32", "at most"),
    "max_peak_memory_ratio": ("Peak memory against float32", "at most"),
    SEARCH_LIMIT: ("Loss against float32 that was searched for", "at most"),
    **{name: (title, "") for name, title in artifact_wording.TITLES.items()},
}

_RATIOS = {
    "max_size_ratio": "has {} the file size of float32",
    "max_latency_ratio": "takes {} the time of float32",
    "max_peak_memory_ratio": "takes {} the peak memory of float32",
}

SCHEMES = {
    "float32": "as it was converted",
    "float16": "16-bit float weights",
    "dynamic": "8-bit weights, float activations",
    "weight_only": "integer weights, float arithmetic",
    "int8": "8-bit weights and activations",
    "int16x8": "8-bit weights, 16-bit activations",
    "mixed": "8-bit, more where a limit on the loss asks for it",
}


def gate_mark(gate: Json) -> Mark:
    """Return the mark of one gate; an undecided one may be declared to fail."""
    if gate.get("fails") and gate["verdict"] == "undecided":
        return UNDECIDED_FAILS
    return _MARKS[gate["verdict"]]


def variant_mark(variant: Json) -> Mark:
    """Return the mark that sums up a variant."""
    if variant["error"] is not None:
        return NOT_BUILT if variant["artifact"] is None else INCOMPLETE
    if variant["scheme"] == "float32":
        return REFERENCE
    return _MARKS[variant["verdict"]] if variant["gates"] else NO_LIMITS


def metric_title(metric: str) -> str:
    """Return a metric's name as a heading; a user's own function keeps its name."""
    return _METRICS[metric][0] if metric in _METRICS else metric.rpartition(":")[2]


def metric_meaning(metric: str) -> str:
    """Return what a metric measures."""
    return _METRICS[metric][1] if metric in _METRICS else f"the mean over the samples of {metric}"


def gate_title(gate: Json) -> str:
    """Return what a gate limits."""
    title = _GATES[gate["name"]][0] if gate["name"] in _GATES else gate["name"]
    return f"{title}, on {gate['device']}" if gate.get("device") else title


def gate_limit(gate: Json, metric: str) -> str:
    """Return a gate's limit: ``at most 2.00 points``."""
    if gate["name"] in artifact_wording.TITLES:
        return artifact_wording.limit(gate)
    relation = _GATES[gate["name"]][1] if gate["name"] in _GATES else ""
    limit = _gate_number(gate["name"], gate["limit"], metric).removeprefix("+")
    return f"{relation} {limit}".strip()


def gate_sentence(gate: Json, metric: str, variant: Json) -> str:
    """Return what broke a limit, or leaves it open, as the end of a sentence about the variant."""
    if gate["name"] in artifact_wording.TITLES:
        return artifact_wording.sentence(gate, variant)
    name, value, limit = gate["name"], gate_value(gate, metric, variant), gate_limit(gate, metric)
    if gate["value"] is None:
        return f"{gate_title(gate)} was not measured"
    if name == SEARCH_LIMIT:
        return _search_sentence(gate, value.removeprefix("+"), limit.removeprefix("at most "))
    if name in _LOSSES:
        return _loss_sentence(gate, value.removeprefix("+"), limit.removeprefix("at most "), variant)
    if name == "min_agreement":
        return f"agrees with float32 on {value} of the samples, where {limit} are demanded"
    if name in _RATIOS:
        place = f" on {gate['device']}" if gate.get("device") else ""
        text = f"{_RATIOS[name].format(value)}{place}, where {limit} is allowed"
    else:
        text = f"has {value} as {gate_title(gate)}, where {limit} is demanded"
    return f"{text}, but the measurement was unstable" if gate["verdict"] == "undecided" else text


def _loss_sentence(gate: Json, value: str, bound: str, variant: Json) -> str:
    place, n = "", variant["accuracy"]["n"]
    if gate["name"] == "max_slice_loss":
        place = f' on slice "{gate["slice"]}"'
        n = slice_of(gate, variant)["n"]
    text = f"loses {value} against float32{place}"
    if gate["verdict"] == "undecided":
        n_samples = units.counted(n, "sample")
        needed = gate.get("samples_to_decide")
        estimate = "" if needed is None else f"; about {units.count(needed)} like them would, as an estimate"
        return f"{text}; the limit of {bound} is inside that interval, so {n_samples} cannot tell{estimate}"
    return f"{text}, and only {bound} are allowed"


def _search_sentence(gate: Json, value: str, bound: str) -> str:
    samples = f"{units.counted(gate['n'], gate['samples'] + ' sample')}"
    why = f" ({gate['beside']})" if gate.get("beside") else ""
    if gate["verdict"] == "undecided":
        return f"loses {value}; the limit of {bound} is inside that interval, so {samples} cannot tell{why}"
    return f"is the best that the search found, loses {value} on {samples}, and only {bound} are allowed{why}"


def gate_value(gate: Json, metric: str, variant: Json) -> str:
    """Return what was found against a gate, with its interval where it has one."""
    name, value = gate["name"], gate["value"]
    if name in artifact_wording.TITLES:
        return artifact_wording.value(gate, variant)
    if name == "min_sqnr_db" and value is None and gate["verdict"] == "pass":
        return "outputs identical to float32's"
    if value is None:
        return units.NOT_MEASURED
    text = _gate_number(name, value, metric)
    about = _about_loss(gate, metric, variant)
    return f"{text} ({about})" if about else text


def _about_loss(gate: Json, metric: str, variant: Json) -> str:
    """Return the interval of a loss, and whose it is; nothing for another figure."""
    name, accuracy = gate["name"], variant["accuracy"]
    if name == SEARCH_LIMIT and gate["loss_high"] is not None:
        return units.metric_interval(metric, gate["loss_low"], gate["loss_high"])
    if name == "max_slice_loss" and accuracy:
        return f"{gate['slice']}: {slice_interval(slice_of(gate, variant), metric)}"
    if name == "max_accuracy_loss" and accuracy and accuracy["loss_high"] is not None:
        interval = units.metric_interval(metric, accuracy["loss_low"], accuracy["loss_high"])
        return f"{confidence(accuracy)}: {interval}"
    return ""


def slice_of(gate: Json, variant: Json) -> Json:
    """Return the figures of the slice that a gate names."""
    found: Json = next(each for each in variant["accuracy"]["slices"] if each["name"] == gate["slice"])
    return found


def slice_interval(found: Json, metric: str) -> str:
    """Return the interval of a slice's loss, which holds together with those of the other slices."""
    return units.metric_interval(metric, found["loss_low"], found["loss_high"])


def verdict_mark(verdict: str) -> Mark:
    """Return the mark of a verdict by itself."""
    return _MARKS[verdict]


def confidence(accuracy: Json) -> str:
    """Return the confidence of an accuracy's interval: ``95 %``."""
    return units.percent(accuracy["confidence"], 0) if accuracy.get("confidence") else "interval"


def _gate_number(name: str, value: float, metric: str) -> str:
    if name in _LOSSES:
        return units.metric_difference(metric, value)
    if name == "min_agreement":
        return units.percent(value)
    if name == "min_sqnr_db":
        return units.decibels(value)
    return units.ratio(value)
