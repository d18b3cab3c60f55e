"""Taking noise apart is arithmetic: shares, wholes and decibels of made-up powers, and Model Explorer's format."""

from __future__ import annotations

import json
import math

import pytest

from quantbuild import node_data
from quantbuild.noise import contributions, decibels, rms
from quantbuild.report.sensitivity import SHOWN, view


def test_decibels_are_ten_for_a_tenth_of_the_power_and_none_where_there_is_nothing_to_compare() -> None:
    assert decibels(10.0, 1.0) == pytest.approx(10.0)
    assert decibels(1.0, 100.0) == pytest.approx(-20.0)
    assert decibels(1.0, 0.0) is None
    assert decibels(0.0, 1.0) is None


def test_the_root_mean_square_of_no_elements_is_zero() -> None:
    assert rms(32.0, 2) == pytest.approx(4.0)
    assert rms(0.0, 0) == 0


def test_shares_of_one_output_add_up_to_one_and_noises_to_the_whole() -> None:
    noise, shares, whole = contributions([{"y": 3.0}, {"y": 1.0}, {"y": 0.0}], {"y": 8.0})
    assert noise == pytest.approx([3 / 8, 1 / 8, 0])
    assert shares == pytest.approx([3 / 4, 1 / 4, 0])
    assert whole == pytest.approx(sum(noise))


def test_an_op_counts_at_the_output_that_it_harms_most() -> None:
    noise, shares, whole = contributions([{"a": 1.0, "b": 0.0}, {"a": 1.0, "b": 2.0}], {"a": 100.0, "b": 4.0})
    assert noise == pytest.approx([0.01, 0.5])
    assert shares == pytest.approx([0.5, 1.0])
    assert whole == pytest.approx(0.5)


def test_an_output_that_is_always_zero_tells_nothing() -> None:
    assert contributions([{"dead": 5.0, "y": 1.0}], {"dead": 0.0, "y": 2.0}) == ([0.5], [1.0], 0.5)
    assert contributions([{"dead": 5.0}], {"dead": 0.0}) == ([0.0], [0.0], 0.0)
    assert contributions([{"y": 0.0}], {"y": 1.0}) == ([0.0], [0.0], 0.0)


# ---- for Model Explorer


def test_node_data_is_by_graph_and_node_with_a_value_each_and_colours_from_end_to_end() -> None:
    written = json.loads(node_data.encode("main", {"conv": 12.5, "3": 40.0}, higher_is_better=True))
    assert written["main"]["results"] == {"conv": {"value": 12.5}, "3": {"value": 40.0}}
    gradient = written["main"]["gradient"]
    assert (gradient[0]["stop"], gradient[0]["bgColor"]) == (0, node_data.BAD)
    assert (gradient[-1]["stop"], gradient[-1]["bgColor"]) == (1, node_data.GOOD)
    other = json.loads(node_data.encode("main", {}, higher_is_better=False))
    assert other["main"]["gradient"][0]["bgColor"] == node_data.GOOD


def test_a_name_that_two_tensors_share_names_no_node() -> None:
    rows = [{"tensor": name, "sqnr_db": value} for name, value in (("a", 1.0), ("a", 2.0), ("b", 3.0), ("c", None))]
    assert node_data.sqnr_by_tensor(rows) == {"b": 3.0}


def test_an_op_goes_by_its_place_and_one_in_float_has_no_value() -> None:
    rows = [{"index": 4, "share": 0.25}, {"index": 5, "share": None}, {"index": None, "share": 0.75}]
    assert node_data.noise_by_op(rows) == {"4": 25.0}


# ---- on the page


def op(name: str, noise: float | None, share: float | None = None) -> dict[str, object]:
    own = None if noise is None else 40.0
    figures = {"own_rms": own, "own_sqnr_db": own, "noise": noise, "share": share if share is not None else noise}
    return {"op": "CONV_2D", "name": f"net/{name};more", "layer": "", "index": 1, "dtype": "int8", **figures}


def found(ops: list[dict[str, object]], **changes: object) -> dict[str, object]:
    tensor = {"name": "t", "tensor": "t", "dtype": "int8", "step": 0.5, "rms": 2.0, "error_rms": 0.1, "sqnr_db": 26.0}
    whole = {
        "samples": 16, "noise": 0.02, "noise_sum": 0.02, "outputs": [{"name": "y", "before": None, "sqnr_db": 17.0}],
        "tensors": [tensor, {**tensor, "error_rms": 0.0, "sqnr_db": None}], "ops": ops, "unmatched_tensors": [],
        "unmatched_ops": [], "node_data": {"sqnr_db": "build/a", "noise": "build/b"},
    }  # fmt: skip
    return {**whole, **changes}


def test_what_was_not_asked_for_is_not_shown() -> None:
    assert view(None) is None


def test_the_page_names_the_worst_op_and_leaves_out_what_causes_nothing() -> None:
    shown = view(found([op("loud", 0.015), op("quiet", 0.005), op("moved", 0.0), op("float", None)]))
    assert shown is not None
    assert "CONV_2D net/loud (fused with 1 more) alone causes 1.50 %" in shown.summary
    assert [row.name.split()[0] for row in shown.ops] == ["net/loud", "net/quiet"]
    assert len(shown.tensors) == 1
    assert shown.notes == ("1 operation computes in float and adds none.",)


def test_no_noise_at_all_is_said_in_words() -> None:
    shown = view(found([op("float", None)], noise=0.0, noise_sum=0.0))
    assert shown is not None
    assert "no operation causes any noise" in shown.summary
    assert not shown.ops


def test_the_page_shows_the_worst_and_says_of_how_many() -> None:
    shown = view(found([op(f"o{number}", 0.001) for number in range(SHOWN + 5)]))
    assert shown is not None
    assert len(shown.ops) == SHOWN
    assert shown.ops_caption.startswith(f"The {SHOWN} worst of {SHOWN + 5} ")


@pytest.mark.parametrize(("total", "words"), [(0.2, "against each other"), (0.002, "together"), (0.021, None)])
def test_errors_that_work_together_or_against_each_other_are_told(total: float, words: str | None) -> None:
    shown = view(found([op("loud", total)], noise_sum=total))
    assert shown is not None
    assert any(words in note for note in shown.notes) if words else not shown.notes


def test_what_is_not_matched_is_named() -> None:
    changes = {"unmatched_tensors": ["lost;x"], "unmatched_ops": [{"op": "PACK", "name": f"p{n}"} for n in range(7)]}
    shown = view(found([op("loud", 0.02)], **changes))
    assert shown is not None
    assert any("PACK p0" in note and "and 2 more" in note for note in shown.notes)
    assert any("lost (fused with 1 more)" in note for note in shown.notes)


def test_a_place_before_a_softmax_is_told() -> None:
    shown = view(found([op("loud", 0.02)], outputs=[{"name": "y", "before": "SOFTMAX", "sqnr_db": 17.0}]))
    assert shown is not None
    assert "y before its SOFTMAX" in shown.notes[0]


def test_tiny_noise_is_no_row_of_zeros() -> None:
    shown = view(found([op("loud", 1e-9)], noise=1e-9, noise_sum=1e-9))
    assert shown is not None
    assert shown.ops[0].noise == "below 0.0001 %"
    assert math.isclose(float(shown.ops[0].bar), 0.0)
