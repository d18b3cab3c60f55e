"""Ranges from histograms: known answers, brute force on small ones, and what holds for any of them."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quantbuild.tflite import entropy_ranges, histogram_ranges
from quantbuild.tflite.histograms_file import BINS, Histogram, binning


def histogram(counts, negative: int = 0, width: float = 1.0) -> Histogram:
    counts = np.asarray(counts, np.int64)
    return Histogram(
        low=-negative * width, high=(counts.size - negative) * width, width=width, negative=negative, counts=counts
    )


def of_values(values: np.ndarray, bins: int = BINS) -> Histogram:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    width, negative = binning(low, high, bins)
    places = np.clip((values / width + negative).astype(np.int64), 0, bins - 1)
    counts = np.bincount(places.ravel(), minlength=bins)
    return Histogram(low=low, high=high, width=width, negative=negative, counts=counts)


@st.composite
def histograms(draw, least: int = 4, most: int = 24):
    bins = draw(st.integers(least, most))
    counts = draw(arrays(np.int64, bins, elements=st.integers(0, 50)).filter(np.any))
    return histogram(counts, draw(st.integers(0, bins)), draw(st.sampled_from([0.25, 1.0, 3.0])))


def by_any_method(found: Histogram) -> list[tuple[float, float]]:
    return [
        histogram_ranges.percentile(found, 99.0),
        histogram_ranges.percentile(found, 60.0),
        histogram_ranges.least_squared_error(found, 4),
        entropy_ranges.least_divergence(found, 4),
    ]


# The bins themselves.


FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)


@given(FLOATS, FLOATS, st.sampled_from([8, BINS]))
def test_bins_cover_the_range_and_zero_is_an_edge(first, second, bins):
    low, high = min(first, second, 0.0), max(first, second, 0.0)
    width, negative = binning(min(first, second), max(first, second), bins)
    assert 0 <= negative <= bins
    assert width > 0
    assert np.isfinite(np.float32(1 / width))
    slack = 1e-9 * (high - low)
    assert -negative * width <= low + slack
    assert (bins - negative) * width >= high - slack
    assert bins * width <= (high - low) * bins / (bins - 1) + bins * np.finfo(np.float32).tiny + slack


def test_a_histogram_without_negative_values_wastes_no_bin():
    assert binning(0.0, 2048.0) == (1.0, 0)
    assert binning(3.0, 2048.0) == (1.0, 0)
    assert binning(-2048.0, -1.0) == (1.0, 2048)


@given(histograms(), st.sampled_from([2, 4]))
def test_a_coarser_histogram_has_the_same_values_and_zero_as_an_edge(found, factor):
    coarse = found.coarser(factor)
    assert coarse.counts.sum() == found.counts.sum()
    assert coarse.counts[: coarse.negative].sum() == found.counts[: found.negative].sum()
    assert coarse.width == found.width * factor
    assert coarse.counts.size <= found.counts.size / factor + 2


# What holds for every method.


@given(histograms())
def test_every_range_lies_within_the_extremes_and_holds_zero(found):
    for low, high in by_any_method(found):
        assert found.low <= low <= 0 <= high <= found.high


@given(histograms())
def test_a_histogram_coarser_than_the_levels_keeps_the_whole_range(found):
    whole = (found.low, found.high)
    assert histogram_ranges.least_squared_error(found, 2**16) == whole
    assert entropy_ranges.least_divergence(found, 2**16) == whole


# Percentile.


@pytest.mark.parametrize(
    ("counts", "negative", "percent", "expected"),
    [
        ([90, 9, 1], 0, 99.0, (0.0, 2.0)),
        ([90, 9, 1], 0, 99.1, (0.0, 3.0)),
        ([90, 9, 1], 0, 90.0, (0.0, 1.0)),
        ([1, 9, 80, 9, 1], 2, 99.0, (-1.0, 2.0)),
        ([1, 9, 80, 9, 1], 2, 100.0, (-2.0, 3.0)),
        ([1, 99], 1, 60.0, (0.0, 1.0)),
        ([99, 1], 1, 60.0, (-1.0, 0.0)),
        ([0, 0, 5, 0], 0, 99.0, (0.0, 3.0)),
    ],
)
def test_percentile_known_answers(counts, negative, percent, expected):
    assert histogram_ranges.percentile(histogram(counts, negative), percent) == expected


@given(histograms(), st.floats(50.1, 100), st.floats(50.1, 100))
def test_a_higher_percentile_gives_no_narrower_range(found, one, other):
    narrow, wide = (histogram_ranges.percentile(found, percent) for percent in sorted((one, other)))
    assert wide[0] <= narrow[0]
    assert wide[1] >= narrow[1]


@given(histograms(), st.floats(50.1, 100))
def test_a_percentile_clips_no_more_values_than_it_says(found, percent):
    low, high = histogram_ranges.percentile(found, percent)
    edges = (np.arange(found.counts.size + 1) - found.negative) * found.width
    allowed = (1 - percent / 100) * found.counts.sum() + 1e-5
    assert found.counts[edges[:-1] >= high].sum() <= allowed
    assert found.counts[edges[1:] <= low].sum() <= allowed


def test_a_percentile_agrees_with_numpy_to_a_bin():
    values = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    found = of_values(values)
    low, high = histogram_ranges.percentile(found, 99.9)
    np.testing.assert_allclose([low, high], np.percentile(values, [0.1, 99.9]), atol=1.01 * found.width)


# Squared error.


def squared_error(found: Histogram, levels: int, below: int, above: int) -> float:
    """Quantize the middle of each bin, one by one."""
    scale = (below + above) * found.width / (levels - 1)
    zero_point = math.floor(Fraction(below * (levels - 1), below + above) + Fraction(1, 2))
    total = 0.0
    for place, count in enumerate(found.counts):
        middle = (place + 0.5 - found.negative) * found.width
        level = min(max(math.floor(middle / scale + zero_point + 0.5), 0), levels - 1)
        total += int(count) * (middle - (level - zero_point) * scale) ** 2
    return total


@settings(max_examples=60, deadline=None)
@given(histograms(), st.sampled_from([2, 4, 8]))
def test_the_least_squared_error_is_that_of_all_pairs_of_edges(found, levels):
    below, above = found.negative, found.counts.size - found.negative
    pairs = [(a, b) for a in range(below + 1) for b in range(above + 1) if a + b]
    errors = {pair: squared_error(found, levels, *pair) for pair in pairs}
    computed = histogram_ranges.squared_errors(found, levels, np.array(pairs)) * found.width**2
    np.testing.assert_allclose(computed, list(errors.values()), rtol=1e-9, atol=1e-9)
    low, high = histogram_ranges.least_squared_error(found, levels)
    if levels <= found.counts.size:
        chosen = errors[round(-low / found.width), round(high / found.width)]
        assert chosen <= min(errors.values()) * (1 + 1e-9) + 1e-9


def test_in_a_large_histogram_no_range_tried_has_less_squared_error():
    values = np.random.default_rng(1).laplace(size=100_000).astype(np.float32)
    found = of_values(values)
    low, high = histogram_ranges.least_squared_error(found, 256)
    best = (round(-low / found.width), round(high / found.width))
    least = squared_error(found, 256, *best)
    generator = np.random.default_rng(2)
    below, above = found.negative, found.counts.size - found.negative
    near = [(best[0] + int(i), best[1] + int(j)) for i, j in generator.integers(-15, 16, (20, 2))]
    far = [(int(below * i), int(above * j)) for i, j in generator.uniform(0.1, 1, (20, 2))]
    for pair in [*near, *far, (below, above)]:
        assert least <= squared_error(found, 256, min(pair[0], below), min(pair[1], above)) * (1 + 1e-9)
    assert least < 0.9 * squared_error(found, 256, below, above)


def test_squared_errors_are_those_of_the_values_themselves():
    values = np.abs(np.random.default_rng(3).standard_normal(50_000)).astype(np.float32)
    found = of_values(values)
    ends = np.array([[0, 2048], [0, 1500], [0, 900]])
    computed = histogram_ranges.squared_errors(found, 256, ends) * found.width**2
    for (_, above), error in zip(ends, computed, strict=True):
        scale = above * found.width / 255
        exact = np.square(np.clip(np.rint(values / scale), 0, 255) * scale - values, dtype=np.float64).sum()
        assert error == pytest.approx(exact, rel=0.02)


# Divergence.


def divergence(counts: list[int], start: int, end: int, levels: int) -> float:
    """Migacz's pseudocode for the bins from `start` to before `end`."""
    inside = counts[start:end]
    reference = list(map(float, inside))
    reference[0] += sum(counts[:start])
    reference[-1] += sum(counts[end:])
    candidate = []
    for level in range(levels):
        run = inside[level * len(inside) // levels : (level + 1) * len(inside) // levels]
        filled = sum(count > 0 for count in run)
        candidate += [sum(run) / filled if count else 0.0 for count in run]
    if not sum(candidate):
        return math.inf
    whole, part = sum(reference), sum(candidate)
    pairs = zip(reference, candidate, strict=True)
    return sum(p / whole * math.log((p / whole) / ((q or 1e-4) / part)) for p, q in pairs if p)


def brute_force(found: Histogram, levels: int) -> dict[tuple[float, float], float]:
    counts, size = [int(count) for count in found.counts], found.counts.size
    zero = min(found.negative, size - 1)
    counts[zero] = counts[zero + 1] if zero + 1 < size else counts[zero - 1]
    results = {}
    for reach in range(1, size + 1):
        start, end = max(found.negative - reach, 0), min(found.negative + reach, size)
        if end - start >= levels:
            bounds = ((start - found.negative) * found.width, (end - found.negative) * found.width)
            results[bounds] = divergence(counts, start, end, levels)
    return results


@settings(max_examples=150, deadline=None)
@given(histograms(), st.sampled_from([2, 3, 4]))
def test_the_divergence_is_the_least_that_the_pseudocode_finds(found, levels):
    expected = brute_force(found, levels)
    chosen = entropy_ranges.least_divergence(found, levels)
    assert expected[chosen] <= min(expected.values()) + 1e-9 or not np.isfinite(min(expected.values()))


@given(histograms(least=8), st.sampled_from([2, 3, 4]))
def test_divergences_are_those_of_the_pseudocode(found, levels):
    size = found.counts.size
    start, end = (np.array(ends) for ends in zip(*[(0, size), (0, levels), (2, size), (1, 1 + levels)], strict=True))
    computed = entropy_ranges.divergences(found.counts, start, end, levels)
    counts = [int(count) for count in found.counts]
    exact = [divergence(counts, int(a), int(b), levels) for a, b in zip(start, end, strict=True)]
    np.testing.assert_allclose(computed, exact, atol=1e-9)


def test_the_spike_of_a_relu_does_not_decide():
    values = np.maximum(np.random.default_rng(4).standard_normal(200_000), 0).astype(np.float32)
    with_spike = of_values(values)
    without = of_values(values[values > 0.01])
    _, high = entropy_ranges.least_divergence(with_spike, 256)
    _, other = entropy_ranges.least_divergence(without, 256)
    assert high == pytest.approx(other, rel=0.05)


def test_an_outlier_is_clipped_by_each_method():
    values = np.random.default_rng(5).standard_normal(1_000_000).astype(np.float32)
    values[0] = 25.0
    found = of_values(values)
    for low, high in (
        histogram_ranges.percentile(found, 99.9),
        histogram_ranges.least_squared_error(found, 256),
        entropy_ranges.least_divergence(found, 256),
    ):
        assert 2 < high < 12
        assert low < -2


def test_an_empty_histogram_keeps_its_range():
    found = histogram(np.zeros(16), 4)
    assert histogram_ranges.least_squared_error(found, 4) == (-4.0, 12.0)
    assert entropy_ranges.least_divergence(found, 4) == (-4.0, 12.0)
    assert histogram_ranges.percentile(found, 99.0)[0] <= 0
