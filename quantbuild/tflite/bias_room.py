"""Biases that 32 bits cannot hold at the scale of their channel: that channel's weights get a larger scale.

A bias has the scale of its input times that of the channel's weights. Where the weights are all but zero, as those of
a pruned channel are, it overflows; litert-quantizer 0.11 then writes the largest integer, whatever the bias was, and
the result is nonsense without a word. `mlir_quantize` enlarges the scale itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from quantbuild.tflite import graph, layers
from quantbuild.tflite.layers import Layer

_LARGEST_BIAS = 2**30
"""Leaves the sum of products as much again."""
_LEAST_MULTIPLIER = 2.0**-30
"""Of a sum, to its result's steps: kernels take less for nothing (``QuantizeMultiplier``), and XNNPACK refuses it."""


def make(exact: graph.ModelT, quantized: graph.ModelT, operators: Mapping[int, int]) -> list[str]:
    """Enlarge scales in `quantized`, which is changed; return the names of the layers that needed it.

    `operators` maps an op of the float model `exact` to the one that it became.
    """
    found = [layer for layer in layers.find(exact) if layer.operator in operators]
    return [layer.name for layer in found if _make(exact, quantized, layer, operators[layer.operator])]


def _make(exact: graph.ModelT, quantized: graph.ModelT, layer: Layer, operator: int) -> bool:
    main, places = graph.main(quantized), layers.places(layer)
    inputs = graph.indices(main.operators[operator].inputs)
    weights, bias = main.tensors[inputs[places.weights]], layers.bias(exact, layer)
    given, result = (_scale(main.tensors[t]) for t in (inputs[places.input], main.operators[operator].outputs[0]))
    if bias is None or graph.type_name(weights) != "INT8" or given is None or result is None:
        return False
    scale = np.asarray(weights.quantization.scale, np.float64)
    wanted = np.maximum(np.abs(bias.astype(np.float64)) / _LARGEST_BIAS, result * _LEAST_MULTIPLIER) / given
    least = wanted if len(scale) == len(bias) else wanted.max(keepdims=True)
    if (least <= scale).all():
        return False
    # As the file has it, so that weights and bias agree on it.
    larger = np.maximum(scale, least).astype(np.float32)
    _write(quantized, layer, operator, layers.weights(exact, layer), larger)
    _write_bias(quantized, layer, operator, bias, np.float32(given) * larger)
    return True


def _write(
    model: graph.ModelT, layer: Layer, operator: int, weights: NDArray[np.float32], scale: NDArray[np.float32]
) -> None:
    each = layers.over_outputs(layer, scale, weights.ndim) if len(scale) > 1 else scale
    integers = np.clip(np.rint(weights.astype(np.float64) / each), -127, 127).astype(np.int8)
    place = layers.places(layer).weights
    tensor = layers.set_constant(model, operator, place, integers)
    tensor.quantization = _how(scale, layer.output_axis if len(scale) > 1 else 0)


def _write_bias(
    model: graph.ModelT, layer: Layer, operator: int, bias: NDArray[np.float32], scale: NDArray[np.float32]
) -> None:
    main, place = graph.main(model), layers.places(layer).bias
    kind = graph.dtype(main.tensors[graph.indices(main.operators[operator].inputs)[place]])
    integers = np.rint(bias.astype(np.float64) / scale).astype(kind)
    tensor = layers.set_constant(model, operator, place, integers)
    tensor.quantization = _how(scale, 0)


def _how(scale: NDArray[np.float32], axis: int) -> schema.QuantizationParametersT:
    return schema.QuantizationParametersT(scale=scale.tolist(), zeroPoint=[0] * len(scale), quantizedDimension=axis)


def _scale(tensor: graph.TensorT) -> float | None:
    how = tensor.quantization
    return None if how is None or how.scale is None or len(how.scale) != 1 else float(how.scale[0])
