"""Writes .tflite models, without TensorFlow, whose tensors are large enough that a range may clip them."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from quantbuild.tflite import graph

SIDE = 50
"""A square of it has more elements than a tensor that is never clipped."""


class Builder:
    """A model of one subgraph or more; `graph` is the one that is added to."""

    def __init__(self) -> None:
        self.model = schema.ModelT(version=3, operatorCodes=[], buffers=[schema.BufferT()], subgraphs=[])
        self.add_graph()

    def add_graph(self) -> int:
        self.graph = schema.SubGraphT(tensors=[], operators=[], inputs=[], outputs=[])
        self.model.subgraphs.append(self.graph)
        return len(self.model.subgraphs) - 1

    def tensor(self, name: str, *size: int, kind: int = schema.TensorType.FLOAT32) -> int:
        index = graph.add_tensor(self.graph, name, size)
        self.graph.tensors[index].type = kind
        return index

    def input(self, name: str, *size: int, kind: int = schema.TensorType.FLOAT32) -> int:
        self.graph.inputs.append(self.tensor(name, *size, kind=kind))
        return self.graph.inputs[-1]

    def constant(self, value: Any) -> int:
        return graph.add_constant(self.model, self.graph, f"constant/{len(self.graph.tensors)}", np.asarray(value))

    def op(self, name: str, inputs: list[int], outputs: list[int], options: Any = None) -> int:
        kind = 0 if options is None else getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        code = graph.add_opcode(self.model, name)
        self.graph.operators.append(
            schema.OperatorT(
                opcodeIndex=code, inputs=inputs, outputs=outputs, builtinOptionsType=kind, builtinOptions=options
            )
        )
        return outputs[0]

    def add(self, first: int, second: int, name: str, *size: int) -> int:
        return self.op("ADD", [first, second], [self.tensor(name, *size)], schema.AddOptionsT())

    def reshape(self, given: int, name: str, *size: int) -> int:
        shape = self.constant(np.array(size, np.int32))
        return self.op("RESHAPE", [given, shape], [self.tensor(name, *size)], schema.ReshapeOptionsT(newShape=size))

    def mean(self, given: int, name: str) -> int:
        """The mean over all axes but the last of three."""
        axes = self.constant(np.array([0, 1], np.int32))
        size = graph.shape(self.graph.tensors[given])[-1]
        return self.op("MEAN", [given, axes], [self.tensor(name, size)], schema.ReducerOptionsT())

    def finish(self, *outputs: int) -> bytes:
        self.graph = self.model.subgraphs[0]
        self.graph.outputs = list(outputs)
        return graph.write(self.model)


def mixed() -> bytes:
    """Inputs left, right (floats, [1, 50, 50]) and ids (int32, [1, 2]) → total [50]; large inside: sum and rows.

    sum = left + right; rows = table[ids], where row i of the table counts from i.
    """
    build = Builder()
    left, right = build.input("left", 1, SIDE, SIDE), build.input("right", 1, SIDE, SIDE)
    ids = build.input("ids", 1, 2, kind=schema.TensorType.INT32)
    table = build.constant(table_of_rows())
    rows = build.op("GATHER", [table, ids], [build.tensor("rows", 1, 2, SIDE, SIDE)], schema.GatherOptionsT(axis=0))
    added = build.add(left, right, "sum", 1, SIDE, SIDE)
    flat = build.reshape(rows, "flat", 2, SIDE, SIDE)
    total = build.add(build.mean(added, "sum mean"), build.mean(flat, "rows mean"), "total", SIDE)
    return build.finish(total)


def table_of_rows() -> np.ndarray:
    return (np.arange(4)[:, None, None] + np.arange(SIDE * SIDE).reshape(SIDE, SIDE)).astype(np.float32)


def loop() -> bytes:
    """Input x [1, 50, 50] → mean [50]; a WHILE body that halves x three times lies between, and adding 1."""
    build = Builder()
    x = build.input("x", 1, SIDE, SIDE)
    start = build.constant(np.array(0, np.int32))
    count, halved = build.tensor("count", kind=schema.TensorType.INT32), build.tensor("halved", 1, SIDE, SIDE)
    options = schema.WhileOptionsT(condSubgraphIndex=1, bodySubgraphIndex=2)
    build.op("WHILE", [start, x], [count, halved], options)
    more = build.add(halved, build.constant(np.array(1, np.float32)), "more", 1, SIDE, SIDE)
    mean = build.mean(more, "mean")
    _condition(build)
    _body(build)
    return build.finish(mean)


def _condition(build: Builder) -> None:
    build.add_graph()
    count = build.input("count", kind=schema.TensorType.INT32)
    build.input("x", 1, SIDE, SIDE)
    less = build.tensor("less", kind=schema.TensorType.BOOL)
    build.op("LESS", [count, build.constant(np.array(3, np.int32))], [less], schema.LessOptionsT())
    build.graph.outputs = [less]


def _body(build: Builder) -> None:
    build.add_graph()
    count = build.input("count", kind=schema.TensorType.INT32)
    x = build.input("x", 1, SIDE, SIDE)
    following = build.tensor("next", kind=schema.TensorType.INT32)
    build.op("ADD", [count, build.constant(np.array(1, np.int32))], [following], schema.AddOptionsT())
    half, halved = build.constant(np.array(0.5, np.float32)), build.tensor("x half", 1, SIDE, SIDE)
    build.graph.outputs = [following, build.op("MUL", [x, half], [halved], schema.MulOptionsT())]


def small() -> bytes:
    """Input x [1, 2, 4] → mean [4]: nothing that may be clipped."""
    build = Builder()
    x = build.input("x", 1, 2, 4)
    return build.finish(build.mean(x, "mean"))
