"""Equalization and bias correction as plain arithmetic on arrays: no model, no TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest

from quantbuild.tflite import bias_correction, equalization, layers, taps
from quantbuild.tflite.layers import Layer

RNG = np.random.default_rng(5)


def layer(op: str) -> Layer:
    return Layer(operator=0, op=op, name="y", input=0, output=1, activation="NONE")


def test_a_balanced_channel_reaches_as_far_as_its_weights() -> None:
    reached, read = RNG.lognormal(0, 2, 30), RNG.lognormal(0, 2, 30)
    scale = equalization.balanced(reached, read)
    ratio = (reached * scale) / (read / scale)
    assert ratio == pytest.approx(np.full(30, ratio[0]))
    assert np.exp(np.log(scale).mean()) == pytest.approx(1)


def test_harm_done_to_channels_is_undone_to_the_same_point() -> None:
    reached, read, harm = (RNG.lognormal(0, 1.5, 30) for _ in range(3))
    plain = equalization.balanced(reached, read)
    mended = equalization.balanced(reached * harm, read / harm) * harm
    assert mended / plain == pytest.approx(np.full(30, mended[0] / plain[0]))


def test_a_channel_that_no_sample_reached_keeps_its_scale() -> None:
    assert equalization.balanced(np.array([0.0, 1.0, 4.0]), np.ones(3))[0] == 1
    assert (equalization.balanced(np.zeros(3), np.ones(3)) == 1).all()


def test_a_channel_that_no_weight_reads_is_made_small_and_stays_finite() -> None:
    scale = equalization.balanced(np.ones(3), np.array([0.0, 1.0, 1.0]))
    assert scale[0] < 0.01 * scale[1]
    assert np.isfinite(scale).all()
    assert (scale > 0).all()
    assert (equalization.balanced(np.ones(3), np.zeros(3)) == 1).all()


@pytest.mark.parametrize("size", [1e-38, 1e30])
def test_scales_stay_finite_for_any_float(size: float) -> None:
    scale = equalization.balanced(np.array([size, 1.0]), np.array([1.0, size]))
    assert np.isfinite(scale.astype(np.float32)).all()
    assert (scale.astype(np.float32) > 0).all()


@pytest.mark.parametrize(
    ("op", "shape", "channels"),
    [
        ("CONV_2D", (6, 3, 3, 4), 4),
        ("CONV_2D", (6, 3, 3, 2), 4),  # two groups
        ("TRANSPOSE_CONV", (6, 3, 3, 4), 4),
        ("DEPTHWISE_CONV_2D", (1, 3, 3, 8), 4),  # two results a channel
        ("FULLY_CONNECTED", (5, 12), 4),  # flattened: the channels recur
    ],
)
def test_input_channels_meet_the_weights_that_read_them(op: str, shape: tuple[int, ...], channels: int) -> None:
    values = np.arange(1.0, channels + 1)
    spread = np.broadcast_to(layers.over_inputs(layer(op), values, shape), shape)
    assert set(np.unique(spread)) == set(values)
    assert layers.by_input(layer(op), spread, channels).tolist() == values.tolist()
    if op == "DEPTHWISE_CONV_2D":
        assert spread[0, 0, 0].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    if shape == (6, 3, 3, 2):
        assert spread[0, 0, 0].tolist() == [1, 2]
        assert spread[3, 0, 0].tolist() == [3, 4]


def test_rounded_weights_lie_on_255_steps_of_their_channel() -> None:
    weights = RNG.standard_normal((7, 3, 3, 5)).astype(np.float32)
    rounded = bias_correction.rounded(weights, 0)
    steps = np.abs(weights).max(axis=(1, 2, 3)) / 127
    whole = rounded / steps[:, None, None, None]
    assert whole == pytest.approx(np.rint(whole), abs=1e-4)
    assert np.abs(whole).max() == pytest.approx(127)
    assert (np.abs(rounded - weights) <= 0.5001 * steps[:, None, None, None]).all()
    by_tensor = bias_correction.rounded(weights, None) / (np.abs(weights).max() / 127)
    assert by_tensor == pytest.approx(np.rint(by_tensor), abs=1e-4)


def test_halves_round_away_from_zero_and_zeros_stay() -> None:
    weights = np.array([[127, 0.5, -0.5, 1.5, 2.5, -2.5], [0] * 6, [1e-7, 0, 0, 0, 0, 0]], np.float32)
    rounded = bias_correction.rounded(weights, 0)
    assert rounded[0].tolist() == [127, 1, -1, 2, 3, -3]
    assert (rounded[1] == 0).all()
    assert rounded[2, 0] == pytest.approx(25 * 5e-7 / 127), "a range under ±5e-7 is widened to that"


@pytest.mark.parametrize("axis", [0, 3])
@pytest.mark.parametrize("per_channel", [True, False])
def test_the_shift_is_the_error_of_the_weights_times_the_means(
    monkeypatch: pytest.MonkeyPatch, axis: int, per_channel: bool
) -> None:
    weights = RNG.standard_normal((6, 3, 2, 8)).astype(np.float32)
    means = RNG.standard_normal(weights.shape)
    shift = bias_correction._lost(weights, means, axis, per_channel)
    errors = (weights - bias_correction.rounded(weights, axis if per_channel else None)) * means
    assert shift == pytest.approx(np.moveaxis(errors, axis, 0).reshape(weights.shape[axis], -1).sum(axis=1))
    monkeypatch.setattr(bias_correction, "_CHUNK_ELEMENTS", 50)
    assert np.array_equal(bias_correction._lost(weights, means, axis, per_channel), shift), "in parts: the same bits"


@pytest.mark.parametrize("size", [4, 7, 12])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 1), (1, 2)])
def test_a_tap_is_inside_as_often_as_counting_says(size: int, kernel: int, stride: int, dilation: int) -> None:
    made = -(-size // stride)
    before = taps._padding(size, made, kernel, stride, dilation)
    inside = np.zeros(kernel)
    for result in range(made):
        for tap in range(kernel):
            inside[tap] += 0 <= result * stride + tap * dilation - before < size
    first = np.arange(kernel) * dilation - before
    assert taps._inside(size, made, first, stride).tolist() == (inside / made).tolist()


def test_a_transposed_tap_carries_as_many_inputs_as_counting_says() -> None:
    for size, kernel, stride, same in [(4, 3, 2, True), (5, 2, 2, True), (4, 3, 2, False), (3, 5, 1, True)]:
        made = size * stride if same else (size - 1) * stride + kernel
        before = taps._padding(made, size, kernel, stride, 1) if same else 0
        carried = np.zeros(kernel)
        for element in range(size):
            for tap in range(kernel):
                carried[tap] += 0 <= element * stride + tap - before < made
        assert taps._transposed(size, made, kernel, stride, same).tolist() == (carried / made).tolist()
