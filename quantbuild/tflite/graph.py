"""Reading and writing a .tflite flatbuffer as plain objects, and the questions we ask about its graph.

Source: the TFLite schema, ``tensorflow/compiler/mlir/lite/schema/schema.fbs``, through the classes that
ai-edge-litert generates from it. No TensorFlow. "Main" is subgraph 0, the one that an interpreter invokes.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from quantbuild.errors import StepError

IDENTIFIER = b"TFL3"
BUFFER_ALIGNMENT = 16
"""The schema's ``force_align`` of a buffer's data, which the generated Python code ignores."""
LARGEST_FLATBUFFER_BYTES = 2**31 - 1

CONTROL_FLOW = frozenset({"WHILE", "IF", "CALL", "CALL_ONCE", "STABLEHLO_WHILE", "STABLEHLO_CASE"})
"""Ops whose bodies are further subgraphs."""

# The generated classes carry no types.
ModelT: TypeAlias = Any
SubGraphT: TypeAlias = Any
TensorT: TypeAlias = Any
OperatorT: TypeAlias = Any

_OP_NAMES: dict[int, str] = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
_TYPE_NAMES: dict[int, str] = {code: name for name, code in vars(schema.TensorType).items() if name.isupper()}
_DTYPES: dict[str, Any] = {
    "FLOAT32": np.float32, "FLOAT16": np.float16, "FLOAT64": np.float64, "BOOL": np.bool_,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "COMPLEX64": np.complex64, "COMPLEX128": np.complex128,
}  # fmt: skip


class _AlignedBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """Lays byte vectors, which hold the weights, at the alignment that the schema promises."""

    def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802 (the parent's name)
        self.StartVector(x.itemsize, x.size, max(x.itemsize, BUFFER_ALIGNMENT if x.itemsize == 1 else 0))
        payload = x.astype(x.dtype.newbyteorder("<"), copy=False).tobytes()
        self.head -= len(payload)
        self.Bytes[self.head : self.head + len(payload)] = payload
        self.vectorNumElems = x.size
        return int(self.EndVector())


def read(data: bytes) -> ModelT:
    """The model in `data` as an editable ``ModelT``; constants are read-only uint8 views of `data`.

    Raises StepError when it is no .tflite file.
    """
    if data[4:8] != IDENTIFIER:
        raise StepError("model: not a .tflite flatbuffer (no TFL3 identifier); convert it first")
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:  # data kept behind the flatbuffer, as files near two gigabytes do
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    for operator in (op for graph in model.subgraphs for op in graph.operators or []):
        if operator.largeCustomOptionsOffset > 1:
            start, size = operator.largeCustomOptionsOffset, operator.largeCustomOptionsSize
            operator.customOptions = np.frombuffer(data, np.uint8, size, start)
            operator.largeCustomOptionsOffset = operator.largeCustomOptionsSize = 0
    return model


def write(model: ModelT) -> bytes:
    """`model` as a flatbuffer; equal models give equal bytes. Raises StepError over two gigabytes."""
    constants = sum(len(b.data) for b in model.buffers if b.data is not None)
    if constants > LARGEST_FLATBUFFER_BYTES:
        raise StepError(f"model: {constants} bytes of constants exceed a flatbuffer's 2 GiB; make it smaller")
    builder = _AlignedBuilder(constants + 2**16)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def main(model: ModelT) -> SubGraphT:
    """The subgraph that an interpreter invokes."""
    return model.subgraphs[0]


def tensor_name(tensor: TensorT) -> str:
    """The name as text; empty where the file gives none."""
    return text(tensor.name)


def op_name(model: ModelT, operator: OperatorT) -> str:
    """``CONV_2D`` and the like; a custom op's own name."""
    code = model.operatorCodes[operator.opcodeIndex]
    # Codes over 127 do not fit the deprecated field, and old files lack the new one.
    number = max(code.deprecatedBuiltinCode, code.builtinCode)
    if number == schema.BuiltinOperator.CUSTOM and code.customCode:
        return text(code.customCode)
    return _OP_NAMES.get(number, f"UNKNOWN_{number}")


def is_custom(model: ModelT, operator: OperatorT) -> bool:
    """Whether the op is none of TFLite's own, so that a runtime must be given a kernel for it (Flex ops are such)."""
    code = model.operatorCodes[operator.opcodeIndex]
    return bool(max(code.deprecatedBuiltinCode, code.builtinCode) == schema.BuiltinOperator.CUSTOM)


def op_names(model: ModelT, graph: SubGraphT | None = None) -> list[str]:
    """Every op's name in execution order; of the main subgraph unless another is given."""
    graph = main(model) if graph is None else graph
    return [op_name(model, operator) for operator in graph.operators or []]


def type_name(tensor: TensorT) -> str:
    """``FLOAT32``, ``INT8``: the schema's TensorType."""
    return _TYPE_NAMES.get(tensor.type, f"UNKNOWN_{tensor.type}")


def dtype(tensor: TensorT) -> np.dtype[Any] | None:
    """NumPy's dtype of its elements; None where there is none (STRING, INT4, …)."""
    found = _DTYPES.get(type_name(tensor))
    return None if found is None else np.dtype(found)


def shape(tensor: TensorT) -> tuple[int, ...]:
    """The static shape; () for a scalar."""
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


def indices(values: Any) -> list[int]:
    """Tensor indices as ints; -1 is an optional input left out. None reads as empty."""
    return [] if values is None else [int(value) for value in values]


