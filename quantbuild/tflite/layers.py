"""Ops with constant weights: where their channels lie, and how their constants are replaced without harm to others.

Weights are OHWI for CONV_2D and TRANSPOSE_CONV, 1HWO for DEPTHWISE_CONV_2D, OI for FULLY_CONNECTED.
Source: the operators' own kernels, ``tensorflow/lite/kernels/{conv,depthwise_conv,fully_connected,transpose_conv}.cc``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from quantbuild.tflite import graph


class Places(NamedTuple):
    """Positions among an op's inputs, and the axis of its weights that counts output channels."""

    input: int
    weights: int
    bias: int
    output_axis: int


_PLACES = {
    "CONV_2D": Places(0, 1, 2, 0),
    "DEPTHWISE_CONV_2D": Places(0, 1, 2, 3),
    "FULLY_CONNECTED": Places(0, 1, 2, 0),
    "TRANSPOSE_CONV": Places(2, 1, 3, 0),
}
_ACTIVATIONS = {code: name for name, code in vars(schema.ActivationFunctionType).items() if name.isupper()}
_BIAS_VERSIONS = {"TRANSPOSE_CONV": 3}
"""Ops that take a bias from this version on only."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One such op of the main subgraph. `input` and `output` are tensor indices."""

    operator: int
    """Index of the op."""
    op: str
    name: str
    """Of its output."""
    input: int
    output: int
    activation: str
    """The fused one, as the schema names it: NONE, RELU, RELU6, …"""

    @property
    def output_axis(self) -> int:
        """The axis of the weights that counts output channels."""
        return _PLACES[self.op].output_axis


def find(model: graph.ModelT) -> list[Layer]:
    """Return every op of the main subgraph with float32 constants for weights and, if it has one, bias."""
    main, found = graph.main(model), []
    for number, (operator, op) in enumerate(zip(main.operators or [], graph.op_names(model), strict=True)):
        if op in _PLACES:
            layer = _layer(main, number, operator, op)
            found += [layer] if _is_plain(model, operator, layer) else []
    return found


def candidates(model: graph.ModelT) -> dict[int, str]:
    """Return op number → name of its output for every op of a layer's kind, plain or not."""
    main = graph.main(model)
    named = enumerate(zip(main.operators or [], graph.op_names(model), strict=True))
    return {number: _output_name(main, operator) for number, (operator, op) in named if op in _PLACES}


def activation(operator: graph.OperatorT) -> str:
    """Return the fused activation function of any op, NONE where it has none."""
    code = getattr(operator.builtinOptions, "fusedActivationFunction", schema.ActivationFunctionType.NONE)
    return str(_ACTIVATIONS.get(code, f"UNKNOWN_{code}"))


def places(layer: Layer) -> Places:
    """Return where a layer's op has its input, weights and bias."""
    return _PLACES[layer.op]


def weights(model: graph.ModelT, layer: Layer) -> NDArray[np.float32]:
    """Return a layer's weights, read-only."""
    value = _read(model, layer, _PLACES[layer.op].weights)
    assert value is not None
    return value


def bias(model: graph.ModelT, layer: Layer) -> NDArray[np.float32] | None:
    """Return a layer's bias [output channels], read-only; None where it has none."""
    return _read(model, layer, _PLACES[layer.op].bias)


def over_outputs(layer: Layer, values: NDArray[Any], rank: int) -> NDArray[Any]:
    """Return `values` [output channels] in a shape that broadcasts against weights of `rank` axes."""
    shape = [1] * rank
    shape[layer.output_axis] = -1
    return values.reshape(shape)


