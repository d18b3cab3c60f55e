"""histograms.npz: how the values of the tensors that may be clipped are distributed over all samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantbuild.tflite import arrays_file

BINS = 2048
"""Per tensor; eight for each step of an int8 range that clips nothing."""

SMALLEST_WIDTH = float(np.finfo(np.float32).tiny)
"""Of a bin: its reciprocal is still a float32."""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """The values of one tensor in bins of equal width. Zero is an edge between two bins, or an end.

    Bin i holds the values from ``(i − negative) · width`` to ``(i + 1 − negative) · width``.
    """

    low: float
    """The smallest value, or 0 where that is positive."""
    high: float
    """The largest value, or 0 where that is negative."""
    width: float
    negative: int
    """Count of bins below zero."""
    counts: NDArray[np.int64]

    def window(self, below: int, above: int) -> tuple[float, float]:
        """Return the range of `below` bins below zero and `above` bins above it, cut to the values' own extremes."""
        return max(-below * self.width, self.low), min(above * self.width, self.high)

    def coarser(self, factor: int) -> Histogram:
        """Return the histogram with `factor` bins in one; empty bins at its ends keep zero an edge."""
        before = -self.negative % factor
        after = -(before + self.counts.size) % factor
        merged = np.pad(self.counts, (before, after)).reshape(-1, factor).sum(axis=1)
        negative = (self.negative + before) // factor
        return Histogram(low=self.low, high=self.high, width=self.width * factor, negative=negative, counts=merged)


def binning(low: float, high: float, bins: int = BINS) -> tuple[float, int]:
    """Return (width, count of bins below zero) with which `bins` bins cover `low` to `high` and zero.

    One bin more than the range needs makes up for moving an edge to zero.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    needed = bins - 1 if low < 0 < high else bins
    width = max((high - low) / needed, SMALLEST_WIDTH)
    return width, min(math.ceil(-low / width), bins)


@dataclass(frozen=True, kw_only=True)
class Histograms:
    """Histograms of T tensors. Arrays are named as in the file."""

    tensor_names: tuple[str, ...]
    """[T]"""
    tensor_indices: NDArray[np.int32]
    """[T] index in the main subgraph."""
    low: NDArray[np.float32]
    """[T] smallest value of all samples, as in the statistics that the bins were laid by."""
    high: NDArray[np.float32]
    """[T] largest value of all samples."""
    counts: NDArray[np.int64]
    """[T, BINS] values in each bin; see `binning` for their edges."""

    @cached_property
    def rows(self) -> dict[int, int]:
        """Tensor index → row."""
        return {int(tensor): row for row, tensor in enumerate(self.tensor_indices)}

    def of(self, row: int) -> Histogram:
        """Return the histogram of one row."""
        low, high = min(float(self.low[row]), 0.0), max(float(self.high[row]), 0.0)
        width, negative = binning(low, high, self.counts.shape[1])
        return Histogram(low=low, high=high, width=width, negative=negative, counts=self.counts[row])


def write(path: Path, histograms: Histograms) -> None:
    """Write deterministically."""
    arrays_file.write(path, histograms)


def read(path: Path) -> Histograms:
    """Raise StepError when the file is damaged or of another kind."""
    return arrays_file.read(path, Histograms, "histograms")
