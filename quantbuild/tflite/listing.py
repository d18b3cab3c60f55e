"""The nodes of a .tflite: what patterns choose from, and the list that `quantbuild nodes` prints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from quantbuild.nodes.names import Scopes, parts
from quantbuild.nodes.node import Node, numbered
from quantbuild.tflite import graph

_ACTIVATIONS = frozenset({"FLOAT32", "INT8", "UINT8", "INT16"})


def nodes(model: graph.ModelT) -> tuple[Node, ...]:
    """Return the main graph's ops that compute on float32 activations, in execution order, numbered.

    An op that unpacks a stored weight (DEQUANTIZE of a constant) is none, nor one without a result.
    """
    main = graph.main(model)
    named, floats, found = _Names(model), set(graph.activations(model)), []
    for index, (operator, op) in enumerate(zip(main.operators or [], graph.op_names(model), strict=True)):
        reads = tuple(tensor for tensor in graph.indices(operator.inputs) if tensor in floats)
        writes = tuple(tensor for tensor in graph.indices(operator.outputs) if tensor in floats)
        if graph.indices(operator.outputs) and (reads or (writes and op != "DEQUANTIZE")):
            found.append(Node(index=index, op=op, reads=reads, writes=writes, **named.of(operator)))
    return numbered(found)


def inputs(model: graph.ModelT) -> dict[str, int]:
    """Return the model's inputs, signature name → tensor index."""
    return graph.signature_maps(model)[0]


def listing(model: graph.ModelT) -> list[dict[str, Any]]:
    """Return every op of the main graph that touches activations, integer ones too, as JSON.

    ``{"index", "number", "op", "name", "layer", "shape", "dtype", "weight_bytes"}``: shape and type are those of its
    first output, the bytes those of every constant it reads; number is `Node.number`, null for an integer op.
    """
    main = graph.main(model)
    named, numbers = _Names(model), {node.index: node.number for node in nodes(model)}
    rows = []
    for index, (operator, op) in enumerate(zip(main.operators or [], graph.op_names(model), strict=True)):
        if _touches_activations(model, operator):
            names, first = named.of(operator), main.tensors[graph.indices(operator.outputs)[0]]
            rows.append(
                {
                    "index": index,
                    "number": numbers.get(index),
                    "op": op,
                    "name": names["tensors"][0],
                    "layer": names["layer"],
                    "shape": list(graph.shape(first)),
                    "dtype": graph.type_name(first).lower(),
                    "weight_bytes": _weight_bytes(model, operator),
                }
            )
    return rows


class _Names:
    """Every name that the ops of one model go by."""

    def __init__(self, model: graph.ModelT) -> None:
        self._main = graph.main(model)
        self._scopes = Scopes(name for operator in self._main.operators or [] for name in self._tensors(operator))
        self._ports: dict[int, list[str]] = {}
        for port, tensor in graph.signature_maps(model)[1].items():
            self._ports.setdefault(tensor, []).append(port)

    def of(self, operator: graph.OperatorT) -> dict[str, Any]:
        """Return the fields of a `Node` that are names."""
        tensors = self._tensors(operator)
        joined = [part for name in tensors for part in parts(name)]
        layers = [self._scopes.layers(part) for part in joined]
        ports = _unique(port for tensor in graph.indices(operator.outputs) for port in self._ports.get(tensor, ()))
        return {
            "tensors": tuple(tensors),
            "parts": _unique(joined),
            "ports": ports,
            "layers": _unique(layer for found in layers for layer in found),
            "scopes": _unique(scope for part in joined for scope in self._scopes.scopes(part)),
            "layer": ", ".join(_unique(found[0] for found in layers if found) or ports),
        }

    def _tensors(self, operator: graph.OperatorT) -> list[str]:
        tensors = self._main.tensors
        return [graph.tensor_name(tensors[tensor]) for tensor in graph.indices(operator.outputs) if tensor >= 0]


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _touches_activations(model: graph.ModelT, operator: graph.OperatorT) -> bool:
    outputs = graph.indices(operator.outputs)
    touched = graph.indices(operator.inputs) + outputs
    found = [graph.main(model).tensors[tensor] for tensor in touched if tensor >= 0]
    return bool(outputs) and any(
        graph.type_name(tensor) in _ACTIVATIONS and not graph.is_constant(model, tensor) for tensor in found
    )


def _weight_bytes(model: graph.ModelT, operator: graph.OperatorT) -> int:
    tensors = graph.main(model).tensors
    read = {tensors[tensor].buffer for tensor in graph.indices(operator.inputs) if tensor >= 0}
    stored = [model.buffers[buffer].data for buffer in read]
    return sum(len(data) for data in stored if data is not None)
