"""What the page tells of a search."""

from __future__ import annotations

from typing import Any

from quantbuild.report import search, wording

SEARCH: dict[str, Any] = {
    "trials": [{"label": "minmax", "chosen": True, "n": 100, "error": None, "sqnr_db": 20.0}],
    "limit": 0.01,
    "verdict": "pass",
    "objective": "size",
}


def test_activations_that_could_not_be_kept_are_told_with_their_reason() -> None:
    unit = {"tensor": "net/conv;net/bias", "rank": 3, "noise": 0.5, "nodes": ["node:4"], "error": "no kernel"}
    found = search.view("top1", {**SEARCH, "left_out": [unit]})
    assert found is not None
    (told,) = found.left_out
    assert (told.tensor, told.rank, told.message) == ("net/conv", "no. 3 by noise", "no kernel")


def test_the_page_says_why_the_two_gates_on_the_loss_do_not_agree() -> None:
    gate = {
        "name": "search.max_accuracy_loss",
        "limit": 0.01,
        "value": 0.008,
        "loss_low": 0.002,
        "loss_high": 0.011,
        "n": 400,
        "samples": "evaluation",
        "verdict": "undecided",
        "beside": "max_accuracy_loss passes all the same: it looks once",
    }
    assert wording.gate_sentence(gate, "top1", {"accuracy": {}}).endswith(
        "cannot tell (max_accuracy_loss passes all the same: it looks once)"
    )
    assert wording.gate_sentence({**gate, "beside": None}, "top1", {"accuracy": {}}).endswith("cannot tell")


def test_a_loss_has_a_column_where_one_was_measured_and_a_limit_no_sign() -> None:
    without = search.view("top1", SEARCH)
    lost = search.view("top1", {**SEARCH, "trials": [{**SEARCH["trials"][0], "loss": 0.02}]})
    assert without is not None
    assert lost is not None
    assert (without.with_loss, lost.with_loss) == (False, True)
    assert "to lose at most 1.00 points" in without.summary
