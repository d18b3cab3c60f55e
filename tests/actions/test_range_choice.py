"""Choosing ranges for a whole graph: what is never clipped, what shares a scale, what would be empty."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import numpy as np
import pytest
import wide_models
from ai_edge_litert import schema_py_generated as schema
from wide_models import SIDE, Builder

from quantbuild.errors import StepError
from quantbuild.tflite import calibration, graph, histograms, ranges, same_scale
from quantbuild.tflite.histograms_file import Histograms
from quantbuild.tflite.range_options import Name, Percentile, Quantile
from quantbuild.tflite.statistics_file import Statistics

METHODS = [*get_args(Name), Percentile(percentile=80), Quantile(quantile=0.5)]
CLIPPING = [method for method in METHODS if method != "minmax"]


class Measured:
    """A model of one input x with its statistics and histograms."""

    def __init__(self, data: bytes, samples: np.ndarray) -> None:
        self.model = graph.read(data)
        tensor = graph.indices(graph.main(self.model).inputs)[0]
        feeds = [(number, {tensor: sample[None]}) for number, sample in enumerate(samples)]
        self.statistics: Statistics = calibration.calibrate(data, feeds).statistics
        self.histograms: Histograms = histograms.measure(data, self.statistics, feeds)
        self.names = [graph.tensor_name(each) for each in graph.main(self.model).tensors]

    def choose(self, method: Any, **options: Any) -> dict[str, tuple[float, float]]:
        found = ranges.choose(self.model, self.statistics, method, self.histograms, **options)
        return {self.names[tensor]: bounds for tensor, bounds in found.items()}


def with_outliers(count: int = 8) -> np.ndarray:
    """Samples of which the last one has a few values far outside of the others' range."""
    samples = np.random.default_rng(0).normal(0, 1, (count, SIDE, SIDE)).astype(np.float32)
    samples[-1, :3, 0] = [40, 40, -30]
    return samples


def chain(*, reshaped_output: bool) -> bytes:
    """x → sum = x + x → pooled → tail; the output is the mean of the tail, or the tail reshaped."""
    build = Builder()
    x = build.input("x", 1, SIDE, SIDE)
    added = build.add(x, x, "sum", 1, SIDE, SIDE)
    square = build.reshape(added, "square", 1, SIDE, SIDE, 1)
    options = schema.Pool2DOptionsT(strideW=1, strideH=1, filterWidth=2, filterHeight=2)
    pooled = build.op("MAX_POOL_2D", [square], [build.tensor("pooled", 1, SIDE, SIDE, 1)], options)
    tail = build.reshape(pooled, "tail", 1, SIDE, SIDE)
    last = build.reshape(tail, "out", 1, SIDE * SIDE) if reshaped_output else build.mean(tail, "out")
    return build.finish(last)


@pytest.fixture(scope="module")
def inner() -> Measured:
    return Measured(chain(reshaped_output=False), with_outliers())


@pytest.fixture(scope="module")
def reshaped() -> Measured:
    return Measured(chain(reshaped_output=True), with_outliers())


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("activations", ["int8", "int16"])
def test_zero_is_inside_and_the_range_within_the_values(inner: Measured, method: Any, activations: Any) -> None:
    whole = inner.choose("minmax", activations=activations)
    for name, (low, high) in inner.choose(method, activations=activations).items():
        assert whole[name][0] <= low <= 0 <= high <= whole[name][1]
        assert low < high
        assert activations == "int8" or low == -high


@pytest.mark.parametrize("method", CLIPPING, ids=str)
def test_large_tensors_are_clipped_and_outputs_are_not(inner: Measured, method: Any) -> None:
    whole, found = inner.choose("minmax"), inner.choose(method)
    assert found["out"] == whole["out"]
    assert found["sum"][1] < whole["sum"][1]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_what_an_output_shares_its_scale_with_is_not_clipped(reshaped: Measured, method: Any) -> None:
    """The quantizer takes the range of what is reshaped or pooled for the result, too."""
    whole, found = reshaped.choose("minmax"), reshaped.choose(method)
    out = whole["out"]
    for name in ("sum", "square", "pooled", "tail", "out"):
        assert found[name][0] <= out[0]
        assert found[name][1] >= out[1]


def test_what_the_output_does_not_have_may_be_clipped(reshaped: Measured) -> None:
    """Pooling takes the maximum, so the lowest values of what is pooled are none of the output's."""
    whole, found = reshaped.choose("minmax"), reshaped.choose("percentile")
    assert found["sum"][0] > whole["sum"][0]


