"""What the lint asks about a graph: what its first layers do to an input, and which tensors' ranges are no matter."""

from __future__ import annotations

import numpy as np

from quantbuild.tflite import graph

FIXED_SCALE = frozenset({"SOFTMAX", "LOGISTIC", "TANH", "L2_NORMALIZATION", "LOG_SOFTMAX"})
"""Ops whose int8 result has one scale by the specification, whatever was calibrated."""
_UNMOVED = frozenset({"RESHAPE", "PAD", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE"})
_MOST_CHANNELS = 4


def scaling(model: graph.ModelT, tensor: int) -> tuple[float, float] | None:
    """Return (factor, offset) of what the first layers make of an input, x · factor + offset; None where they do not.

    A constant for each channel counts by its mean. Only a chain of MUL, DIV, ADD and SUB with constants is followed;
    the converter folds it into the weights of a first convolution that does not pad.
    """
    main = graph.main(model)
    readers = graph.consumers(main)
    factor, offset, steps = 1.0, 0.0, 0
    while len(readers.get(tensor, ())) == 1:
        operator = main.operators[readers[tensor][0]]
        if graph.op_name(model, operator) not in _UNMOVED:
            effect = _effect(model, operator, tensor)
            if effect is None:
                break
            factor, offset, steps = factor * effect[0], offset * effect[0] + effect[1], steps + 1
        tensor = graph.indices(operator.outputs)[0]
    return (factor, offset) if steps else None


def ranged_rows(model: graph.ModelT, tensors: list[int]) -> list[int]:
    """Return the places in `tensors` of those whose scale follows from their calibrated range, inputs left out."""
    main = graph.main(model)
    fixed = {
        tensor
        for operator, name in zip(main.operators or [], graph.op_names(model), strict=True)
        if name in FIXED_SCALE
        for tensor in graph.indices(operator.outputs)
    }
    left_out = fixed | set(graph.indices(main.inputs))
    return [row for row, tensor in enumerate(tensors) if tensor not in left_out]


def classes(model: graph.ModelT) -> int | None:
    """Return how many classes the model tells apart: the last axis of its only output; None where there is no such."""
    outputs = graph.signature_maps(model)[1]
    if len(outputs) != 1:
        return None
    shape = graph.shape(graph.main(model).tensors[next(iter(outputs.values()))])
    return shape[-1] if shape and shape[-1] > 1 and int(np.prod(shape)) == shape[-1] else None


def _effect(model: graph.ModelT, operator: graph.OperatorT, tensor: int) -> tuple[float, float] | None:
    """Return (factor, offset) of one op on `tensor`; None where it is another than one with a constant."""
    inputs = graph.indices(operator.inputs)
    name = graph.op_name(model, operator)
    if len(inputs) != 2 or (inputs[0] != tensor and name not in ("MUL", "ADD")):
        return None
    value = graph.constant(model, graph.main(model).tensors[inputs[1] if inputs[0] == tensor else inputs[0]])
    if value is None or not 1 <= value.size <= _MOST_CHANNELS or value.dtype.kind != "f":
        return None
    number = float(value.mean())
    effects = {
        "MUL": (number, 0.0),
        "DIV": (1 / number if number else 0.0, 0.0),
        "ADD": (1.0, number),
        "SUB": (1.0, -number),
    }
    return effects.get(name)
