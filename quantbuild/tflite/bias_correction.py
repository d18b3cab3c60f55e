"""Analytic bias correction: adds to each layer's bias what rounding its weights takes from its mean result.

The sum over inputs of (W − Wq)·E[x], with E[x] each input channel's mean over the calibration samples of the float
model as it was before correction (the paper has it from batch normalization). Only the error of the weights is met;
what rounding and clipping the activations do to their means is not.
Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019, section 4.2.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbuild.errors import StepError
from quantbuild.tflite import graph, layers, taps
from quantbuild.tflite.layers import Layer
from quantbuild.tflite.statistics_file import Statistics

LARGEST_INT8 = 127
"""Weights use −127 to 127."""
_SMALLEST_WEIGHT_RANGE = 5e-7
"""mlir_quantize widens a channel's ±range to this."""
_CHUNK_ELEMENTS = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What is added to the bias of one layer."""

    layer: Layer
    shift: NDArray[np.float64]
    """[output channels]"""
    share: float
    """Its largest magnitude, as a share of the root mean square of the layer's output; 0 where that is 0."""


def corrections(
    model: graph.ModelT, statistics: Statistics, *, skip: AbstractSet[int] = frozenset(), per_channel: bool = True
) -> list[Correction]:
    """Return the correction of every layer of `model`, a float model that `statistics` were measured on.

    `skip` are the ops that stay float, by their place: names need not be unique. `per_channel` says whether
    weights get a scale for each output channel or one for all. Raises StepError for statistics without means
    or of another model.
    """
    found = []
    for layer in layers.find(model):
        if layer.operator not in skip:
            weights = layers.weights(model, layer)
            met = np.broadcast_to(_means(model, statistics, layer, weights.shape), weights.shape)
            shift = _lost(weights, met, layer.output_axis, per_channel)
            found.append(Correction(layer=layer, shift=shift, share=_share(statistics, layer, shift)))
    return found


def apply(model: graph.ModelT, found: list[Correction]) -> dict[str, Any]:
    """Add `found` to the biases of `model`, which is changed, and return what was done.

    ``{"layers", "largest": {"layer", "share"}, "biases_added": [layer], "layers_left_out": [layer]}``, layers by
    their output's name; ``largest`` is null without any, its share is `Correction.share`.
    """
    largest = max(found, key=lambda each: each.share, default=None)
    without = [each.layer.name for each in found if layers.bias(model, each.layer) is None]
    for each in found:
        bias = layers.bias(model, each.layer)
        layers.set_bias(model, each.layer, ((0 if bias is None else bias) + each.shift).astype(np.float32))
    done = {each.layer.operator for each in found}
    left = [name for number, name in layers.candidates(model).items() if number not in done]
    return {
        "layers": len(found),
        "largest": None if largest is None else {"layer": largest.layer.name, "share": largest.share},
        "biases_added": without,
        "layers_left_out": left,
    }


def rounded(weights: NDArray[np.float32], axis: int | None) -> NDArray[np.float64]:
    """Return `weights` as mlir_quantize rounds them to int8 and the kernels then read them; any shape.

    One scale for each place on `axis`, or one for all where it is None. Bit for bit its own, but for a
    channel whose bias would not fit 32 bits: that one's scale it enlarges, which changes a result by less
    than 2⁻²³ of the bias for each weight of the channel.
    """
    others = tuple(place for place in range(weights.ndim) if place != axis)
    largest = np.abs(weights).max(axis=others, keepdims=True).astype(np.float64)
    scale = (np.maximum(largest, _SMALLEST_WEIGHT_RANGE) / LARGEST_INT8).astype(np.float32)
    # It multiplies by the inverse in float32 and rounds halves away from zero.
    steps = np.abs(weights * (np.float32(1) / scale)).astype(np.float64)
    integers = np.copysign(np.minimum(np.floor(steps + 0.5), LARGEST_INT8), weights)
    real: NDArray[np.float64] = integers * scale.astype(np.float64)
    return real


def _means(model: graph.ModelT, statistics: Statistics, layer: Layer, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the mean of what each weight of a layer is multiplied with; broadcasts against weights of `shape`."""
    given = taps.source(model, layer)
    tensor = graph.main(model).tensors[given.tensor]
    row = statistics.rows().get(given.tensor)
    name = graph.tensor_name(tensor)
    if row is None or statistics.tensor_names[row] != name:
        raise StepError(f'statistics: no tensor "{name}", which this model has; calibrate again')
    means = statistics.means(row)
    if len(means) != graph.shape(tensor)[-1]:
        raise StepError(
            f'statistics: no channel means for tensor "{name}", which bias correction needs; calibrate again'
        )
    return layers.over_inputs(layer, means, shape) * taps.shares(model, layer, given)


def _share(statistics: Statistics, layer: Layer, shift: NDArray[np.float64]) -> float:
    row = statistics.rows().get(layer.output)
    size = 0.0 if row is None else float(np.sqrt(statistics.power[row]))
    return float(np.abs(shift).max()) / size if size > 0 else 0.0


def _lost(
    weights: NDArray[np.float32], means: NDArray[np.float64], axis: int, per_channel: bool
) -> NDArray[np.float64]:
    """Return the sum of (weights − rounded) · means for each place on `axis`."""
    rows = np.moveaxis(weights, axis, 0)
    met = np.moveaxis(means, axis, 0)
    count = max(_CHUNK_ELEMENTS // max(rows[0].size, 1), 1) if per_channel else len(rows)
    shift = np.zeros(len(rows), np.float64)
    for start in range(0, len(rows), count):
        part = rows[start : start + count]
        errors = (part - rounded(part, 0 if per_channel else None)) * met[start : start + count]
        # Added one after the other: NumPy's own sums depend on the CPU's vector length.
        for column in np.ascontiguousarray(errors.reshape(len(part), -1).T):
            shift[start : start + count] += column
    return shift
