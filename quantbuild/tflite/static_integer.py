"""Integer weights and activations by litert-quantizer, from ranges of our own: 8 or 16 bits, op by op, or float.

Its recipe names ops by the tensors they write. Names of models need not be unique and may hold any character, so
tensors have names of ours while it works. It is never let calibrate: its merge of ranges is a moving average, which
depends on the samples' order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from quantbuild.errors import StepError
from quantbuild.tflite import bias_room, borders, graph, layers, weights
from quantbuild.tflite.ranges import Ranges

Bits = Literal[8, 16]

_OURS = re.compile(r"s(\d+)t(\d+)(?!\d)")
_MAIN = "^s0t"
"""The ops of the main graph: what a loop's body computes has no ranges."""
_BORDERS = r"^s0t\d"
"""Its inputs and outputs: the same names, in words of its own, since rules of equal expressions replace each other."""
_NUMBERS = frozenset({"FLOAT32", "INT8", "UINT8", "INT16"})
_CASTS = frozenset({"QUANTIZE", "DEQUANTIZE", "CAST"})
_POWER_TOLERANCE = 1.2e-3
"""Of a scale's binary logarithm; the kernels' own is 1e-3."""
_OFF_POWER = 2e-3
_HEADROOM = 2.0
"""Of a range in 16 bits over what calibration saw: one bit of 16. Values beyond a range are cut off, and unseen samples
have some: they cost 6 dB of the outputs' SQNR without it, up to 23, in the mean of 39 small networks calibrated on 40
samples; with it none, and seen samples lose nothing."""
_TABLES = frozenset({"ELU", "EXP", "GELU", "LOG", "RSQRT", "SQRT"})
"""Ops whose 16-bit kernels may read a table over the range of their input: a wider one makes it coarser (RSQRT: 5 dB)
at the outputs."""
_BROADCASTING = frozenset({"MAXIMUM", "MINIMUM", "SELECT_V2"})
"""Ops of one scale whose operands may have fewer axes than their result."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How each op computes: by default with activations of `bits`; node indices say which do not."""

    bits: Bits
    int16: frozenset[int] = field(default_factory=frozenset)
    float32: frozenset[int] = field(default_factory=frozenset)
    io: borders.Io = "float32"
    per_tensor_weights: bool = False


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """A quantized model, and by node index of the float model the op that its node became."""

    model: graph.ModelT
    operators: Mapping[int, int]


def quantize(data: bytes, ranges: Ranges, precision: Precision) -> Quantized:
    """Return the float model `data` quantized; an op without a kernel for its bits stays float, see `float_ops`.

    Weights have 8 bits, one scale a channel unless told otherwise. Raises StepError where litert-quantizer fails.
    """
    model = graph.read(data)
    if precision.bits == 16 or precision.int16:
        ranges = _with_headroom(model, ranges, precision)
        ranges = {tensor: _off_powers_of_two(*bounds) for tensor, bounds in ranges.items()}
    _raise_ranks(model)
    names = _rename(model)
    written = {_first_output(graph.main(model), operator): i for i, operator in enumerate(graph.main(model).operators)}
    outputs = borders.take_off(model)
    recipe, calibration = _recipe(model, precision), _calibration(model, ranges)
    quantized = weights.run(graph.write(model), recipe, calibration)
    borders.put_back(quantized, outputs, precision.io, ranges)
    _type_unread_outputs(quantized)
    main = graph.main(quantized)
    became = {written.get(_first_output(main, operator)): i for i, operator in enumerate(main.operators)}
    operators = {node: op for node, op in became.items() if node is not None}
    bias_room.make(model, quantized, operators)
    _name_again(quantized, names)
    _check(quantized)
    return Quantized(model=quantized, operators=operators)


