"""Keeping chosen ops in float under `mlir_quantize`, and proving that they stayed so.

Its `denylisted_nodes` are compared with the one name of an op's location: the name of its output. An op with several
outputs has as many names, which are one name to it only where all are the same; names need not be unique, and what
it makes of them need not be the same in its result. So each op to keep is given a name of our own, on all its outputs,
and its true names after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantbuild.nodes.node import Node
from quantbuild.tflite import graph

_CASTS = frozenset({"QUANTIZE", "DEQUANTIZE"})


def mark(model: graph.ModelT, nodes: Sequence[Node]) -> dict[str, Node]:
    """Rename in `model` every output of each node; return mark → node. The marks are the names to deny."""
    main = graph.main(model)
    marks = {}
    for node in nodes:
        name = f"quantbuild#{node.index}#"
        marks[name] = node
        for tensor in graph.indices(main.operators[node.index].outputs):
            main.tensors[tensor].name = name.encode()
    return marks


def operators(model: graph.ModelT, marks: Mapping[str, Node]) -> dict[int, int]:
    """Return node index → index of its op in the quantized `model`, by its mark; absent where TensorFlow folded it."""
    main = graph.main(model)
    found = {}
    for index, (operator, op) in enumerate(zip(main.operators or [], graph.op_names(model), strict=True)):
        outputs = [graph.tensor_name(main.tensors[tensor]) for tensor in graph.indices(operator.outputs)]
        mark, hash_sign, _ = (outputs or [""])[0].rpartition("#")
        if hash_sign and op not in _CASTS and f"{mark}#" in marks:
            found[marks[f"{mark}#"].index] = index
    return found


def unmark(model: graph.ModelT, marks: Mapping[str, Node]) -> None:
    """Give the outputs of every marked op their own names again.

    Tensors that were made of them, such as their quantized copies, are named after the op's first output.
    """
    main, became = graph.main(model), operators(model, marks)
    for node in marks.values():
        if node.index in became:
            outputs = graph.indices(main.operators[became[node.index]].outputs)
            for tensor, name in zip(outputs, node.tensors, strict=True):
                main.tensors[tensor].name = name.encode()
    for tensor in main.tensors:
        mark, hash_sign, rest = graph.tensor_name(tensor).rpartition("#")
        if hash_sign and f"{mark}#" in marks:
            tensor.name = (marks[f"{mark}#"].name + rest).encode()
