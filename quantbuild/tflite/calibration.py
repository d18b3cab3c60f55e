"""Calibration: the ranges, means and powers of every float32 activation over streamed samples.

The graph measures itself under XNNPACK (see instrumentation); one that cannot be edited is run with all its
tensors kept and read with NumPy. The TensorFlow converter's own calibrator is not used: it logs an op's inputs
after an in-place ADD or MUL has overwritten them (tensorflow#127842), and costs several times as much.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from quantbuild.errors import StepError
from quantbuild.tflite import graph, instrumentation
from quantbuild.tflite.feeding import Feed, SampleError
from quantbuild.tflite.instrumentation import Instrumented, Kind, Layout
from quantbuild.tflite.readers import AllTensors, InGraph, Reading
from quantbuild.tflite.statistics_file import Statistics
from quantbuild.tflite.streaming import first_line, read_in_order, usable_interpreters

Route: TypeAlias = Literal["in-graph", "all-tensors"]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The statistics and how they were measured; `reason` says why the graph was not edited."""

    statistics: Statistics
    route: Route
    reason: str | None


def calibrate(
    model: bytes, samples: Iterable[tuple[int, Feed]], *, kind: Kind = "all", interpreters: int | None = None
) -> Calibration:
    """Measure `model` on `samples`, pairs of (number in the dataset, feed), read one after the other.

    `interpreters` run side by side, one per usable core by default; the result does not depend on their
    number. Raises SampleError that names sample and tensor for a value that is not finite.
    """
    parsed = graph.read(model)
    measured = instrumentation.layout(parsed)
    if not measured.tensors:
        raise StepError("model: has no float32 activation to calibrate; give a float32 model")
    workers = usable_interpreters(parsed, interpreters)
    edited, reason = _edit(parsed, measured, kind)
    exact = cache(lambda: AllTensors(model, measured, kind))
    make = (lambda: AllTensors(model, measured, kind)) if edited is None else (lambda: InGraph(edited))
    totals = _Totals(measured, kind)
    for number, feed, reading in read_in_order(make, samples, workers):
        # Moments of finite values can overflow float32, so what is not finite is looked at again.
        totals.add(number, reading if reading.is_finite() else _checked(exact(), number, feed, measured))
    route: Route = "all-tensors" if edited is None else "in-graph"
    return Calibration(statistics=totals.result(), route=route, reason=reason)


def _edit(model: graph.ModelT, measured: Layout, kind: Kind) -> tuple[Instrumented | None, str | None]:
    """Return the instrumented graph, or None and the reason why there is none. Changes `model`."""
    reason = instrumentation.obstacle(model, measured)
    if reason is not None:
        return None, reason
    zeros = _zeros(model)
    edited = instrumentation.instrument(model, measured, kind)
    reason = _refusal(edited, measured, zeros)
    return (None, reason) if reason else (edited, None)


def _zeros(model: graph.ModelT) -> Feed:
    """A feed that any graph can run: zero is a valid index for an embedding or a gather, too."""
    main = graph.main(model)
    inputs = {tensor: main.tensors[tensor] for tensor in graph.indices(main.inputs)}
    return {tensor: np.zeros(graph.shape(found), graph.dtype(found)) for tensor, found in inputs.items()}


def _refusal(edited: Instrumented, measured: Layout, zeros: Feed) -> str | None:
    """What the runtime says against the edited graph, tried on zeros; None where it runs as expected."""
    try:
        reading = InGraph(edited).read(zeros)
    except (RuntimeError, ValueError, StepError) as error:
        return f"the runtime refuses the edited graph ({first_line(error)})"
    means = len(reading.means) if reading.means is not None else None
    if len(reading.minima) != len(measured.tensors) or means not in {None, sum(measured.channels)}:
        return "the edited graph gives results of another size than its tensors have"
    return None


class _Totals:
    """Statistics so far. Moments are summed in float64 in the samples' order, so they have one value only."""

    def __init__(self, measured: Layout, kind: Kind) -> None:
        with_moments = kind == "all"
        self._measured = measured
        self._numbers: list[int] = []
        self._minima: list[NDArray[np.float32]] = []
        self._maxima: list[NDArray[np.float32]] = []
        self._means = np.zeros(sum(measured.channels) if with_moments else 0, np.float64)
        self._powers = np.zeros(len(measured.tensors) if with_moments else 0, np.float64)
        self._channel_minima = np.full(len(self._means), np.inf, np.float32)
        self._channel_maxima = np.full(len(self._means), -np.inf, np.float32)

    def add(self, number: int, reading: Reading) -> None:
        self._numbers.append(number)
        # Adding zero turns −0 into 0: which of the two a minimum gives depends on the order of comparison.
        self._minima.append(reading.minima + np.float32(0))
        self._maxima.append(reading.maxima + np.float32(0))
        if reading.means is not None and reading.powers is not None:
            self._means += reading.means
            self._powers += reading.powers
        if reading.channel_minima is not None and reading.channel_maxima is not None:
            np.minimum(self._channel_minima, reading.channel_minima + np.float32(0), out=self._channel_minima)
            np.maximum(self._channel_maxima, reading.channel_maxima + np.float32(0), out=self._channel_maxima)

    def result(self) -> Statistics:
        if not self._numbers:
            raise StepError("calibration: the dataset gave no sample; give it at least one")
        return Statistics(
            tensor_names=self._measured.names,
            tensor_indices=np.array(self._measured.tensors, np.int32),
            sample_indices=np.array(self._numbers, np.int64),
            sample_min=np.stack(self._minima),
            sample_max=np.stack(self._maxima),
            channel_offsets=self._measured.offsets,
            channel_mean=self._means / len(self._numbers),
            power=self._powers / len(self._numbers),
            channel_min=self._channel_minima,
            channel_max=self._channel_maxima,
        )


def _checked(exact: AllTensors, number: int, feed: Feed, measured: Layout) -> Reading:
    """Read one sample again in float64; raise SampleError for the first tensor that is not finite."""
    for value, name in zip(exact.values(feed), measured.names, strict=True):
        bad = int(np.count_nonzero(~np.isfinite(value)))
        if bad:
            what = "NaN" if np.isnan(value).any() else "infinity"
            raise SampleError(
                f'sample {number}: tensor "{name}" (float32) holds {what} in {bad} of {value.size} elements; '
                "correct the sample or the model, or leave the sample out"
            )
    return exact.read(feed)
