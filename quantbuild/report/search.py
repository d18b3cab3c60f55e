"""What was tried before an artifact was chosen, as text: candidates, what stayed out of int8, confirmations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantbuild import units
from quantbuild.report.wording import Mark

Json = Mapping[str, Any]

_VERDICTS = {
    "pass": Mark(sign="✓", word="met", kind="pass"),
    "fail": Mark(sign="✗", word="missed", kind="fail"),
    "undecided": Mark(sign="?", word="not decided", kind="undecided"),
    "not_measured": Mark(sign="–", word="not measured", kind="undecided"),
}
IDENTICAL = "identical outputs"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One artifact that was made and judged on the selection samples."""

    label: str
    chosen: bool
    sqnr: str
    agreement: str
    loss: str
    size: str
    latency: str
    on_front: bool
    kept: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Island:
    """One activation that left int8, and why: its rank, and what rounding it alone does to the outputs."""

    tensor: str
    noise: str
    nodes: str


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """One activation that was looked for but that no artifact can keep, and why."""

    tensor: str
    rank: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """One look at the evaluation set."""

    label: str
    loss: str
    mark: Mark


@dataclass(frozen=True, kw_only=True)
class Search:
    """All that was tried for one variant."""

    summary: str
    provisional: str
    trials: tuple[Trial, ...]
    with_islands: bool
    with_latency: bool
    with_loss: bool
    islands: tuple[Island, ...]
    left_out: tuple[LeftOut, ...]
    confirmations: tuple[Confirmation, ...]


def view(metric: str, search: Json | None) -> Search | None:
    """Return the view of a variant's search, None where nothing was tried."""
    if search is None:
        return None
    islands = search.get("islands") or []
    return Search(
        summary=_summary(metric, search),
        provisional=search.get("provisional") or "",
        trials=tuple(_trial(metric, trial) for trial in search["trials"]),
        with_islands=any(trial.get("kept") for trial in search["trials"]),
        with_loss=any(trial.get("loss") is not None for trial in search["trials"]),
        with_latency=any(trial.get("latency_ms") is not None for trial in search["trials"]),
        islands=tuple(_island(each) for each in islands),
        left_out=tuple(_left_out(each) for each in search.get("left_out") or ()),
        confirmations=tuple(_confirmation(metric, each) for each in search.get("confirmations") or ()),
    )


def _summary(metric: str, search: Json) -> str:
    tried = units.counted(len(search["trials"]), "artifact")
    samples = next((trial["n"] for trial in search["trials"] if trial.get("n")), None)
    judged = f"{tried} judged on {units.counted(samples, 'selection sample')}" if samples else f"{tried} tried"
    if "limit" not in search:
        how = "what has the highest SQNR, of the worst output and with a classifier's logits as one, was taken"
        return f"{judged}; {how}. No evaluation sample was looked at."
    limit = units.metric_difference(metric, search["limit"]).removeprefix("+")
    found = {"pass": "met", "fail": "not met", "undecided": "not decided", "not_measured": "met on these alone"}
    islands = units.counted(len(search.get("islands") or ()), "activation")
    least = f"latency on {search['device']}" if search["objective"] == "latency" else "size"
    sought = f"{judged}, to lose at most {limit} at the least {least}"
    return f"{sought}: {found[search['verdict']]}, with {islands} out of int8."


def _trial(metric: str, trial: Json) -> Trial:
    made = trial.get("error") is None
    sqnr = IDENTICAL if made and trial["sqnr_db"] is None else units.decibels(trial.get("sqnr_db"))
    return Trial(
        label=trial["label"],
        chosen=bool(trial["chosen"]),
        sqnr=sqnr,
        agreement=units.percent(trial.get("agreement")),
        loss=units.metric_difference(metric, trial.get("loss")),
        size=units.size(trial.get("size_bytes")),
        latency=_latency(trial),
        on_front=bool(trial.get("front")),
        kept=units.count(len(trial.get("kept") or ())),
        message=trial.get("error") or "",
    )


def _latency(trial: Json) -> str:
    if trial.get("latency_ms") is None:
        return units.NOT_MEASURED
    return f"{units.milliseconds(trial['latency_ms'])} ({units.ratio(trial['latency_ratio'])})"


def _island(island: Json) -> Island:
    return Island(
        tensor=island["tensor"].partition(";")[0],
        noise=f"{_rank(island)}: rounding it alone costs {units.percent(island['noise'])} of the outputs' power",
        nodes=units.counted(len(island["nodes"]), "operation"),
    )


def _left_out(unit: Json) -> LeftOut:
    return LeftOut(tensor=unit["tensor"].partition(";")[0], rank=_rank(unit), message=unit["error"])


def _rank(unit: Json) -> str:
    return f"no. {unit['rank']} by noise"


def _confirmation(metric: str, each: Json) -> Confirmation:
    interval = units.metric_interval(metric, each["loss_low"], each["loss_high"])
    loss = f"loss {units.metric_difference(metric, each['loss'])} ({interval}), {units.counted(each['n'], 'sample')}"
    return Confirmation(label=each["label"], loss=loss, mark=_VERDICTS[each["verdict"]])
