"""Where two .tflite files differ: graphs, tensors, scales, stored values, metadata; each part in one line of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbuild.tflite import graph

ABSENT = "absent"


def differences(first: graph.ModelT, second: graph.ModelT) -> Iterator[str]:
    """Yield what differs, the coarsest first; nothing where only the layout of the files does.

    Tensors are compared by their place in their subgraph, so that a renamed one is told as renamed.
    """
    yield from _changed("description", _text(first.description), _text(second.description))
    yield from _changed("subgraphs", len(first.subgraphs), len(second.subgraphs))
    yield from _changed("op codes", _codes(first), _codes(second))
    yield from _changed("signatures", _signatures(first), _signatures(second))
    for place, (mine, other) in enumerate(zip(first.subgraphs, second.subgraphs, strict=False)):
        where = "" if len(first.subgraphs) == 1 else f"subgraph {place}: "
        yield from (f"{where}{line}" for line in _subgraph(first, mine, second, other))
    yield from _metadata(first, second)


def values(name: str, first: NDArray[Any], second: NDArray[Any]) -> str | None:
    """Return how two arrays differ, None where they are equal to the bit."""
    if (first.shape, first.dtype) != (second.shape, second.dtype):
        return f"{name}: {first.dtype} {list(first.shape)} → {second.dtype} {list(second.shape)}"
    mine, other = np.ascontiguousarray(first).reshape(-1), np.ascontiguousarray(second).reshape(-1)
    if mine.tobytes() == other.tobytes():
        return None
    # By their bytes: NaN differs from itself and 0.0 equals -0.0, but a file is its bytes.
    unequal = (mine.view(np.uint8).reshape(len(mine), -1) != other.view(np.uint8).reshape(len(mine), -1)).any(axis=1)
    at = int(np.argmax(unequal))
    count = int(np.count_nonzero(unequal))
    return f"{name}: {count} of {len(mine)} values differ, the first at {at}: {mine[at]} → {other[at]}"


def _subgraph(
    first: graph.ModelT, mine: graph.SubGraphT, second: graph.ModelT, other: graph.SubGraphT
) -> Iterator[str]:
    yield from _changed("ops", _ops(first, mine), _ops(second, other))
    yield from _changed("inputs", graph.indices(mine.inputs), graph.indices(other.inputs))
    yield from _changed("outputs", graph.indices(mine.outputs), graph.indices(other.outputs))
    yield from _operators(first, mine, other)
    yield from _changed("tensors", len(mine.tensors), len(other.tensors))
    for one, another in zip(mine.tensors, other.tensors, strict=False):
        yield from _tensor(first, one, second, another)


def _operators(model: graph.ModelT, mine: graph.SubGraphT, other: graph.SubGraphT) -> Iterator[str]:
    pairs = zip(mine.operators or [], other.operators or [], strict=False)
    for place, (one, another) in enumerate(pairs):
        name = f"op {place} ({graph.op_name(model, one)})"
        yield from _changed(f"{name}: inputs", graph.indices(one.inputs), graph.indices(another.inputs))
        yield from _changed(f"{name}: outputs", graph.indices(one.outputs), graph.indices(another.outputs))
        if _plain(one.builtinOptions) != _plain(another.builtinOptions):
            yield f"{name}: options {_plain(one.builtinOptions)} → {_plain(another.builtinOptions)}"
        if _bytes(one.customOptions) != _bytes(another.customOptions):
            yield f"{name}: custom options differ"


def _tensor(first: graph.ModelT, mine: graph.TensorT, second: graph.ModelT, other: graph.TensorT) -> Iterator[str]:
    name = f'tensor "{graph.tensor_name(mine)}"'
    if graph.tensor_name(mine) != graph.tensor_name(other):
        yield f'{name}: renamed to "{graph.tensor_name(other)}"'
    yield from _changed(f"{name}: type", graph.type_name(mine), graph.type_name(other))
    yield from _changed(f"{name}: shape", list(graph.shape(mine)), list(graph.shape(other)))
    for part in ("scale", "zeroPoint"):
        label = f"{name}: {'zero point' if part == 'zeroPoint' else part}"
        yield from _arrays(label, _quantization(mine, part), _quantization(other, part))
    yield from _arrays(name, _stored(first, mine), _stored(second, other))


def _stored(model: graph.ModelT, tensor: graph.TensorT) -> NDArray[Any] | None:
    """Return a tensor's stored value; its bytes where NumPy has no such type."""
    found = graph.constant(model, tensor)
    if found is not None:
        return found
    return np.asarray(model.buffers[tensor.buffer].data, np.uint8) if graph.is_constant(model, tensor) else None


def _quantization(tensor: graph.TensorT, part: str) -> NDArray[Any] | None:
    found = None if tensor.quantization is None else getattr(tensor.quantization, part)
    return None if found is None or len(found) == 0 else np.asarray(found)


def _arrays(name: str, first: NDArray[Any] | None, second: NDArray[Any] | None) -> Iterator[str]:
    if first is None or second is None:
        yield from _changed(f"{name}: stored values", _presence(first), _presence(second))
        return
    found = values(name, first, second)
    if found is not None:
        yield found


def _presence(array: NDArray[Any] | None) -> str:
    return ABSENT if array is None else f"{array.dtype} {list(array.shape)}"


def _metadata(first: graph.ModelT, second: graph.ModelT) -> Iterator[str]:
    mine, other = ({_text(e.name): _bytes(m.buffers[e.buffer].data) for e in m.metadata or []} for m in (first, second))
    for name in sorted(mine.keys() | other.keys()):
        if mine.get(name) != other.get(name):
            old, new = (ABSENT if data is None else f"{len(data)} bytes" for data in (mine.get(name), other.get(name)))
            yield f'metadata "{name}": {old} → {new}' if old != new else f'metadata "{name}" differs'


def _changed(name: str, first: Any, second: Any) -> Iterator[str]:
    if first != second:
        yield f"{name}: {first} → {second}"


def _codes(model: graph.ModelT) -> list[str]:
    return [f"{code.builtinCode}.{code.version}" for code in model.operatorCodes]


def _ops(model: graph.ModelT, part: graph.SubGraphT) -> str:
    return " ".join(graph.op_names(model, part))


def _signatures(model: graph.ModelT) -> list[str]:
    return [
        f"{_text(entry.signatureKey)}({', '.join(_text(port.name) for port in entry.inputs or [])}) → "
        f"({', '.join(_text(port.name) for port in entry.outputs or [])})"
        for entry in model.signatureDefs or []
    ]


def _plain(options: Any) -> dict[str, Any]:
    """Return an op's options as a table; arrays as lists, so that they compare."""
    found = {} if options is None else vars(options)
    return {
        name: np.asarray(value).tolist() if isinstance(value, np.ndarray) else value for name, value in found.items()
    }


def _bytes(data: Any) -> bytes:
    return b"" if data is None else np.asarray(data, np.uint8).tobytes()


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "")
