"""Ranges from the histogram of all values of one tensor: percentile and least squared error."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quantbuild.tflite.histograms_file import Histogram

COARSE_ENDS = 128
"""Ends tried on the whole range at first, by `least_squared_error`."""


def resolves(histogram: Histogram, levels: int) -> bool:
    """Return whether the histogram is finer than `levels` quantization levels over its whole range.

    Where it is not (16 bits), it cannot tell one clipped range from another, and the whole one is kept.
    """
    return levels <= histogram.counts.size


def percentile(histogram: Histogram, percent: float) -> tuple[float, float]:
    """Return the narrowest range of whole bins and zero that leaves out less than 100 − p % at each end.

    high = min {e : #{x < e} ≥ p/100 · n} and low = max {e : #{x ≥ e} ≥ p/100 · n} over the bins' edges e.
    Source: Wu et al., Integer Quantization for Deep Learning Inference (2020, arXiv:2004.09602), section 4.1,
    there of |x|; here of x at either end, as int8 activations have a zero point.
    """
    counts = histogram.counts
    total = int(counts.sum())
    wanted = total - math.floor((100 - percent) / 100 * total + 1e-6)  # 0.1 % of 1,000 is one, as floats too
    end = int(np.searchsorted(np.cumsum(counts), wanted)) + 1
    start = counts.size - 1 - int(np.searchsorted(np.cumsum(counts[::-1]), wanted))
    return histogram.window(max(histogram.negative - start, 0), max(end - histogram.negative, 0))


def least_squared_error(histogram: Histogram, levels: int) -> tuple[float, float]:
    """Return the range that minimizes Σ counts · (Q(x) − x)², with x in the middle of its bin.

    Q rounds to `levels` levels from low to high, shifted so that zero is one of them, and clips. Every edge
    at or below zero is tried with every one at or above, at first on a grid of at most 128 ends, then all
    around the best of these; equal errors leave the wider range. Source: Nagel et al., A White Paper on Neural
    Network Quantization (2021, arXiv:2106.08295), section 3.1.
    """
    below, above = histogram.negative, histogram.counts.size - histogram.negative
    if not resolves(histogram, levels) or not histogram.counts.any():
        return histogram.low, histogram.high
    step = -(-histogram.counts.size // COARSE_ENDS)
    best = _best(histogram, levels, np.arange(below, -1, -step), np.arange(above, -1, -step))
    if step > 1:
        low, high = best
        near_low = np.arange(min(low + step, below), max(low - step, -1), -1)
        near_high = np.arange(min(high + step, above), max(high - step, -1), -1)
        best = _best(histogram, levels, near_low, near_high)
    return histogram.window(*best)


def _best(histogram: Histogram, levels: int, below: NDArray[np.int64], above: NDArray[np.int64]) -> tuple[int, int]:
    """Return the pair of ends, in bins from zero, with the least error; the ends given from wide to narrow."""
    pairs = np.stack(np.meshgrid(below, above, indexing="ij"), axis=-1).reshape(-1, 2)
    pairs = pairs[pairs.sum(axis=1) > 0]
    at = int(np.argmin(squared_errors(histogram, levels, pairs)))
    return int(pairs[at, 0]), int(pairs[at, 1])


def squared_errors(histogram: Histogram, levels: int, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return [P] sums of squared errors, in squared bins, of P ranges, [P, 2] bins below and above zero.

    What is rounded to one level is a run of bins, whose error follows from their count, sum and sum of
    squares: Σ (x − q)² = Σ x² − 2 q Σ x + q² Σ 1. These are whole numbers and exact, x being in half bins.
    """
    size, negative = histogram.counts.size, histogram.negative
    middles = 2 * np.arange(size, dtype=np.int64) + 1 - 2 * negative
    moments = [np.concatenate([[0], np.cumsum(histogram.counts * middles**power)]) for power in range(3)]
    span = pairs.sum(axis=1, keepdims=True)
    scale = span / (levels - 1)
    zero_point = (2 * pairs[:, :1] * (levels - 1) + span) // (2 * span)
    level = np.arange(levels) - zero_point
    borders = np.ceil((level[:, :-1] + 0.5) * scale + negative - 0.5).clip(0, size).astype(np.int64)
    runs = np.pad(borders, ((0, 0), (1, 1)), constant_values=((0, 0), (0, size)))
    count, total, squares = (np.diff(moment[runs], axis=1) for moment in moments)
    value = 2 * level * scale
    errors: NDArray[np.float64] = (squares - 2 * value * total + value**2 * count).sum(axis=1) / 4
    return errors
