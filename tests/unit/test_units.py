"""The one formatter: units, signs, digits, and words for what is missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantbuild import units


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (271_504, "271.5 kB"),
        (999_949, "999.9 kB"),
        (999_951, "1.00 MB"),
        (4_030_000, "4.03 MB"),
        (1_234_000_000, "1.23 GB"),
        (None, "not measured"),
    ],
)
def test_sizes_are_decimal_and_switch_unit_before_they_round_up_to_a_thousand(
    size_bytes: int | None, text: str
) -> None:
    assert units.size(size_bytes) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123 ms"), (9.996, "10.0 ms"), (12.345, "12.3 ms"), (1234.5, "1,234 ms"), (0.0, "0 ms")],
)
def test_latencies_have_three_significant_digits_and_no_exponent(value: float, text: str) -> None:
    assert units.milliseconds(value) == text


def test_a_loss_has_a_sign_and_a_real_minus() -> None:
    assert units.points(0.0033) == "+0.33 points"
    assert units.points(-0.0033) == "−0.33 points"
    assert units.points_interval(-0.0047, 0.0112) == "−0.47 to +1.12 points"


@pytest.mark.parametrize("value", [0.0, -0.0, 0.00001, -0.00001])
def test_a_difference_that_rounds_to_zero_has_no_sign(value: float) -> None:
    assert units.points(value) == "0.00 points"


def test_a_metric_decides_its_unit() -> None:
    assert units.metric_value("top1", 0.98667) == "98.67 %"
    assert units.metric_value("sqnr", 42.149) == "42.1 dB"
    assert units.metric_value("mae", 0.0123456) == "0.01235"
    assert units.metric_difference("mae", -0.0123456) == "−0.0123"
    assert units.metric_difference("top5", 0.01) == "+1.00 points"
    assert units.metric_difference("sqnr", -1.24) == "−1.2 dB"
    assert units.metric_interval("mse", -0.001, 0.002) == "−0.00100 to +0.00200"


def test_ratios_counts_and_times_carry_their_unit() -> None:
    assert units.ratio(0.32904) == "0.329×"
    assert units.ratio(12.0) == "12.0×"
    assert units.count(1_234_567) == "1,234,567"
    assert units.counted(1, "variant") == "1 variant"
    assert units.counted(0, "variant") == "0 variants"
    assert units.counted(2, "entry", "entries") == "2 entries"
    assert units.seconds(0.42) == "0.4 s"
    assert units.seconds(83.4) == "83 s"


@pytest.mark.parametrize(
    "text",
    [
        units.size(None),
        units.milliseconds(None),
        units.seconds(None),
        units.percent(None),
        units.points(None),
        units.points_interval(None, 0.1),
        units.decibels(None),
        units.ratio(None),
        units.count(None),
        units.metric_value("mae", None),
        units.metric_difference("mae", None),
        units.metric_interval("mae", 0.1, None),
    ],
)
def test_what_was_not_measured_says_so(text: str) -> None:
    assert text == units.NOT_MEASURED


@given(st.floats(min_value=1e-6, max_value=1e9), st.integers(min_value=1, max_value=6))
def test_rounding_to_significant_digits_stays_within_half_a_step(value: float, digits: int) -> None:
    text = units.significant(value, digits)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.5000001 * 10.0 ** (1 - digits))


def test_a_size_beyond_every_float_is_one_all_the_same() -> None:
    assert units.parse_size("9" * 400 + "kB") == int("9" * 400) * 1000
    assert units.parse_size("0.3TB") == 300_000_000_000
