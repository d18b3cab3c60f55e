"""What a search tells in its record: every trial, what stays out of int8 and why, and the best that was found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from quantbuild.drivers import candidates
from quantbuild.drivers.candidates import Tried
from quantbuild.drivers.confirmations import Confirmation
from quantbuild.drivers.judging import loss_of
from quantbuild.drivers.latencies import Latency
from quantbuild.drivers.ranked_units import Unit
from quantbuild.drivers.search import Units, pareto

_LOSS_KEYS = ("loss", "loss_low", "loss_high", "n")

Row = dict[str, Any]


class Trial(NamedTuple):
    """An artifact that was judged, and what it keeps from int8."""

    tried: Tried
    units: Units


def rows(trials: Sequence[Trial], chosen: Tried, units: Sequence[Unit], latencies: Mapping[str, Latency]) -> list[Row]:
    """Tell every trial, in order; ``front`` marks those that no other is as small and as good as."""
    found = [_row(trial, chosen, units, latencies.get(trial.tried.candidate.label)) for trial in trials]
    points = [(size(trial.tried), trial.tried.sqnr_db) for trial in trials]
    return [{**row, "front": front and row["error"] is None} for row, front in zip(found, pareto(points), strict=True)]


def _row(trial: Trial, chosen: Tried, units: Sequence[Unit], latency: Latency | None) -> Row:
    return {
        **candidates.row(trial.tried, chosen),
        "loss": loss_of(trial.tried.selection),
        "kept": [units[unit].tensor for unit in sorted(trial.units)],
        "latency_ms": None if latency is None else latency.p50_ms,
        "latency_ratio": None if latency is None else latency.ratio,
    }


def size(tried: Tried) -> float:
    """Return the bytes of an artifact; infinite where it was not made."""
    result = tried.artifact.result
    return math.inf if result is None else float(result.outputs["model"].size_bytes)


def best(tried: Tried, confirmation: Confirmation | None) -> Row:
    """Tell what the artifact that was taken loses, and on which samples that was found."""
    row = candidates.row(tried)
    about = {"label": row["label"], "sqnr_db": row["sqnr_db"]}
    if confirmation is not None and confirmation.is_measured:
        return {**about, "samples": "evaluation", **{key: confirmation.judgement[key] for key in _LOSS_KEYS}}
    loss = {"loss": loss_of(tried.selection), "loss_low": None, "loss_high": None, "n": row["n"]}
    return {**about, "samples": "selection", **loss}


def unit(units: Sequence[Unit], number: int) -> Row:
    """Tell an activation with its rank, from 1."""
    found = units[number]
    return {"tensor": found.tensor, "noise": found.noise, "rank": number + 1, "nodes": list(found.nodes)}


def confirmation(each: Confirmation) -> Row:
    """Tell a look at the evaluation set."""
    return {"label": each.tried.candidate.label, **each.judgement}
