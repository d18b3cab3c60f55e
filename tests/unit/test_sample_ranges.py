"""Ranges from the samples' own extremes: known answers, and what holds for any of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from quantbuild.tflite import sample_ranges
from quantbuild.tflite.range_options import MinMax, MovingAverage, Quantile, SampleMean

LEAST = np.array([[-1, 0], [-2, 0], [-9, 1]], np.float32)
MOST = np.array([[1, 4], [3, 2], [2, 9]], np.float32)

METHODS = [MinMax(), SampleMean(), Quantile(quantile=0.5), Quantile(quantile=0.9), MovingAverage(momentum=0.95)]
UNORDERED = METHODS[:4]


@st.composite
def extremes(draw):
    shape = draw(array_shapes(min_dims=2, max_dims=2, max_side=6))
    values = st.floats(-1e6, 1e6, width=32)
    first, second = draw(arrays(np.float32, shape, elements=values)), draw(arrays(np.float32, shape, elements=values))
    return np.minimum(first, second), np.maximum(first, second)


@pytest.mark.parametrize(
    ("method", "low", "high"),
    [
        (MinMax(), [-9, 0], [3, 9]),
        (SampleMean(), [-4, 1 / 3], [2, 5]),
        (Quantile(quantile=0.5), [-2, 0], [2, 4]),
        (Quantile(quantile=0.75), [-5.5, 0], [2.5, 6.5]),
        (Quantile(quantile=1), [-9, 0], [3, 9]),
        (MovingAverage(momentum=0.5), [-5.25, 0.5], [2, 6]),
        (MovingAverage(momentum=0), [-9, 1], [2, 9]),
    ],
)
def test_known_answers(method, low, high):
    found = sample_ranges.bounds(method, LEAST, MOST)
    np.testing.assert_allclose(found, [low, high])
    assert found[0].dtype == found[1].dtype == np.float64


@given(extremes(), st.sampled_from(METHODS))
def test_every_range_lies_within_the_extremes(pair, method):
    low, high = sample_ranges.bounds(method, *pair)
    slack = 1e-12 * float(np.abs(pair).max())
    assert (low >= pair[0].min(axis=0).astype(np.float64) - slack).all()
    assert (high <= pair[1].max(axis=0).astype(np.float64) + slack).all()
    assert (low <= high + slack).all()


@given(extremes(), st.floats(0.5, 1), st.floats(0.5, 1))
def test_a_higher_quantile_gives_no_narrower_range(pair, one, other):
    narrow, wide = (sample_ranges.quantile(*pair, q) for q in sorted((one, other)))
    slack = 1e-12 * float(np.abs(pair).max())
    assert (wide[0] <= narrow[0] + slack).all()
    assert (wide[1] >= narrow[1] - slack).all()


@given(extremes(), st.sampled_from(UNORDERED), st.randoms())
def test_the_order_of_the_samples_does_not_matter(pair, method, random):
    order = random.sample(range(len(pair[0])), len(pair[0]))
    shuffled = sample_ranges.bounds(method, pair[0][order], pair[1][order])
    np.testing.assert_allclose(shuffled, sample_ranges.bounds(method, *pair), rtol=1e-12, atol=1e-9)


def test_the_order_of_the_samples_matters_to_the_moving_average_alone():
    forward = sample_ranges.moving_average(LEAST, MOST, 0.95)
    backward = sample_ranges.moving_average(LEAST[::-1], MOST[::-1], 0.95)
    assert not np.allclose(forward, backward)


def test_one_sample_is_its_own_range_by_any_method():
    for method in METHODS:
        np.testing.assert_array_equal(sample_ranges.bounds(method, LEAST[:1], MOST[:1]), [LEAST[0], MOST[0]])
