"""What the page tells of a search."""

from __future__ import annotations

from typing import Any

from quantbuild.report import search

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
