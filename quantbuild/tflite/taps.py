"""Where a convolution's weights meet its input: for each tap, the share of results for which it lies inside.

A tap that lies on the padding reads zero, so the mean it sees is the channel's mean times that share: exact
where the channel has the same mean at every place (at a border it need not), and exact for each sum over places.
Source: TFLite's own padding, ``tensorflow/lite/kernels/padding.h``: ComputeOutSize and ComputePadding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from quantbuild.tflite import graph
from quantbuild.tflite.layers import Layer

_SPATIAL = (1, 2)
"""The axes of height and width, of activations and of OHWI and 1HWO weights alike."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The tensor whose values a layer reads, and how many zeros a PAD before it lays around."""

    tensor: int
    before: tuple[int, int] = (0, 0)
    """Zeros above and to the left."""


def source(model: graph.ModelT, layer: Layer) -> Source:
    """Return what stands before `layer`: its input, or what a PAD of height and width made that from.

    The padded tensor's own mean would count the zeros, which not every tap reads alike.
    """
    main = graph.main(model)
    number = graph.producers(main).get(layer.input)
    if layer.op == "FULLY_CONNECTED" or number is None or graph.op_name(model, main.operators[number]) != "PAD":
        return Source(tensor=layer.input)
    inner, amounts = graph.indices(main.operators[number].inputs)
    around = graph.constant(model, main.tensors[amounts])
    if around is None or len(around) != 4 or around[0].any() or around[3].any():
        return Source(tensor=layer.input)
    return Source(tensor=inner, before=(int(around[1, 0]), int(around[2, 0])))


def shares(model: graph.ModelT, layer: Layer, given: Source) -> NDArray[np.float64]:
    """Return the share of each tap, in a shape that broadcasts against the layer's weights; 1 without taps."""
    if layer.op == "FULLY_CONNECTED":
        return np.ones((1, 1))
    tensors = graph.main(model).tensors
    operator = graph.main(model).operators[layer.operator]
    shapes = {t: graph.shape(tensors[t]) for t in (given.tensor, layer.input, layer.output)}
    kernel = _kernel(model, operator, layer)
    along = []
    for place, axis in enumerate(_SPATIAL):
        stride, dilation, same = _steps(operator.builtinOptions, place)
        inner, outer, made = (shapes[t][axis] for t in (given.tensor, layer.input, layer.output))
        if layer.op == "TRANSPOSE_CONV":
            along.append(_transposed(inner, made, kernel[place], stride, same))
        else:
            offset = _padding(outer, made, kernel[place], stride, dilation) if same else 0
            first = -offset - given.before[place]
            along.append(_inside(inner, made, first + np.arange(kernel[place]) * dilation, stride))
    shares: NDArray[np.float64] = (along[0][:, None] * along[1][None, :])[None, :, :, None]
    return shares


def _inside(size: int, made: int, first: NDArray[np.int64], stride: int) -> NDArray[np.float64]:
    """Return the share of `made` results for which tap k, at ``first[k] + result × stride``, lies in `size`."""
    read = first[:, None] + np.arange(made)[None, :] * stride
    shares: NDArray[np.float64] = np.mean((read >= 0) & (read < size), axis=1, dtype=np.float64)
    return shares


def _transposed(size: int, made: int, kernel: int, stride: int, same: bool) -> NDArray[np.float64]:
    """Return how many of `size` inputs tap k carries to a result, over the number of results."""
    offset = _padding(made, size, kernel, stride, 1) if same else 0
    written = np.arange(size)[None, :] * stride + np.arange(kernel)[:, None] - offset
    carried: NDArray[np.float64] = np.sum((written >= 0) & (written < made), axis=1, dtype=np.float64)
    return carried / made


def _padding(size: int, made: int, kernel: int, stride: int, dilation: int) -> int:
    """Zeros that SAME lays before the first of `size` elements."""
    return max((made - 1) * stride + (kernel - 1) * dilation + 1 - size, 0) // 2


def _kernel(model: graph.ModelT, operator: graph.OperatorT, layer: Layer) -> tuple[int, int]:
    weights = graph.main(model).tensors[graph.indices(operator.inputs)[1]]
    height, width = (graph.shape(weights)[axis] for axis in _SPATIAL)
    return height, width


def _steps(options: Any, place: int) -> tuple[int, int, bool]:
    """Return stride, dilation and whether padding is SAME, along height (0) or width (1)."""
    letter = "HW"[place]
    stride = int(getattr(options, f"stride{letter}"))
    dilation = int(getattr(options, f"dilation{letter}Factor", 1))
    return stride, dilation, options.padding == schema.Padding.SAME
