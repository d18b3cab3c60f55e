"""Ranges from each sample's own minimum and maximum: what one calibration pass gives at no further cost.

All take ``sample_min`` and ``sample_max``, float32 [S, T]: S samples in the order in which they were read,
T tensors; and return (low, high), float64 [T] each, within the extremes over all samples.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from quantbuild.tflite.range_options import MinMax, MovingAverage, Quantile, SampleMean

Extremes: TypeAlias = NDArray[np.float32]
Bounds: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
SampleMethod: TypeAlias = MinMax | SampleMean | Quantile | MovingAverage


def bounds(method: SampleMethod, sample_min: Extremes, sample_max: Extremes) -> Bounds:
    """Return (low, high) by `method`."""
    match method:
        case MinMax():
            return minmax(sample_min, sample_max)
        case SampleMean():
            return sample_mean(sample_min, sample_max)
        case Quantile():
            return quantile(sample_min, sample_max, method.quantile)
        case MovingAverage():
            return moving_average(sample_min, sample_max, method.momentum)


def minmax(sample_min: Extremes, sample_max: Extremes) -> Bounds:
    """Return min over s of min_s and max over s of max_s.

    Source: Nagel et al., A White Paper on Neural Network Quantization (2021, arXiv:2106.08295), section 3.1.
    """
    return sample_min.min(axis=0).astype(np.float64), sample_max.max(axis=0).astype(np.float64)


def sample_mean(sample_min: Extremes, sample_max: Extremes) -> Bounds:
    """Return (1/S) Σ min_s and (1/S) Σ max_s: clips what only a few samples reach.

    Source: NNCF's range estimator MEAN_MINMAX (its MEDIAN_MINMAX is `quantile` at 0.5).
    """
    return sample_min.mean(axis=0, dtype=np.float64), sample_max.mean(axis=0, dtype=np.float64)


def quantile(sample_min: Extremes, sample_max: Extremes, q: float) -> Bounds:
    """Return the quantile 1 − q of the min_s and q of the max_s; q = 0.5 is the median, q = 1 minmax.

    Between two samples it is linear (definition 7 of Hyndman and Fan, Sample Quantiles in Statistical
    Packages, 1996). Raises ValueError for a q outside of [0, 1].
    """
    low = np.quantile(sample_min.astype(np.float64), 1 - q, axis=0)
    high = np.quantile(sample_max.astype(np.float64), q, axis=0)
    return low, high


def moving_average(sample_min: Extremes, sample_max: Extremes, momentum: float) -> Bounds:
    """Return r_S of r_1 = x_1, r_s = r_(s−1) + (1 − momentum) · (x_s − r_(s−1)), for x = min and x = max.

    The order is the recorded one: a set sorted by class ends on its last class. Source: Jacob et al.,
    Quantization and Training of Neural Networks (2018, arXiv:1712.05877), section 3.1; started at the first
    sample, and 0.95 by default, as litert-quantizer does it.
    """
    low, high = sample_min[0].astype(np.float64), sample_max[0].astype(np.float64)
    for least, most in zip(sample_min[1:], sample_max[1:], strict=True):
        low += (1 - momentum) * (least - low)
        high += (1 - momentum) * (most - high)
    return low, high
