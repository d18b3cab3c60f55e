"""Cross-layer equalization: scales channels between layers so that one step per tensor suits them all.

Each channel's scale is √(w / a), with w the largest weight that reads the channel and a the largest magnitude that it
reached on the calibration samples: then a scaled channel's range equals the range of the weights that read it. Paper
and rule are those of Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV
2019, section 4.1, with a in place of the weights that make the channel, as Xiao et al., SmoothQuant, ICML 2023,
have it: weights get a scale per output channel, so that what is left to even out is the activations' range.

The float function stays, but for one rounding of each weight. Ranges and means change: calibrate the result anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbuild.errors import StepError
from quantbuild.tflite import channel_groups, graph, layers
from quantbuild.tflite.channel_groups import Group
from quantbuild.tflite.layers import Layer
from quantbuild.tflite.statistics_file import Statistics

Scale = NDArray[np.float64]

SWEEPS = 50
"""At most. Groups depend on each other where a layer lies between two of them: two to six were seen."""
TOLERANCE = 1e-4
"""Sweeps end when no scale changes by more than this share."""
_SMALLEST_SHARE = 1e-9
"""Of the group's largest: anything below counts as this much, so that no scale can overflow."""


@dataclass(frozen=True, kw_only=True)
class Equalization:
    """The scale [C] of each group of a model."""

    groups: tuple[Group, ...]
    scales: tuple[Scale, ...]
    held: dict[str, int]
    """Why the results of other layers stay as they are → of how many."""
    sweeps: int
    converged: bool


def choose(model: graph.ModelT, statistics: Statistics) -> Equalization:
    """Return the scales that equalize `model`, a float model that `statistics` were measured on.

    Raises StepError for statistics without channel extremes or of another model.
    """
    found = channel_groups.find(model)
    reached = [_reached(model, statistics, group) for group in found.groups]
    weights = {layer.operator: _over_taps(layers.weights(model, layer)) for layer in layers.find(model)}
    scales = [np.ones(group.channels) for group in found.groups]
    sweeps, change = 0, np.inf
    while sweeps < SWEEPS and change > TOLERANCE:
        sweeps, change = sweeps + 1, 0.0
        # From the outputs backwards: what reads a channel depends on the scales behind it.
        for number, group in reversed(list(enumerate(found.groups))):
            made = _made(found.groups, scales)
            read = _largest([_read(model, group, layer, weights[layer.operator], made) for layer in group.consumers])
            scale = balanced(reached[number], read)
            change = max(change, float(np.abs(np.log(scale / scales[number])).max()))
            scales[number] = scale
    return Equalization(
        groups=found.groups,
        scales=tuple(scales),
        held=found.held,
        sweeps=sweeps,
        converged=bool(change <= TOLERANCE),
    )


def balanced(reached: Scale, read: Scale) -> Scale:
    """Return √(read / reached) for each channel, both [C], with a geometric mean of 1.

    A channel that no sample reached keeps the scale of 1: nothing is known of it. One that no weight reads is
    made small.
    """
    alive = reached > 0
    scale = np.ones(len(reached))
    if alive.any() and (read > 0).any():
        scale[alive] = np.sqrt(_floored(read)[alive] / _floored(reached)[alive])
        scale[alive] /= _geometric_mean(scale[alive])
    return scale


def apply(model: graph.ModelT, found: Equalization) -> None:
    """Write the scales into the constants of `model`, which is changed; tensors keep their indices and names."""
    made = _made(found.groups, found.scales)
    taken = {layer.operator: (group, scale) for group, scale in _pairs(found) for layer in group.consumers}
    for layer in layers.find(model):
        weights, bias = layers.weights(model, layer).astype(np.float64), layers.bias(model, layer)
        if layer.operator in taken:
            group, scale = taken[layer.operator]
            weights = weights / layers.over_inputs(layer, _of(model, layer.input, scale), weights.shape)
        if layer.operator in made:
            scale = _of(model, layer.output, made[layer.operator])
            weights = weights * layers.over_outputs(layer, scale, weights.ndim)
            if bias is not None:
                layers.set_bias(model, layer, (bias * scale).astype(np.float32))
        if layer.operator in taken or layer.operator in made:
            layers.set_weights(model, layer, weights.astype(np.float32))
    for group, scale in _pairs(found):
        for operator, place in group.constants:
            _scale_constant(model, operator, place, scale)