def over_inputs(layer: Layer, values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return `values` [input channels] in a shape that broadcasts against weights of `shape`.

    A depthwise weight of output channel o reads input channel o // multiplier; one of a grouped
    convolution reads the channels of its own group; FULLY_CONNECTED flattens its input, so that the
    channels recur.
    """
    if layer.op == "DEPTHWISE_CONV_2D":
        return np.repeat(values, shape[3] // len(values)).reshape(1, 1, 1, -1)
    if layer.op == "FULLY_CONNECTED":
        return np.tile(values, shape[1] // len(values)).reshape(1, -1)
    groups = len(values) // shape[3]
    return np.repeat(values.reshape(groups, shape[3]), shape[0] // groups, axis=0).reshape(shape[0], 1, 1, shape[3])


def by_input(layer: Layer, values: NDArray[Any], channels: int) -> NDArray[Any]:
    """Return the largest of `values`, laid out like the layer's weights, for each of its input channels."""
    if layer.op == "DEPTHWISE_CONV_2D":
        largest: NDArray[Any] = values.reshape(-1, channels, values.shape[3] // channels).max(axis=(0, 2))
    elif layer.op == "FULLY_CONNECTED":
        largest = values.reshape(-1, channels).max(axis=0)
    else:
        largest = values.reshape(channels // values.shape[3], -1, values.shape[3]).max(axis=1).reshape(-1)
    return largest


def set_weights(model: graph.ModelT, layer: Layer, value: NDArray[np.float32]) -> None:
    """Replace a layer's weights; another op that reads the same constant keeps the old ones."""
    set_constant(model, layer.operator, _PLACES[layer.op].weights, value)


def set_bias(model: graph.ModelT, layer: Layer, value: NDArray[np.float32]) -> None:
    """Replace a layer's bias, or give it one; another op that reads the same constant keeps the old one."""
    main, place = graph.main(model), _PLACES[layer.op].bias
    operator = main.operators[layer.operator]
    inputs = graph.indices(operator.inputs)
    if len(inputs) > place and inputs[place] >= 0:
        set_constant(model, layer.operator, place, value)
        return
    operator.inputs = [*inputs[:place], graph.add_constant(model, main, f"{layer.name}/bias", value)]
    if layer.op in _BIAS_VERSIONS:
        operator.opcodeIndex = graph.add_opcode(model, layer.op, _BIAS_VERSIONS[layer.op])


def set_constant(model: graph.ModelT, operator: int, place: int, value: NDArray[Any]) -> graph.TensorT:
    """Replace the constant that op `operator` of the main subgraph reads at `place` of its inputs; return its tensor.

    `value` has the constant's dtype. A tensor that something else reads too, and a buffer that another tensor shares,
    are left as they are and a copy is made.
    """
    main = graph.main(model)
    inputs = graph.indices(main.operators[operator].inputs)
    tensor = main.tensors[inputs[place]]
    if _readers(main, inputs[place]) > 1:
        inputs[place] = graph.add_constant(model, main, graph.tensor_name(tensor), value)
        main.operators[operator].inputs = inputs
        return main.tensors[inputs[place]]
    if _sharers(model, tensor.buffer) > 1:
        model.buffers.append(schema.BufferT())
        tensor.buffer = len(model.buffers) - 1
    tensor.shape = list(value.shape)
    model.buffers[tensor.buffer].data = np.frombuffer(value.tobytes(), np.uint8)
    return tensor


def _readers(main: graph.SubGraphT, tensor: int) -> int:
    """How many inputs of ops, and outputs of the graph, a tensor is."""
    read = [index for operator in main.operators for index in graph.indices(operator.inputs)]
    return (read + graph.indices(main.outputs)).count(tensor)


def _sharers(model: graph.ModelT, buffer: int) -> int:
    """How many tensors, and entries of the metadata, keep their data in a buffer."""
    buffers = [tensor.buffer for part in model.subgraphs for tensor in part.tensors]
    return (buffers + [entry.buffer for entry in model.metadata or []]).count(buffer)


def _read(model: graph.ModelT, layer: Layer, place: int) -> NDArray[np.float32] | None:
    # Looked up anew each time: replacing a shared constant gives the op another tensor.
    main = graph.main(model)
    inputs = graph.indices(main.operators[layer.operator].inputs)
    return graph.constant(model, main.tensors[inputs[place]]) if len(inputs) > place and inputs[place] >= 0 else None


def _output_name(main: graph.SubGraphT, operator: graph.OperatorT) -> str:
    return graph.tensor_name(main.tensors[graph.indices(operator.outputs)[0]])


def _layer(main: graph.SubGraphT, number: int, operator: graph.OperatorT, op: str) -> Layer:
    return Layer(
        operator=number,
        op=op,
        name=_output_name(main, operator),
        input=graph.indices(operator.inputs)[_PLACES[op].input],
        output=graph.indices(operator.outputs)[0],
        activation=activation(operator),
    )


def _is_plain(model: graph.ModelT, operator: graph.OperatorT, layer: Layer) -> bool:
    """Whether it is float32 throughout, and its constants can be read as they lie and fit its channels."""
    tensors, places, inputs = graph.main(model).tensors, _PLACES[layer.op], graph.indices(operator.inputs)
    named = [inputs[place] for place in (places.weights, places.bias) if place < len(inputs)]
    constants = [tensors[tensor] for tensor in named if tensor >= 0]
    ends = [tensors[layer.input], tensors[layer.output]]
    if getattr(operator.builtinOptions, "weightsFormat", 0) != 0:
        return False  # laid out for one kernel
    if any(graph.type_name(tensor) != "FLOAT32" for tensor in constants + ends):
        return False
    if any(tensor.sparsity is not None or not graph.is_constant(model, tensor) for tensor in constants):
        return False
    taken, given = graph.shape(constants[0])[-1], graph.shape(ends[0])[-1]
    # A convolution in groups takes fewer channels than its input has; the other two take a multiple.
    return (given % taken if layer.op in ("CONV_2D", "TRANSPOSE_CONV") else taken % given) == 0