def _with_headroom(model: graph.ModelT, ranges: Ranges, precision: Precision) -> Ranges:
    """Return `ranges`, wider for tensors that no int8 op and no int8 input or output touches, nor a table."""
    main = graph.main(model)
    narrow = {*graph.indices(main.inputs), *graph.indices(main.outputs)} if precision.io in ("int8", "uint8") else set()
    for index, (operator, op) in enumerate(zip(main.operators, graph.op_names(model), strict=True)):
        if op in _TABLES:
            narrow |= {*graph.indices(operator.inputs), *graph.indices(operator.outputs)}
        if precision.bits == 8 and index not in precision.int16 | precision.float32:
            narrow |= {*graph.indices(operator.inputs), *graph.indices(operator.outputs)}
    return {
        tensor: (low, high) if tensor in narrow else (low * _HEADROOM, high * _HEADROOM)
        for tensor, (low, high) in ranges.items()
    }


def _off_powers_of_two(low: float, high: float) -> tuple[float, float]:
    """Return a range a little wider where its 16-bit scale is a power of two to a kernel.

    Where those of both operands and the result are, ADD and SUB shift by whole bits, and refuse to run unless one
    operand has the result's scale: so does the sum of two tensors between −1 and 1. Source: CheckedLog2 in
    ``tensorflow/lite/kernels/internal/quantization_util.cc``, and ``kernels/add.cc``.
    """
    largest = max(-low, high)
    if largest <= 0:
        return low, high
    exponent = math.log2(largest / np.iinfo(np.int16).max)
    wider = 1 + _OFF_POWER if abs(exponent - round(exponent)) < _POWER_TOLERANCE else 1.0
    return low * wider, high * wider


def _raise_ranks(model: graph.ModelT) -> None:
    """Give constants that share their op's scale as many axes as its result has, ones before their own.

    litert-quantizer 0.11 refuses others: "Ranks of scales (5) and zps (5) must be the same as the tensor rank (1)".
    """
    main = graph.main(model)
    for number, (operator, op) in enumerate(zip(main.operators, graph.op_names(model), strict=True)):
        for place, tensor in enumerate(graph.indices(operator.inputs) if op in _BROADCASTING else ()):
            value, rank = (
                graph.constant(model, main.tensors[tensor]),
                len(graph.shape(main.tensors[operator.outputs[0]])),
            )
            if value is not None and value.dtype == np.float32 and value.ndim < rank:
                layers.set_constant(model, number, place, value.reshape((1,) * (rank - value.ndim) + value.shape))


def _first_output(part: graph.SubGraphT, operator: graph.OperatorT) -> str:
    outputs = graph.indices(operator.outputs)
    return graph.tensor_name(part.tensors[outputs[0]]) if outputs else ""


def _rename(model: graph.ModelT) -> dict[tuple[int, int], str]:
    """Give every tensor a name of its own; return (subgraph, tensor) → true name."""
    names = {}
    for number, part in enumerate(model.subgraphs):
        for index, tensor in enumerate(part.tensors):
            names[number, index] = graph.tensor_name(tensor)
            tensor.name = f"s{number}t{index}".encode()
    return names


def _name_again(model: graph.ModelT, names: Mapping[tuple[int, int], str]) -> None:
    """Put the true name into the place of ours; what was appended to it stays."""
    for part in model.subgraphs:
        for tensor in part.tensors:
            found = _OURS.match(graph.tensor_name(tensor))
            if found:
                rest = graph.tensor_name(tensor)[found.end() :]
                tensor.name = (names[int(found[1]), int(found[2])] + rest).encode()


def _calibration(model: graph.ModelT, ranges: Ranges) -> dict[str, dict[str, Any]]:
    """Return `ranges` in the shape of litert-quantizer's own calibration result."""
    tensors = graph.main(model).tensors
    return {
        graph.tensor_name(tensors[tensor]): {
            side: np.full((1,) * len(graph.shape(tensors[tensor])), bound, np.float32)
            for side, bound in (("min", low), ("max", high))
        }
        for tensor, (low, high) in ranges.items()
    }


