"""The lint of a model's statistics: unstable ranges, coarse steps and two kinds of samples, each with its samples."""

from __future__ import annotations

import numpy as np
import pytest
from lint_data import colour_pictures, facts_of, summary

from quantbuild.lint import model_rules
from quantbuild.lint.model_rules import Extremes


def extremes(high: np.ndarray, low: np.ndarray | None = None) -> Extremes:
    """Tensors by column, samples by row; sample n has the number 100 + n."""
    samples, tensors = high.shape
    bottom = np.zeros_like(high) if low is None else low
    return Extremes(
        dataset="calibration",
        names=tuple(f"t{column}" for column in range(tensors)),
        numbers=[100 + row for row in range(samples)],
        low=bottom.astype(np.float32),
        high=high.astype(np.float32),
    )


def steady(samples: int, tensors: int = 10) -> np.ndarray:
    return np.random.default_rng(0).lognormal(0.0, 0.3, (samples, tensors))


def test_steady_tensors_have_no_finding() -> None:
    for samples in (20, 50, 400):
        found = extremes(steady(samples))
        assert model_rules.unstable(found) + model_rules.bimodal(found) == []
        assert model_rules.coarse_step(found, np.full(10, 0.3)) == []


def test_halves_that_differ_name_the_worst_tensor() -> None:
    high = steady(40)
    high[0, :4] *= [10, 10, 10, 30]
    (finding,) = model_rules.unstable(extremes(high))
    assert (finding.rule, finding.severity, finding.figures["tensors"]) == ("unstable", "warning", 4)
    assert "the ranges of 4 of 10 tensors differ more than twofold" in finding.message
    assert '"t3" by' in finding.message


def test_one_wild_tensor_of_many_does_not_make_a_set_unstable() -> None:
    high = steady(40)
    high[0, 0] *= 10
    assert model_rules.unstable(extremes(high)) == []


def test_halves_of_few_samples_tell_nothing() -> None:
    high = steady(18)
    high[0] *= 50
    assert model_rules.unstable(extremes(high)) == []


def test_a_coarse_step_names_tensor_and_samples() -> None:
    """Sample 107 drives t2 to 100: a step of 100 / 255, beside a root mean square of 1."""
    high = steady(40)
    high[7, 2] = 100
    (finding,) = model_rules.coarse_step(extremes(high), np.ones(10))
    assert (finding.rule, finding.severity, finding.subject) == ("coarse_step", "warning", "t2")
    assert '"t2" (step 0.392, rms 1; samples 107,' in finding.message
    (tensor,) = finding.figures["tensors"]
    assert tensor["samples"][0] == 107
    assert tensor["step"] == pytest.approx(100 / 255)


def test_a_range_that_leaves_out_zero_is_widened_to_it_as_int8_is() -> None:
    high, low = np.full((20, 1), 10.0), np.full((20, 1), 9.9)
    assert model_rules.coarse_step(extremes(high, low), np.array([99.0])) == []
    (finding,) = model_rules.coarse_step(extremes(high, low), np.array([0.01]))
    assert finding.figures["tensors"][0]["step"] == pytest.approx(10 / 255)


def test_a_tensor_that_is_always_zero_has_no_coarse_step() -> None:
    assert model_rules.coarse_step(extremes(np.zeros((20, 1))), np.zeros(1)) == []


def test_two_kinds_of_samples_are_told_by_tensor_and_sample() -> None:
    """A fifth of the samples fire ten times as hard, as in MobileNetV2's last stage."""
    high = steady(50)
    hard = np.arange(3, 50, 5)
    high[hard, 4] *= 12
    (finding,) = model_rules.bimodal(extremes(high))
    assert (finding.rule, finding.subject) == ("bimodal", "t4")
    (tensor,) = finding.figures["tensors"]
    assert tensor["samples"] == [100 + int(sample) for sample in hard]
    assert tensor["ratio"] == pytest.approx(12, rel=0.3)
    assert 'samples 103, 108, 113, 118, 123 and 5 more (20%) drive "t4"' in finding.message


@pytest.mark.parametrize("spread", [0.1, 0.5, 1.0, 1.5])
def test_a_wide_spread_is_not_two_kinds(spread: float) -> None:
    high = np.random.default_rng(1).lognormal(0, spread, (200, 40))
    assert model_rules.bimodal(extremes(high)) == []


def test_one_outlier_is_not_a_kind() -> None:
    high = steady(50)
    high[3, 4] *= 100
    assert model_rules.bimodal(extremes(high)) == []


def test_values_scaled_before_a_model_that_scales_itself_are_an_error() -> None:
    (scaled,) = facts_of(colour_pictures(20)).inputs
    (finding,) = model_rules.first_layers("c", scaled, (1 / 255, 0.0))
    assert (finding.rule, finding.severity) == ("first_layers", "error")
    assert "goes from 0 to 1, and the model itself multiplies it by 0.003922" in finding.message
    (pixels,) = facts_of(colour_pictures(20) * 255).inputs
    for scaling in ((1 / 255, 0.0), (1 / 127.5, -1.0), None):
        assert model_rules.first_layers("c", pixels, scaling) == []
    assert model_rules.first_layers("c", scaled, (2.0, -1.0)) == []


def test_findings_come_with_the_worst_first() -> None:
    from quantbuild.lint.findings import Finding, kept

    found = [
        Finding(rule="noise", severity=severity, subject="x", message="") for severity in ("info", "error", "warning")
    ]
    assert [pair[1] for pair in summary(kept(found, []))] == ["error", "warning", "info"]
    assert kept(found, ["noise"]) == []


def test_a_channel_far_louder_than_most_is_noted_with_its_tensor() -> None:
    even = np.random.default_rng(1).lognormal(0.0, 0.5, 64).astype(np.float32)
    loud, louder = even.copy(), even.copy()
    loud[3], louder[5] = 40, 90
    assert model_rules.uneven_channels("calibration", [("even", even)]) == []
    (finding,) = model_rules.uneven_channels("calibration", [("even", even), ("loud", loud), ("louder", louder)])
    assert (finding.rule, finding.severity, finding.subject) == ("uneven_channels", "info", "louder")
    assert finding.figures["count"] == 2
    assert 'in 2 tensors: in "louder" ' in finding.message
    assert "of 64" in finding.message


def test_dead_channels_and_few_ones_say_nothing_of_the_others() -> None:
    dead = np.zeros(64, np.float32)
    dead[:8] = 5
    assert model_rules.uneven_channels("calibration", [("dead", dead), ("pair", np.array([1, 99], np.float32))]) == []
