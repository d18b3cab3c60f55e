"""Judges what a search came to: the limit that its artifact was looked for by is a gate like any other. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantbuild.artifact_gates import row

NAME = "search.max_accuracy_loss"

Row = dict[str, Any]


def judge(search: Mapping[str, Any] | None, *, rows: Sequence[Row], accuracy: Mapping[str, Any] | None) -> list[Row]:
    """Return a row for a search with a limit, as the quantize step tells it; none for any other choice.

    The verdict is the search's own: with evaluation samples that of its last confirmation, whose confidence is divided
    among the confirmations that there may be; "fail" where nothing met the limit on the selection samples. The row's
    value is the loss of the best artifact found; beside it are its interval (None: selection samples have none), the
    number of samples and which they are.

    `rows` are the variant's other gates and `accuracy` its accuracy block. Where its ``max_accuracy_loss`` answers
    otherwise, ``beside`` says why in one sentence, which ends the message; None elsewhere.
    """
    if search is None or "limit" not in search:
        return []
    best = search["best"]
    found = {key: best[key] for key in ("loss_low", "loss_high", "n", "samples")}
    beside = _beside(search, rows, accuracy)
    why = "" if beside is None else f"; {beside}"
    message = f"{_loss(best)} is {_relation(search)} {search['limit']:.4g}{_how(search)}{why}"
    return [{**row(NAME, search["limit"], best["loss"], search["verdict"], message), **found, "beside": beside}]


def _loss(best: Mapping[str, Any]) -> str:
    interval = "" if best["loss_high"] is None else f" [{best['loss_low']:.4g}, {best['loss_high']:.4g}]"
    return f"loss {best['loss']:.4g}{interval} of {best['n']} {best['samples']} samples"


def _relation(search: Mapping[str, Any]) -> str:
    return {"pass": "within", "fail": "beyond", "not_measured": "within"}.get(search["verdict"], "not decided against")


def _how(search: Mapping[str, Any]) -> str:
    trials, label = len(search["trials"]), search["best"]["label"]
    tried = f"{label} of {trials} artifact{'s' if trials > 1 else ''} tried"
    if search["verdict"] == "fail":
        left = "; more trials may find one that meets it" if search["trials_left"] <= 0 else ""
        return f"; best found: {tried}{_left_out(search)}{left}"
    if search["verdict"] == "not_measured":
        return f"; {tried}; there is no evaluation set to confirm it on"
    return f"; {tried}"


def _left_out(search: Mapping[str, Any]) -> str:
    """Tell of activations that might have been what was looked for, had there been an artifact that keeps them."""
    if not search["left_out"]:
        return ""
    first, more = search["left_out"][0], len(search["left_out"]) - 1
    others = f" and {more} more" if more else ""
    return f"; {first['tensor'].partition(';')[0]}{others} could not be kept from int8: {first['error']}"


def _beside(search: Mapping[str, Any], rows: Sequence[Row], accuracy: Mapping[str, Any] | None) -> str | None:
    """Return why the gate on the same loss, ``max_accuracy_loss``, answers otherwise; None where it does not.

    Where its limit is another one, that is why: a larger one may pass, and a smaller one fail.
    """
    gate = next((each for each in rows if each["name"] == "max_accuracy_loss"), None)
    if gate is None or accuracy is None:
        return None
    passes = gate["verdict"] == "pass" and gate["limit"] <= search["limit"]
    fails = gate["verdict"] == "fail" and gate["limit"] >= search["limit"]
    told = f"max_accuracy_loss {'passes' if passes else 'fails'} all the same: it"
    if search["verdict"] == "undecided" and (passes or fails):
        once, each = (_percent(of["confidence"]) for of in (accuracy, search["confirmations"][-1]))
        return f"{told} looks once, with {once} confidence; a search may look three times, each with {each}"
    if search["verdict"] == "fail" and search["best"]["samples"] == "selection" and passes:
        return f"{told} is of {accuracy['n']} evaluation samples, by which nothing is chosen"
    return None


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"