def _recipe(model: graph.ModelT, precision: Precision) -> list[dict[str, Any]]:
    """Return the rules; a later one goes before an earlier one."""
    from litert_quantizer import qtyping, recipe_manager

    names, rules = qtyping.TFLOperationName, recipe_manager.RecipeManager()
    no_quantize, granularity = recipe_manager.AlgorithmName.NO_QUANTIZE, qtyping.QuantGranularity
    kind = granularity.TENSORWISE if precision.per_tensor_weights else granularity.CHANNELWISE
    rules.add_static_config(_MAIN, names.ALL_SUPPORTED, precision.bits, 8, kind)
    if precision.int16:
        rules.add_static_config(_ops(model, precision.int16), names.ALL_SUPPORTED, 16, 8, kind)
    # The kernels read one scale for all of a constant operand, whatever the file says.
    products = _numbered(model, "BATCH_MATMUL")
    for chosen, bits in ((products - precision.int16, precision.bits), (products & precision.int16, 16)):
        if chosen:
            rules.add_static_config(_ops(model, chosen), names.BATCH_MATMUL, bits, 8, granularity.TENSORWISE)
    if precision.float32:
        rules.add_quantization_config(_ops(model, precision.float32), names.ALL_SUPPORTED, algorithm_key=no_quantize)
    # Outputs are put right after.
    if precision.io == "float32":
        rules.add_quantization_config(_BORDERS, names.INPUT, algorithm_key=no_quantize)
    else:
        rules.add_static_config(_BORDERS, names.INPUT, 16 if precision.io == "int16" else 8, 8)
    rules.add_quantization_config(_BORDERS, names.OUTPUT, algorithm_key=no_quantize)
    recipe: list[dict[str, Any]] = rules.get_quantization_recipe()
    return recipe


def _numbered(model: graph.ModelT, op: str) -> frozenset[int]:
    return frozenset(index for index, found in enumerate(graph.op_names(model)) if found == op)


def _ops(model: graph.ModelT, indices: Iterable[int]) -> str:
    """Return the expression for the scopes of ops: the names of all they write, each with a ``;`` behind it."""
    main = graph.main(model)
    first = [_first_output(main, main.operators[index]) for index in sorted(indices)]
    return f"^(?:{'|'.join(first)});"


def _type_unread_outputs(model: graph.ModelT) -> None:
    """Give results that nothing reads the type of their siblings: left float, XNNPACK refuses the op."""
    main = graph.main(model)
    read = set(graph.consumers(main)) | set(graph.indices(main.outputs))
    for operator, op in zip(main.operators, graph.op_names(model), strict=True):
        outputs = graph.indices(operator.outputs)
        typed = [main.tensors[tensor] for tensor in outputs if tensor in read]
        for tensor in outputs if op not in _CASTS and typed else ():
            if tensor not in read and graph.type_name(main.tensors[tensor]) == "FLOAT32":
                main.tensors[tensor].type = typed[0].type
                main.tensors[tensor].quantization = typed[0].quantization


def _check(model: graph.ModelT) -> None:
    """Raise StepError for an op of mixed types: a runtime may run it and give nonsense."""
    main = graph.main(model)
    for operator, op in zip(main.operators, graph.op_names(model), strict=True):
        touched = graph.indices(operator.inputs) + graph.indices(operator.outputs)
        tensors = [main.tensors[tensor] for tensor in touched if tensor >= 0]
        kinds = {graph.type_name(tensor) for tensor in tensors if not graph.is_constant(model, tensor)} & _NUMBERS
        if op not in _CASTS and len(kinds) > 1:
            name = graph.tensor_name(main.tensors[graph.indices(operator.outputs)[0]])
            raise StepError(
                f'litert-quantizer gave {op} "{name}" activations of several types ({", ".join(sorted(kinds))}); '
                'name the op in keep_float, or use scheme = "int8" without keep_int16'
            )


def check_integers(model: graph.ModelT, io: str) -> None:
    """Raise StepError where no op computes on integers: the file would be float32's with casts in it."""
    main = graph.main(model)
    for operator, op in zip(main.operators, graph.op_names(model), strict=True):
        outputs = [main.tensors[tensor] for tensor in graph.indices(operator.outputs)]
        if op not in _CASTS and any(graph.type_name(tensor) in ("INT8", "INT16") for tensor in outputs):
            return
    ops = ", ".join(sorted(set(graph.op_names(model)) - _CASTS))
    raise StepError(f"no op of the model has an {io} kernel (its ops: {ops}); use float16, or remove the variant")
