"""The outputs of a graph, taken off before its tensors change their types and put back after.

litert-quantizer 0.11 wires an op that reads a graph output to the dequantized copy of it and still gives it integer
results, or loses the output when an op beside it stays float. Where it does not see that such a tensor is an output,
it does neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from quantbuild.tflite import graph

Io: TypeAlias = Literal["float32", "int8", "uint8", "int16"]


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a graph gave before its outputs were taken off."""

    tensors: tuple[int, ...]
    taken: tuple[int, ...]
    """Those that are no outputs any more, in order: what ops read too."""
    inputs: tuple[int, ...]
    signatures: Any


def take_off(model: graph.ModelT) -> Outputs:
    """Remove from `model` the outputs that ops read too, let each other stand once, and its signatures for one."""
    main = graph.main(model)
    given, read = graph.indices(main.outputs), graph.consumers(main)
    taken = [tensor for tensor in dict.fromkeys(given) if tensor in read]
    found = Outputs(
        tensors=tuple(given),
        taken=tuple(taken),
        inputs=tuple(graph.indices(main.inputs)),
        signatures=model.signatureDefs,
    )
    main.outputs = [tensor for tensor in dict.fromkeys(given) if tensor not in taken]
    model.signatureDefs = [_stand_in(main)]
    return found


def _stand_in(main: graph.SubGraphT) -> Any:
    """Return a signature for what is left: litert-quantizer cannot do without one."""
    from ai_edge_litert import schema_py_generated as schema

    def entries(tensors: Any) -> list[Any]:
        return [schema.TensorMapT(name=f"p{tensor}", tensorIndex=tensor) for tensor in graph.indices(tensors)]

    return schema.SignatureDefT(
        signatureKey="p", subgraphIndex=0, inputs=entries(main.inputs), outputs=entries(main.outputs)
    )


def put_back(model: graph.ModelT, outputs: Outputs, io: Io, ranges: dict[int, tuple[float, float]]) -> None:
    """Give `model`, whose outputs are float, its own outputs and signatures again, in the type of `io`.

    `ranges` are those of the float model's tensors: an output that is float, or of 16 bits, may have to be quantized.
    """
    main = graph.main(model)
    inner: Io = "int8" if io == "uint8" else io
    left = iter([tensor if inner == "float32" else _integers(model, tensor) for tensor in graph.indices(main.outputs)])
    given = {tensor: tensor if tensor in outputs.taken else next(left) for tensor in dict.fromkeys(outputs.tensors)}
    now = {tensor: _as_asked(model, result, inner, ranges.get(tensor)) for tensor, result in given.items()}
    entered = dict(zip(outputs.inputs, graph.indices(main.inputs), strict=True))
    if io == "uint8":
        now = {tensor: _unsigned_output(model, result) for tensor, result in now.items()}
        entered = {tensor: _unsigned_input(model, source) for tensor, source in entered.items()}
    main.outputs = [now[tensor] for tensor in outputs.tensors]
    main.inputs = [entered[tensor] for tensor in outputs.inputs]
    for signature in outputs.signatures or []:
        if signature.subgraphIndex == 0:
            for entries, moved in ((signature.outputs, now), (signature.inputs, entered)):
                for entry in entries or []:
                    entry.tensorIndex = moved[entry.tensorIndex]
    model.signatureDefs = outputs.signatures


def _integers(model: graph.ModelT, output: int) -> int:
    """Return the integers that an output is dequantized from, and take that op away; else the output itself."""
    main = graph.main(model)
    for place, (operator, op) in enumerate(zip(main.operators, graph.op_names(model), strict=True)):
        if op == "DEQUANTIZE" and graph.indices(operator.outputs) == [output]:
            del main.operators[place]
            return graph.indices(operator.inputs)[0]
    return output


def _as_asked(model: graph.ModelT, tensor: int, io: Io, bounds: tuple[float, float] | None) -> int:
    """Return the tensor that holds `tensor`'s values in the type of `io`; appends the op that makes it."""
    kind = graph.type_name(graph.main(model).tensors[tensor]).lower()
    if kind == io or kind not in ("float32", "int8", "int16"):
        return tensor
    if io == "float32":
        return graph.add_cast(model, tensor, io)
    return graph.add_cast(model, tensor, io, affine(bounds or _held(model, tensor), io))


def _held(model: graph.ModelT, tensor: int) -> tuple[float, float]:
    """Return the range of a constant: no activation that may be an output is without one."""
    value = graph.constant(model, graph.main(model).tensors[tensor])
    assert value is not None, "every activation that may be an output has a range"
    return float(value.min()), float(value.max())


def _unsigned_output(model: graph.ModelT, tensor: int) -> int:
    """Return a uint8 copy of an int8 output, at the same scale: kernels have no way from int16 to uint8."""
    found = graph.main(model).tensors[tensor]
    if graph.type_name(found) != "INT8":
        return tensor
    return graph.add_cast(model, tensor, "uint8", _unsigned(found))


def _unsigned_input(model: graph.ModelT, tensor: int) -> int:
    """Return a uint8 input from which an int8 one is made."""
    found = graph.main(model).tensors[tensor]
    if graph.type_name(found) != "INT8":
        return tensor
    entered = graph.add_cast(model, tensor, "uint8", _unsigned(found))
    operators = graph.main(model).operators
    cast = operators.pop()
    cast.inputs, cast.outputs = [entered], [tensor]
    operators.insert(0, cast)
    return entered


def _unsigned(tensor: graph.TensorT) -> tuple[float, int]:
    return float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0]) + 128


def affine(bounds: tuple[float, float], kind: Io) -> tuple[float, int]:
    """Return scale and zero point of a range in an integer type, zero in it: symmetric for int16, else affine."""
    low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
    limits = np.iinfo(kind)
    if kind == "int16":
        return max(-low, high, 1e-9) / limits.max, 0
    scale = max(high - low, 1e-9) / 255
    return scale, int(np.clip(round(limits.min - low / scale), limits.min, limits.max))
