"""Gates on what a file is made of: which ops, and the oldest runtime that has them."""

from __future__ import annotations

from typing import Any

import pytest

from quantbuild import artifact_gates


def described(*ops: tuple[str, int | None, str | None]) -> dict[str, Any]:
    """The part of a description that these gates read; an op without a release is unknown."""
    runtimes = [runtime for _, _, runtime in ops]
    return {
        "ops": {op: 1 for op, _, _ in ops},
        "op_versions": [{"op": op, "version": version, "count": 1, "runtime": runtime} for op, version, runtime in ops],
        "minimal_runtime": None if None in runtimes else max(runtimes, default=None),
        "runtime_unknown": [f"{op} {version}" for op, version, runtime in ops if runtime is None],
    }


CONV, DENSE, CUSTOM = ("CONV_2D", 3, "1.14.0"), ("FULLY_CONNECTED", 12, "2.17.0"), ("FlexErf", 1, None)


def judged(gate: dict[str, Any], description: dict[str, Any] | None) -> dict[str, Any]:
    (row,) = artifact_gates.judge(gate, description)
    return row


def test_an_op_that_is_not_allowed_fails_and_is_named_with_its_count() -> None:
    row = judged({"allow_ops": ["CONV_2D"]}, described(CONV, DENSE))
    assert (row["verdict"], row["value"]) == ("fail", ["FULLY_CONNECTED"])
    assert row["message"] == "allow_ops: 1 × FULLY_CONNECTED, which the gate does not allow"


def test_an_allowed_op_that_is_not_there_is_no_matter() -> None:
    assert judged({"allow_ops": ["CONV_2D", "ADD"]}, described(CONV))["verdict"] == "pass"


@pytest.mark.parametrize(
    ("limit", "ops", "verdict"),
    [
        ("2.17", (CONV, DENSE), "pass"),
        ("2.17.0", (DENSE,), "pass"),
        ("2.14", (CONV, DENSE), "fail"),
        ("2.9", (("ADD", 1, "2.10.0"),), "fail"),
        ("2.14", (CONV, CUSTOM), "undecided"),
        ("2.14", (CUSTOM, DENSE), "fail"),
    ],
)
def test_the_runtime_needed_is_judged_by_number(limit: str, ops: Any, verdict: str) -> None:
    assert judged({"min_runtime": limit}, described(*ops))["verdict"] == verdict


def test_a_runtime_too_new_names_the_ops_that_need_it() -> None:
    row = judged({"min_runtime": "2.14"}, described(CONV, DENSE))
    assert row["message"] == "min_runtime: needs TFLite 2.17.0, newer than 2.14: FULLY_CONNECTED 12 (2.17.0)"
    assert row["value"] == "2.17.0"


def test_an_unknown_op_is_named_and_never_guessed() -> None:
    row = judged({"min_runtime": "2.14"}, described(CONV, CUSTOM))
    assert row["message"] == "min_runtime: which TFLite has it is not known: FlexErf 1"
    assert row["value"] is None


def test_without_an_artifact_nothing_is_measured() -> None:
    rows = artifact_gates.judge({"allow_ops": ["ADD"], "min_runtime": "2.14"}, None)
    assert [row["verdict"] for row in rows] == ["not_measured"] * 2


def test_a_gate_that_is_not_set_has_no_row() -> None:
    assert artifact_gates.judge({"fully_integer": True, "allow_ops": None}, described(CONV)) == []