@pytest.mark.parametrize("name", ["CONCATENATION", "MAXIMUM", "PACK"])
def test_operands_and_result_of_a_joining_op_share_a_scale(name: str) -> None:
    build = Builder()
    x = build.input("x", 1, SIDE, SIDE)
    other = build.add(x, x, "other", 1, SIDE, SIDE)
    shape = {"CONCATENATION": (2, SIDE, SIDE), "MAXIMUM": (1, SIDE, SIDE), "PACK": (2, 1, SIDE, SIDE)}[name]
    options = {"CONCATENATION": schema.ConcatenationOptionsT(), "PACK": schema.PackOptionsT(valuesCount=2)}.get(name)
    joined = build.op(name, [x, other], [build.tensor("joined", *shape)], options)
    model = graph.read(build.finish(joined))
    assert same_scale.groups(model) == {each: {x, other, joined} for each in (x, other, joined)}
    kept = {joined: (-3.0, 4.0)}
    assert same_scale.widened(model, {x: (-1.0, 9.0), other: (-5.0, 1.0), **kept}, kept) == {
        x: (-3.0, 9.0),
        other: (-5.0, 4.0),
        joined: (-3.0, 4.0),
    }


def test_an_op_with_scales_of_its_own_ties_nothing() -> None:
    model = graph.read(wide_models.loop())
    assert same_scale.groups(model) == {}


def test_what_a_method_would_clip_to_nothing_keeps_its_range() -> None:
    """Most samples are zero throughout, so the median of their maxima is zero."""
    samples = np.zeros((5, SIDE, SIDE), np.float32)
    samples[2, 0, 0] = 7
    found = Measured(chain(reshaped_output=False), samples).choose("median")
    assert found["sum"] == (0, 14)


def test_a_tensor_that_is_always_zero_has_the_range_of_what_its_op_reads() -> None:
    """Whatever its range, its values are exact; a scale of nothing is refused by XNNPACK."""
    build = Builder()
    x = build.input("x", 1, SIDE, SIDE)
    none = build.constant(np.array(0, np.float32))
    zero = build.op("MUL", [x, none], [build.tensor("zero", 1, SIDE, SIDE)], schema.MulOptionsT())
    more = build.add(zero, zero, "more", 1, SIDE, SIDE)
    data = build.finish(build.mean(more, "mean"))
    samples = np.full((2, SIDE, SIDE), -3, np.float32)
    found = Measured(data, samples).choose("minmax")
    assert found == {"x": (-3, 0), "zero": (0, 3), "more": (0, 3), "mean": (0, 3)}
    assert Measured(data, samples).choose("kl", activations="int16")["more"] == (-3, 3)
    zeros = Measured(data, np.zeros((2, SIDE, SIDE), np.float32)).choose("mse")
    assert zeros["x"] == (0, 1)


def test_a_constant_tensor_is_exact_at_the_end_of_its_range() -> None:
    for value, expected in ((5.0, (0, 5)), (-5.0, (-5, 0))):
        samples = np.full((3, SIDE, SIDE), value, np.float32)
        measured = Measured(chain(reshaped_output=False), samples)
        for method in METHODS:
            assert measured.choose(method)["x"] == expected, method


def test_sixteen_bits_are_symmetric_and_clip_only_by_what_counts_values(inner: Measured) -> None:
    whole = inner.choose("minmax", activations="int16")
    assert inner.choose("mse", activations="int16") == inner.choose("kl", activations="int16") == whole
    low, high = inner.choose("percentile", activations="int16")["sum"]
    assert low == -high
    assert high < whole["sum"][1]


@pytest.mark.parametrize("method", ["percentile", "mse", "kl"])
def test_missing_or_foreign_histograms_are_refused(inner: Measured, method: Any) -> None:
    with pytest.raises(StepError, match="this method needs histograms"):
        ranges.choose(inner.model, inner.statistics, method)
    later = dataclasses.replace(inner.statistics, sample_max=inner.statistics.sample_max * 2)
    with pytest.raises(StepError, match='histograms: none of the values that the statistics have of "x"'):
        ranges.choose(inner.model, later, method, inner.histograms)
    none = dataclasses.replace(inner.histograms, tensor_indices=inner.histograms.tensor_indices + 1)
    with pytest.raises(StepError, match="calibrate again"):
        ranges.choose(inner.model, inner.statistics, method, none)


def test_the_coarsest_divergence_is_close_to_the_finest(inner: Measured) -> None:
    from quantbuild.tflite.range_options import Entropy

    fine, coarse = (inner.choose(Entropy(bins=bins))["sum"] for bins in (2048, 512))
    assert fine != coarse
    assert coarse[1] < inner.choose("minmax")["sum"][1]


def test_what_was_clipped_is_told(inner: Measured) -> None:
    whole = ranges.choose(inner.model, inner.statistics, "minmax")
    assert ranges.clipping(inner.statistics, whole) == ranges.Clipping(tensors=0, most=None, kept=None)
    tensors = {name: inner.names.index(name) for name in ("x", "sum")}
    cut = {**whole, tensors["x"]: (-30.0, 5.0), tensors["sum"]: (-6.0, 8.0)}
    found = ranges.clipping(inner.statistics, cut)
    assert (found.tensors, found.most) == (2, "sum")
    assert found.kept == pytest.approx(14 / 140)
    wider = {tensor: (2 * low, 2 * high) for tensor, (low, high) in whole.items()}
    assert ranges.clipping(inner.statistics, wider).tensors == 0
