"""Finds the tensors whose channels can be scaled together without a change to what a float graph computes.

A layer (an op with constant weights) takes a scale of its input or output into its weights. Between layers stand
ops that a positive scale passes through, ``f(s·x) = s·f(x)``; they tie their tensors to one scale. Every other
op holds its tensors to a scale of one, and so do the graph's inputs and outputs.
Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019, section 4.1.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from quantbuild.tflite import graph, layers
from quantbuild.tflite.layers import Layer

_PASSING = frozenset({"RELU", "LEAKY_RELU", "PRELU", "MAX_POOL_2D", "AVERAGE_POOL_2D", "PAD", "RESHAPE", "SQUEEZE",
                      "EXPAND_DIMS", "MEAN", "SUM", "REDUCE_MAX", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR",
                      "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"})  # fmt: skip
"""Ops of one float activation, which keeps its channels where they are or changes only the order of rows."""
_REDUCING = frozenset({"MEAN", "SUM", "REDUCE_MAX"})
_ELEMENTWISE = frozenset({"ADD", "SUB", "MAXIMUM", "MINIMUM"})
"""Ops with ``f(s·x, s·y) = s·f(x, y)``, where y may be a constant, which then is scaled too."""
_HOMOGENEOUS = frozenset({"NONE", "RELU"})
"""Fused activations that a positive scale passes through. RELU6 does not: its limit would have to move."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Tensors that must share one scale for each channel, and everything that takes it up."""

    tensors: tuple[int, ...]
    """In the order of execution."""
    channels: int
    """Length C of the scale; a tensor's last axis is C or a multiple of it, over which the scale recurs."""
    producers: tuple[Layer, ...]
    """Layers whose result is among the tensors: their output channels are multiplied by the scale."""
    consumers: tuple[Layer, ...]
    """Layers that read one of the tensors: their input channels are divided by it."""
    constants: tuple[tuple[int, int], ...]
    """(op, place among its inputs) of constants that are added to a tensor: multiplied by it too."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The groups of a model, in the order of execution, and why the results of its other layers stay as they are."""

    groups: tuple[Group, ...]
    held: dict[str, int]
    """Why → of how many layers: a fused activation, an op that the result meets, or the end of the graph."""


def find(model: graph.ModelT) -> Found:
    """Return every group between two layers, or more, of `model`."""
    return _Ties(model).found()