def report(model: graph.ModelT, found: Equalization) -> dict[str, Any]:
    """Return what was done, as JSON.

    ``{"groups": [{"tensors": [name], "channels", "smallest_scale", "largest_scale"}], "held": {why: count},
    "sweeps", "converged", "smallest_scale", "largest_scale"}``; the last two are null without a group.
    """
    tensors = graph.main(model).tensors
    groups = [
        {
            "tensors": [graph.tensor_name(tensors[tensor]) for tensor in group.tensors],
            "channels": group.channels,
            "smallest_scale": float(scale.min()),
            "largest_scale": float(scale.max()),
        }
        for group, scale in _pairs(found)
    ]
    return {
        "groups": groups,
        "held": found.held,
        "sweeps": found.sweeps,
        "converged": found.converged,
        "smallest_scale": min((float(scale.min()) for scale in found.scales), default=None),
        "largest_scale": max((float(scale.max()) for scale in found.scales), default=None),
    }


def _pairs(found: Equalization) -> Iterable[tuple[Group, Scale]]:
    return zip(found.groups, found.scales, strict=True)


def _made(groups: Iterable[Group], scales: Iterable[Scale]) -> dict[int, Scale]:
    """Return op of a layer → the scale of what it makes."""
    return {layer.operator: scale for group, scale in zip(groups, scales, strict=True) for layer in group.producers}


def _reached(model: graph.ModelT, statistics: Statistics, group: Group) -> Scale:
    """Return the largest magnitude of each channel over the group's tensors, each tensor's own size left out."""
    if not statistics.channel_max.size:
        raise StepError("statistics: hold no channel extremes, which equalization needs; calibrate again")
    found = []
    for tensor in group.tensors:
        row = statistics.rows().get(tensor)
        name = graph.tensor_name(graph.main(model).tensors[tensor])
        if row is None or statistics.tensor_names[row] != name:
            raise StepError(f'statistics: no tensor "{name}", which this model has; calibrate again')
        found.append(statistics.magnitudes(row).astype(np.float64).reshape(-1, group.channels).max(axis=0))
    return _largest(found)


def _read(
    model: graph.ModelT, group: Group, layer: Layer, weights: NDArray[np.float64], made: Mapping[int, Scale]
) -> Scale:
    """Return the largest weight that reads each channel of a group in `layer`, as its output's scale has them."""
    if layer.operator in made:
        scale = _of(model, layer.output, made[layer.operator])
        weights = weights * layers.over_outputs(layer, scale, weights.ndim)
    found = layers.by_input(layer, weights, graph.shape(graph.main(model).tensors[layer.input])[-1])
    largest: Scale = found.reshape(-1, group.channels).max(axis=0)
    return largest


def _largest(parts: list[Scale]) -> Scale:
    """Return the largest of several magnitudes of each channel, after each part's own size is divided out.

    Quantization cares for the ratios within a tensor, or a layer's weights, and not for their unit.
    """
    alive = [part / _geometric_mean(part[part > 0]) for part in parts if part.any()]
    largest: Scale = np.max(alive, axis=0) if alive else np.zeros(len(parts[0]))
    return largest


def _geometric_mean(values: NDArray[np.float64]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def _floored(values: Scale) -> Scale:
    floored: Scale = np.maximum(values, _SMALLEST_SHARE * values.max())
    return floored


def _over_taps(weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the largest magnitude over height and width, whose axes stay with a length of 1."""
    largest = np.abs(weights)
    return (largest.max(axis=(1, 2), keepdims=True) if largest.ndim == 4 else largest).astype(np.float64)


def _of(model: graph.ModelT, tensor: int, scale: Scale) -> Scale:
    """Return a group's scale as long as the last axis of one of its tensors."""
    return np.tile(scale, graph.shape(graph.main(model).tensors[tensor])[-1] // len(scale))


def _scale_constant(model: graph.ModelT, operator: int, place: int, scale: Scale) -> None:
    main = graph.main(model)
    value = graph.constant(model, main.tensors[graph.indices(main.operators[operator].inputs)[place]])
    assert value is not None
    scaled = value * np.tile(scale, value.shape[-1] // len(scale))
    layers.set_constant(model, operator, place, scaled.astype(np.float32))
