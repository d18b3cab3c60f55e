"""What a .tflite holds beside its arithmetic: conversions between floats and integers, custom ops, bytes by tensor."""

from __future__ import annotations

import collections
from typing import Any

from quantbuild.tflite import graph

CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
FLOATS = frozenset({"FLOAT16", "BFLOAT16", "FLOAT32", "FLOAT64"})
LARGEST_SHOWN = 10
FLEX = "Flex"
"""What the name of a TensorFlow op begins with; it needs TensorFlow's own kernels in the app."""

_BORDER = {"QUANTIZE": "inputs", "DEQUANTIZE": "outputs"}


def conversions(model: graph.ModelT) -> dict[str, Any]:
    """Return the QUANTIZE and DEQUANTIZE ops inside the graph; each costs time and rounds once more.

    ``{"pairs", "ops": [{"op", "name", "from", "to"}]}`` in execution order, named by their result. Left out are
    those of the model's own inputs and outputs, and those that unpack constants. A pair is one stretch of float ops
    that is entered by a DEQUANTIZE and left by a QUANTIZE.
    """
    ops = []
    pairs = 0
    for part in model.subgraphs:
        inner = [operator for operator in part.operators or [] if _is_inner(model, part, operator)]
        ops += [_conversion(model, part, operator) for operator in inner]
        pairs += _pairs(model, part, inner)
    return {"pairs": pairs, "ops": ops}


def is_border(model: graph.ModelT, part: graph.SubGraphT, operator: graph.OperatorT, name: str) -> bool:
    """Whether an op turns a model input into integers, or integers into a model output."""
    side = _BORDER.get(name)
    if side is None or part is not graph.main(model):
        return False
    ends = graph.indices(getattr(operator, side))
    return bool(ends) and set(ends) <= set(graph.indices(getattr(part, side)))


def is_float_activation(model: graph.ModelT, tensor: graph.TensorT) -> bool:
    """Whether a tensor is computed when the model runs, in floats."""
    return graph.type_name(tensor) in FLOATS and not graph.is_constant(model, tensor)


def custom_ops(model: graph.ModelT) -> list[dict[str, Any]]:
    """Return ``{"op", "count", "flex"}`` of each op that is none of TFLite's own, sorted by name."""
    counted = collections.Counter(
        graph.op_name(model, operator)
        for part in model.subgraphs
        for operator in part.operators or []
        if graph.is_custom(model, operator)
    )
    return [{"op": op, "count": counted[op], "flex": op.startswith(FLEX)} for op in sorted(counted)]


def sizes(model: graph.ModelT, size_bytes: int) -> dict[str, Any]:
    """Return where a file's bytes are.

    ``{"constant_bytes", "other_bytes", "largest": [{"name", "dtype", "bytes", "share"}]}``. Constants that tensors
    share count once, under the first one's name. ``other_bytes`` is the graph itself, names and metadata; ``share`` is
    of the file.
    """
    held: dict[int, tuple[str, str, int]] = {}
    for part in model.subgraphs:
        for tensor in part.tensors:
            data = model.buffers[tensor.buffer].data
            if data is not None and len(data) > 0:
                found = (graph.tensor_name(tensor), graph.type_name(tensor).lower(), len(data))
                held.setdefault(int(tensor.buffer), found)
    total = sum(count for *_, count in held.values())
    largest = sorted(held.values(), key=lambda found: (-found[2], found[0]))[:LARGEST_SHOWN]
    return {
        "constant_bytes": total,
        "other_bytes": size_bytes - total,
        "largest": [
            {"name": name, "dtype": dtype, "bytes": count, "share": count / size_bytes}
            for name, dtype, count in largest
        ],
    }


def _is_inner(model: graph.ModelT, part: graph.SubGraphT, operator: graph.OperatorT) -> bool:
    name = graph.op_name(model, operator)
    if name not in CONVERSIONS or is_border(model, part, operator, name):
        return False
    return not graph.is_constant(model, part.tensors[graph.indices(operator.inputs)[0]])


def _conversion(model: graph.ModelT, part: graph.SubGraphT, operator: graph.OperatorT) -> dict[str, str]:
    before, after = (part.tensors[graph.indices(side)[0]] for side in (operator.inputs, operator.outputs))
    return {
        "op": graph.op_name(model, operator),
        "name": graph.tensor_name(after),
        "from": graph.type_name(before).lower(),
        "to": graph.type_name(after).lower(),
    }


def _pairs(model: graph.ModelT, part: graph.SubGraphT, inner: list[graph.OperatorT]) -> int:
    """Count the stretches of float ops that an inner DEQUANTIZE enters and an inner QUANTIZE leaves."""
    stretch = _stretches(model, part)
    entered = {stretch.get(tensor) for operator in inner for tensor in graph.indices(operator.outputs)}
    left = {stretch.get(tensor) for operator in inner for tensor in graph.indices(operator.inputs)}
    return len((entered & left) - {None})


def _stretches(model: graph.ModelT, part: graph.SubGraphT) -> dict[int, int]:
    """Return float activation → the stretch it belongs to: those that ops other than conversions connect."""
    leader = {index: index for index, tensor in enumerate(part.tensors) if is_float_activation(model, tensor)}

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    for operator in part.operators or []:
        if graph.op_name(model, operator) not in CONVERSIONS:
            touched = graph.indices(operator.inputs) + graph.indices(operator.outputs)
            first, *others = [index for index in touched if index in leader] or [-1]
            for index in others:
                leader[find(index)] = find(first)
    return {index: find(index) for index in leader}