def constant(model: ModelT, tensor: TensorT) -> np.ndarray | None:
    """The tensor's stored value, a read-only view in its own shape; None for an activation."""
    data = model.buffers[tensor.buffer].data
    kind = dtype(tensor)
    if data is None or len(data) == 0 or kind is None:
        return None
    return np.asarray(data, np.uint8).view(kind).reshape(shape(tensor))


def is_constant(model: ModelT, tensor: TensorT) -> bool:
    """Whether the file stores its value (also for types that NumPy lacks)."""
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def producers(graph: SubGraphT) -> dict[int, int]:
    """Tensor index → index of the op that makes it. Graph inputs and constants have none."""
    return {t: i for i, op in enumerate(graph.operators or []) for t in indices(op.outputs) if t >= 0}


def consumers(graph: SubGraphT) -> dict[int, list[int]]:
    """Tensor index → indices of the ops that read it, in order, each once."""
    found: dict[int, list[int]] = {}
    for i, operator in enumerate(graph.operators or []):
        for tensor in sorted(set(indices(operator.inputs)) - {-1}):
            found.setdefault(tensor, []).append(i)
    return found


def activations(model: ModelT) -> list[int]:
    """The main subgraph's float32 tensors that are no constants: graph inputs, then op outputs in order."""
    graph = main(model)
    outputs = [t for op in graph.operators or [] for t in indices(op.outputs) if t >= 0]
    seen = dict.fromkeys(indices(graph.inputs) + outputs)
    return [t for t in seen if _is_activation(model, graph.tensors[t])]


def _is_activation(model: ModelT, tensor: TensorT) -> bool:
    return bool(tensor.type == schema.TensorType.FLOAT32 and not tensor.isVariable and not is_constant(model, tensor))


def signature_maps(model: ModelT, key: str | None = None) -> tuple[dict[str, int], dict[str, int]]:
    """(inputs, outputs) of signature `key`, the first on the main subgraph by default: name → tensor index.

    A model without signatures gives its tensors' own names. Raises StepError for an unknown key.
    """
    graph = main(model)
    signatures = [s for s in model.signatureDefs or [] if s.subgraphIndex == 0]
    if key is not None:
        signatures = [s for s in signatures if text(s.signatureKey) == key]
        if not signatures:
            known = ", ".join(signature_keys(model)) or "none"
            raise StepError(f'model: no signature "{key}" on the main subgraph; it has {known}')
    if not signatures:
        return _named(graph, graph.inputs), _named(graph, graph.outputs)
    return _mapped(signatures[0].inputs), _mapped(signatures[0].outputs)


def signature_keys(model: ModelT) -> list[str]:
    """The keys of every signature in the file, in its order."""
    return [text(signature.signatureKey) for signature in model.signatureDefs or []]


def _named(graph: SubGraphT, tensors: Any) -> dict[str, int]:
    return {tensor_name(graph.tensors[t]): t for t in indices(tensors)}


def _mapped(entries: Any) -> dict[str, int]:
    return {text(entry.name): int(entry.tensorIndex) for entry in entries or []}


def text(value: Any) -> str:
    """A name of the file as text: it holds bytes, and what was written here text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def add_opcode(model: ModelT, name: str, version: int = 1) -> int:
    """Index into operatorCodes of builtin `name` at `version`, appended when the model has none."""
    number = int(getattr(schema.BuiltinOperator, name))
    for index, code in enumerate(model.operatorCodes):
        if max(code.deprecatedBuiltinCode, code.builtinCode) == number and code.version == version:
            return index
    code = schema.OperatorCodeT(builtinCode=number, deprecatedBuiltinCode=min(number, 127), version=version)
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def add_constant(model: ModelT, graph: SubGraphT, name: str, value: np.ndarray) -> int:
    """Append a constant tensor with `value` (its dtype must be one of TFLite's) and return its index."""
    kind = next(code for code, label in _TYPE_NAMES.items() if _DTYPES.get(label) == value.dtype)
    model.buffers.append(schema.BufferT(data=np.frombuffer(value.tobytes(), np.uint8)))
    tensor = schema.TensorT(shape=list(value.shape), type=kind, buffer=len(model.buffers) - 1, name=name)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def add_metadata(model: ModelT, name: str, value: np.ndarray) -> None:
    """Append a metadata entry with `value` (uint8)."""
    model.buffers.append(schema.BufferT(data=value))
    model.metadata = [*(model.metadata or []), schema.MetadataT(name=name, buffer=len(model.buffers) - 1)]


def add_tensor(graph: SubGraphT, name: str, size: tuple[int, ...]) -> int:
    """Append a float32 activation of shape `size` (buffer 0 is the empty one) and return its index."""
    tensor = schema.TensorT(shape=list(size), type=schema.TensorType.FLOAT32, buffer=0, name=name)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def add_cast(model: ModelT, tensor: int, kind: str, how: tuple[float, int] | None = None) -> int:
    """Append the op that turns a main tensor into `kind`, float32 or integers of scale and zero point `how`.

    Returns the index of its result.
    """
    graph = main(model)
    source = graph.tensors[tensor]
    result = schema.TensorT(name=f"{tensor_name(source)}_{kind}", shape=source.shape, buffer=0)
    result.shapeSignature = source.shapeSignature
    result.type = getattr(schema.TensorType, kind.upper())
    if how is not None:
        result.quantization = schema.QuantizationParametersT(scale=[how[0]], zeroPoint=[how[1]])
    graph.tensors.append(result)
    operator = schema.OperatorT(opcodeIndex=add_opcode(model, "QUANTIZE" if how else "DEQUANTIZE"))
    operator.inputs, operator.outputs = [tensor], [len(graph.tensors) - 1]
    graph.operators.append(operator)
    return len(graph.tensors) - 1
