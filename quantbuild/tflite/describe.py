"""Describes a .tflite from its flatbuffer alone: signature, ops, what stayed float, the runtime it needs."""

from __future__ import annotations

import collections
import struct
from typing import Any

from quantbuild.errors import StepError
from quantbuild.tflite import graph, inventory, listing, versions

_DAMAGE = (struct.error, IndexError, ValueError, TypeError, AttributeError, KeyError, OverflowError)
"""What the generated flatbuffer classes raise on a damaged file, which they do not verify."""
_DAMAGED = "the .tflite is truncated or corrupt; make it again"


def read(data: bytes) -> graph.ModelT:
    """Return the model of `data`. Raises StepError when the file is truncated or corrupt."""
    try:
        model = graph.read(data)
        if not model.subgraphs or any(part.tensors is None for part in model.subgraphs):
            raise StepError("the .tflite holds no graph; make it again")
    except _DAMAGE as error:
        raise StepError(_DAMAGED) from error
    return model


def describe(data: bytes) -> dict[str, Any]:
    """Return what an app needs to know of a .tflite, as JSON. Raises StepError when it is damaged.

    ``scale`` and ``zero_point`` are null where a tensor is not quantized. ``signature`` is "" for a file
    without one, whose inputs and outputs then have their tensors' names. ``minimal_runtime`` is null where it is not
    known, for the reasons in ``runtime_unknown``; ``noted_runtime`` is what the file says of itself.
    """
    try:
        return _describe(read(data), len(data))
    except _DAMAGE as error:
        raise StepError(_DAMAGED) from error


def _describe(model: graph.ModelT, size_bytes: int) -> dict[str, Any]:
    inputs, outputs = graph.signature_maps(model)
    needed = versions.op_versions(model)
    return {
        "signature": (graph.signature_keys(model) or [""])[0],
        "inputs": _ports(model, inputs),
        "outputs": _ports(model, outputs),
        "ops": operators(model),
        "op_versions": needed,
        "float_ops": float_ops(model),
        "conversions": inventory.conversions(model),
        "custom_ops": inventory.custom_ops(model),
        "nodes": listing.listing(model),
        "size_bytes": size_bytes,
        "sizes": inventory.sizes(model, size_bytes),
        "minimal_runtime": versions.minimal_runtime(needed),
        "runtime_unknown": versions.unknown(needed),
        "noted_runtime": versions.noted_runtime(model),
    }


def operators(model: graph.ModelT) -> dict[str, int]:
    """Return op name → count over every subgraph, sorted by name."""
    counted = collections.Counter(name for part in model.subgraphs for name in graph.op_names(model, part))
    return dict(sorted(counted.items()))


def float_ops(model: graph.ModelT) -> list[dict[str, str]]:
    """Return the ops that read or write float activations, as ``{"op", "name"}`` in execution order.

    The name is that of the op's first output. QUANTIZE of a model input and DEQUANTIZE to a model output
    are left out; those around an op that stayed float are not: they cost time too. An op in the body of a loop or a
    branch also has ``"subgraph"``, its body's name.
    """
    return [
        {"op": name, "name": _output_name(part, operator), **_place(model, number)}
        for number, part in enumerate(model.subgraphs)
        for operator, name in zip(part.operators or [], graph.op_names(model, part), strict=True)
        if _is_float(model, part, operator) and not inventory.is_border(model, part, operator, name)
    ]


def _ports(model: graph.ModelT, tensors: dict[str, int]) -> list[dict[str, Any]]:
    return [_port(name, graph.main(model).tensors[index]) for name, index in tensors.items()]


def _port(name: str, tensor: graph.TensorT) -> dict[str, Any]:
    how = tensor.quantization
    quantized = how is not None and how.scale is not None and len(how.scale) == 1
    return {
        "name": name,
        "tensor": graph.tensor_name(tensor),
        "shape": list(graph.shape(tensor)),
        "dtype": graph.type_name(tensor).lower(),
        "scale": float(how.scale[0]) if quantized else None,
        "zero_point": _zero_point(how) if quantized else None,
    }


def _zero_point(how: Any) -> int:
    # A zero point of 0 may be left out of the file.
    return int(how.zeroPoint[0]) if how.zeroPoint is not None and len(how.zeroPoint) else 0


def _is_float(model: graph.ModelT, part: graph.SubGraphT, operator: graph.OperatorT) -> bool:
    touched = graph.indices(operator.inputs) + graph.indices(operator.outputs)
    return any(inventory.is_float_activation(model, part.tensors[index]) for index in touched if index >= 0)


def _place(model: graph.ModelT, number: int) -> dict[str, str]:
    name = graph.text(model.subgraphs[number].name)
    return {"subgraph": name or f"subgraph {number}"} if number else {}


def _output_name(part: graph.SubGraphT, operator: graph.OperatorT) -> str:
    outputs = graph.indices(operator.outputs)
    return graph.tensor_name(part.tensors[outputs[0]]) if outputs else ""