class _Ties:
    """Union of the tensors that every op ties together, and those that must stay as they are."""

    def __init__(self, model: graph.ModelT) -> None:
        self._model, self._main = model, graph.main(model)
        self._tensors = dict.fromkeys(graph.activations(model))
        self._parent = {tensor: tensor for tensor in self._tensors}
        self._fixed: dict[int, str] = {}
        self._constants: list[tuple[int, int, int]] = []
        self._layers = {layer.operator: layer for layer in layers.find(model)}
        self._hold(graph.indices(self._main.inputs) + graph.indices(self._main.outputs), "an input or output")
        for number, (operator, op) in enumerate(zip(self._main.operators or [], graph.op_names(model), strict=True)):
            self._visit(number, operator, op)

    def found(self) -> Found:
        members: dict[int, list[int]] = {}
        for tensor in self._tensors:
            members.setdefault(self._root(tensor), []).append(tensor)
        reasons: dict[int, str] = {}
        for tensor, why in self._fixed.items():
            reasons.setdefault(self._root(tensor), why)
        free = [self._group(tensors) for root, tensors in members.items() if root not in reasons]
        roots = [self._root(layer.output) for layer in self._layers.values()]
        held = Counter(reasons[root] for root in roots if root in reasons)
        return Found(
            groups=tuple(group for group in free if group.channels > 1 and group.producers and group.consumers),
            held=dict(sorted(held.items())),
        )

    def _group(self, tensors: list[int]) -> Group:
        inside = set(tensors)
        return Group(
            tensors=tuple(tensors),
            # A reshape keeps the order of the elements, so a scale that recurs with this period fits every shape.
            channels=math.gcd(*(self._channels(tensor) for tensor in tensors)),
            producers=tuple(layer for layer in self._layers.values() if layer.output in inside),
            consumers=tuple(layer for layer in self._layers.values() if layer.input in inside),
            constants=tuple((number, place) for number, place, tensor in self._constants if tensor in inside),
        )

    def _visit(self, number: int, operator: graph.OperatorT, op: str) -> None:
        inputs = [tensor for tensor in graph.indices(operator.inputs) if tensor >= 0]
        outputs = graph.indices(operator.outputs)
        fused = layers.activation(operator)
        if number in self._layers:
            self._hold([] if fused in _HOMOGENEOUS else outputs, fused)
        elif fused not in _HOMOGENEOUS:
            self._hold(inputs + outputs, fused)
        elif op in _PASSING and self._passes(operator, op):
            self._tie([inputs[0], *outputs])
        elif op in _ELEMENTWISE and self._fits(inputs, outputs[0]):
            self._tie([tensor for tensor in [*inputs, *outputs] if tensor in self._tensors])
            self._constants += [(number, place, outputs[0]) for place in (0, 1) if self._is_constant(inputs[place])]
        elif op == "MUL" and (factor := self._factor(inputs, outputs[0])) is not None:
            self._hold([factor], op)
            self._tie([next(tensor for tensor in inputs if tensor != factor), *outputs])
        else:
            self._hold(inputs + outputs, op)

    def _passes(self, operator: graph.OperatorT, op: str) -> bool:
        """Whether the channels stay apart: nothing is padded to them, or reduced over them."""
        inputs = graph.indices(operator.inputs)
        if inputs[0] not in self._tensors:
            return False
        tensors = self._main.tensors
        if any(-1 in graph.indices(tensors[tensor].shapeSignature) for tensor in (inputs[0], operator.outputs[0])):
            return False
        if op == "PAD":
            amounts = graph.constant(self._model, tensors[inputs[1]])
            return amounts is not None and not amounts[-1].any()
        if op in _REDUCING:
            axes, rank = graph.constant(self._model, tensors[inputs[1]]), len(graph.shape(tensors[inputs[0]]))
            return axes is not None and rank - 1 not in {int(axis) % rank for axis in axes.reshape(-1)}
        if op == "PRELU":
            return self._is_constant(inputs[1])
        return True

    def _fits(self, inputs: list[int], output: int) -> bool:
        """Whether both operands have the result's channels; one may be a constant, not both."""
        known = all(tensor in self._tensors or self._is_constant(tensor) for tensor in inputs)
        return known and all(self._channels(tensor) == self._channels(output) for tensor in inputs)

    def _factor(self, inputs: list[int], output: int) -> int | None:
        """Return the operand of a product that stays as it is: a constant, or a gate of fewer elements."""
        for factor, other in (inputs, inputs[::-1]):
            if other in self._tensors and self._channels(other) == self._channels(output) and factor != other:
                smaller = math.prod(self._shape(factor)) < math.prod(self._shape(other))
                if self._is_constant(factor) or (factor in self._tensors and smaller):
                    return factor
        return None

    def _is_constant(self, tensor: int) -> bool:
        found = self._main.tensors[tensor]
        return graph.is_constant(self._model, found) and graph.type_name(found) == "FLOAT32"

    def _shape(self, tensor: int) -> tuple[int, ...]:
        return graph.shape(self._main.tensors[tensor])

    def _channels(self, tensor: int) -> int:
        return (self._shape(tensor)[-1:] or (1,))[0]

    def _hold(self, tensors: list[int], why: str) -> None:
        for tensor in tensors:
            if tensor in self._tensors:
                self._fixed.setdefault(tensor, why)

    def _tie(self, tensors: list[int]) -> None:
        for tensor in tensors[1:]:
            self._parent[self._root(tensor)] = self._root(tensors[0])

    def _root(self, tensor: int) -> int:
        while self._parent[tensor] != tensor:
            tensor = self._parent[tensor]
        return tensor
