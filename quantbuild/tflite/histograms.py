"""The second pass of calibration: histograms of every tensor that a range may clip, over streamed samples.

Each sample is run with all tensors kept; that costs what making them graph outputs costs, and goes for graphs that
call others as well. Counts are whole numbers, so their sums do not depend on how the samples were dealt out.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from quantbuild.errors import StepError
from quantbuild.tflite import graph
from quantbuild.tflite.feeding import Feed, SampleError
from quantbuild.tflite.histograms_file import BINS, Histograms, binning
from quantbuild.tflite.ranges import check, never_clipped
from quantbuild.tflite.readers import run_sample
from quantbuild.tflite.runtime import open_interpreter
from quantbuild.tflite.statistics_file import Statistics
from quantbuild.tflite.streaming import read_in_order, usable_interpreters

BLOCK = 1 << 14
"""Values that are counted at a time: their indices stay in the processor's cache."""

MOST_KEPT_BYTES = 2**30
"""By all interpreters together, of the tensors they keep; one always runs."""


def measure(
    model: bytes, statistics: Statistics, samples: Iterable[tuple[int, Feed]], *, interpreters: int | None = None
) -> Histograms:
    """Count the values of `model` on `samples`, pairs of (number in the dataset, feed), read one after the other.

    Bins are laid by the ranges of the statistics, which must be of the same model and samples. The result does not
    depend on the number of interpreters. Raises SampleError for a sample with other values than the statistics saw.
    """
    parsed = graph.read(model)
    check(parsed, statistics)
    kept = never_clipped(parsed)
    rows = [row for tensor, row in statistics.rows().items() if tensor not in kept]
    low, high = (bound[rows] for bound in statistics.minmax())
    tensors = statistics.tensor_indices[rows]
    names = tuple(statistics.tensor_names[row] for row in rows)
    counters: list[Counter] = []

    def open_counter() -> Counter:
        counters.append(Counter(model, tensors, low, high))
        return counters[-1]

    numbers = []
    workers = min(usable_interpreters(parsed, interpreters), max(MOST_KEPT_BYTES // _kept_bytes(parsed), 1))
    for number, _, outside in read_in_order(open_counter, samples if rows else (), workers):
        if outside is not None:
            name = names[outside]
            raise SampleError(f'sample {number}: tensor "{name}" has values beyond its statistics; calibrate again')
        numbers.append(number)
    if rows and numbers != statistics.sample_indices.tolist():
        raise StepError("histograms: the samples are not those of the statistics; calibrate again")
    counts = sum((counter.counts for counter in counters), np.zeros((len(rows), BINS), np.int64))
    return Histograms(tensor_names=names, tensor_indices=tensors, low=low, high=high, counts=counts)


def _kept_bytes(model: graph.ModelT) -> int:
    tensors = graph.main(model).tensors
    return sum(int(np.prod(graph.shape(tensors[t]), dtype=np.int64)) * 4 for t in graph.activations(model)) or 1


class Counter:
    """One interpreter that keeps every tensor, and the counts of the samples that it ran. Not for two threads."""

    def __init__(
        self, model: bytes, tensors: NDArray[np.int32], low: NDArray[np.float32], high: NDArray[np.float32]
    ) -> None:
        self.counts: NDArray[np.int64] = np.zeros((len(tensors), BINS), np.int64)
        self._model = model  # the interpreter reads from its bytes and does not own them
        self._interpreter = open_interpreter(model, preserve_all_tensors=True)
        self._tensors = [int(tensor) for tensor in tensors]
        self._binning = [binning(float(a), float(b)) for a, b in zip(low, high, strict=True)]
        self._scaled = np.empty(BLOCK, np.float32)
        self._bins = np.empty(BLOCK, np.int32)

    def read(self, feed: Feed) -> int | None:
        """Run a sample and count; return the first row with values outside of its bins, None where there is none."""
        run_sample(self._interpreter, feed)
        with np.errstate(invalid="ignore"):  # an infinity made a whole number, which is then refused
            for row, tensor in enumerate(self._tensors):
                # A view: copying all tensors costs as much as running half of a small network. It must be gone before
                # the next run, which the interpreter checks.
                if not self._count(row, self._interpreter.tensor(tensor)().reshape(-1)):
                    return row
        return None

    def _count(self, row: int, values: NDArray[np.float32]) -> bool:
        """Count one tensor's values; return whether all are where the statistics say, give or take a bin."""
        width, negative = self._binning[row]
        factor, offset = np.float32(1 / width), np.float32(negative)
        for start in range(0, values.size, BLOCK):
            block = values[start : start + BLOCK]
            scaled, bins = self._scaled[: block.size], self._bins[: block.size]
            np.multiply(block, factor, out=scaled)
            if negative:
                np.add(scaled, offset, out=scaled)
            if not scaled.max() < BINS + 1:  # NaN is not, either
                return False
            bins[...] = scaled  # towards zero
            try:
                found = np.bincount(bins, minlength=BINS)
            except ValueError:  # below the first bin
                return False
            self.counts[row] += found[:BINS]
            self.counts[row, -1] += found[BINS:].sum()  # the largest value is the end of the last bin
        return True
