"""The range whose quantized distribution diverges least from the values' own: TensorRT's entropy calibration."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantbuild.tflite.histogram_ranges import resolves
from quantbuild.tflite.histograms_file import Histogram

NO_VALUE = 1e-4
"""What an empty bin of Q counts as where P is not empty."""


def least_divergence(histogram: Histogram, levels: int) -> tuple[float, float]:
    """Return the range |x| ≤ t, cut to the values' extremes, that minimizes KL(P ‖ Q).

    For each t, from `levels` bins upwards: P is the histogram inside, what is outside added to the bins at
    its ends; Q is the histogram inside, each of `levels` equal runs of bins evened out over those of its bins
    that are not empty; both divided by their sums. Of equal divergences the wider range is taken.

    Source: Migacz, 8-bit Inference with TensorRT (GTC 2017), slide "Entropy Calibration - pseudocode", there on
    |x| with 128 levels for symmetric int8. TFLite's int8 activations have a zero point, so the histogram keeps
    its sign and all 256 levels span the range; for a tensor without negative values the two are the same but
    for the number of levels. Two things that the slides leave open are as in later implementations: the bin of
    the exact zeros takes its neighbour's count (NVIDIA's pytorch-quantization), since a zero is exact whatever
    the range and the spike that a ReLU makes would decide alone; and where P has values and Q has none, which
    an outlier would make infinite, Q has 1e-4 of a value (MXNet, ONNX Runtime).
    """
    if not resolves(histogram, levels):
        return histogram.low, histogram.high
    counts, negative = _without_zeros(histogram), histogram.negative
    positive = counts.size - negative
    reach = np.arange(max(negative, positive), 0, -1)
    start, end = negative - np.minimum(reach, negative), negative + np.minimum(reach, positive)
    wide = end - start >= levels
    start, end = start[wide], end[wide]
    best = int(np.argmin(divergences(counts, start, end, levels)))
    return histogram.window(negative - int(start[best]), int(end[best]) - negative)


def _without_zeros(histogram: Histogram) -> NDArray[np.int64]:
    counts = histogram.counts.copy()
    zero = min(histogram.negative, counts.size - 1)
    counts[zero] = counts[zero + 1] if zero + 1 < counts.size else counts[zero - 1]
    return counts


def divergences(
    counts: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64], levels: int
) -> NDArray[np.float64]:
    """Return [W] divergences, in nats, of the W ranges of bins from `start` to before `end`; infinite of nothing.

    With n values, m of them inside, and of a run's s values on b bins, KL(P ‖ Q) =
    (Σ c log c) / n − log n − (Σ s' log(s / b)) / n + log m, where c and s' count what is outside at the ends.
    """
    whole = np.pad(np.cumsum(counts), (1, 0))
    filled = np.pad(np.cumsum(counts > 0), (1, 0))
    entropy = np.pad(np.cumsum(_times_log(counts)), (1, 0))
    size = (end - start)[:, None]
    borders = start[:, None] + np.arange(levels + 1) * size // levels
    sums = np.diff(whole[borders], axis=1)
    bins = np.diff(filled[borders], axis=1)
    left, right = whole[start], whole[-1] - whole[end]
    first, last = counts[start], counts[end - 1]
    total, inside = whole[-1], whole[end] - whole[start]
    ends = _times_log(first + left) + _times_log(last + right) - _times_log(first) - _times_log(last)
    own = entropy[end] - entropy[start] + ends
    evened = np.log(np.maximum(sums, 1) / np.maximum(bins, 1))
    cross = (sums * evened).sum(axis=1)
    cross += left * np.where(first > 0, evened[:, 0], np.log(NO_VALUE))
    cross += right * np.where(last > 0, evened[:, -1], np.log(NO_VALUE))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (own - cross) / total - np.log(total) + np.log(inside)
    return np.where(inside > 0, found, np.inf)


def _times_log(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return c · log c, 0 for 0."""
    return counts.astype(np.float64) * np.log(np.maximum(counts, 1))
