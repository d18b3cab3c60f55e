"""Which nodes of a float model leave int8, as the manifest asks, and whether the quantized model has it so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantbuild.errors import StepError
from quantbuild.nodes.islands import island
from quantbuild.nodes.node import Node
from quantbuild.nodes.patterns import reference, resolve
from quantbuild.tflite import graph, listing

_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The nodes that are to compute in float, and those that are to have 16-bit activations."""

    float32: tuple[Node, ...] = ()
    int16: tuple[Node, ...] = ()


def choose(model: graph.ModelT, keep_float: Sequence[str], keep_int16: Sequence[str] = ()) -> Kept:
    """Return the nodes that the patterns mean, see `quantbuild.nodes.patterns`.

    Raises StepError for a pattern that means none, for a node that both lists mean, and where nothing is left.
    """
    found, inputs = listing.nodes(model), listing.inputs(model)
    kept = Kept(
        float32=tuple(resolve("keep_float", keep_float, found, inputs)),
        int16=tuple(resolve("keep_int16", keep_int16, found, inputs)),
    )
    both = {node.index for node in kept.float32} & {node.index for node in kept.int16}
    for node in found:
        if node.index in both:
            raise StepError(f'keep_float and keep_int16 both mean {node.op} "{node.name}"; name it in one of them')
    if found and len(kept.float32) == len(found):
        raise StepError("keep_float means every node of the model; name fewer, or remove the variant")
    return kept


def island_of(model: graph.ModelT, tensors: Sequence[int]) -> list[str]:
    """Return the nodes to keep in float so that each of `tensors` stays exact, in execution order.

    Each is a pattern, most often the name, that `keep_float` and `keep_int16` take. See `quantbuild.nodes.islands` for
    what belongs to an island.
    """
    found = listing.nodes(model)
    wanted = set(island(found, tensors))
    return [reference(node, found) for node in found if node.index in wanted]


def told(nodes: Sequence[Node]) -> list[dict[str, Any]]:
    """Return nodes as results tell them, in execution order: ``{"op", "name", "layer"}``, name as in `float_ops`."""
    return [{"op": node.op, "name": node.name, "layer": node.layer} for node in nodes]


def in_float(model: graph.ModelT, nodes: Sequence[Node], operators: Mapping[int, int]) -> dict[str, Any]:
    """Return what became of `nodes` in the quantized `model`, looked up there: ``{"kept_float", …}``.

    ``integer_all_the_same`` has those that only move values and stand between integers, where float would change
    nothing; ``folded`` those that the quantizer merged into others. These two keys are there where they have nodes.
    `operators` maps a node's index to its op in `model`. Raises StepError for a node that computes on integers.
    """
    there = [node for node in nodes if node.index in operators]
    floats = [node for node in there if kinds(model, operators[node.index]) == {"FLOAT32"}]
    integers = [node for node in there if node not in floats]
    wrong = [node for node in integers if not node.moves_values]
    if wrong:
        names = ", ".join(f'{node.op} "{node.name}"' for node in wrong[:_NAMED])
        raise StepError(f"keep_float: {len(wrong)} of the nodes were quantized all the same ({names}); leave them out")
    folded = [node for node in nodes if node.index not in operators]
    found = {"integer_all_the_same": told(integers), "folded": told(folded)}
    return {"kept_float": told(floats), **{key: listed for key, listed in found.items() if listed}}


def with_int16(
    model: graph.ModelT, nodes: Sequence[Node], operators: Mapping[int, int]
) -> tuple[list[Node], list[Node]]:
    """Return those of `nodes` with 16-bit activations in the quantized `model`, and those left in float instead.

    A node is left in float where no 16-bit kernel exists for it, which is as good and slower.
    """
    there = [node for node in nodes if node.index in operators]
    int16 = [node for node in there if "INT16" in kinds(model, operators[node.index])]
    return int16, [node for node in there if node not in int16]


def kinds(model: graph.ModelT, operator: int) -> set[str]:
    """Return the types of an op's activations that are numbers to compute with."""
    main = graph.main(model)
    found = main.operators[operator]
    tensors = [main.tensors[t] for t in graph.indices(found.inputs) + graph.indices(found.outputs) if t >= 0]
    activations = [tensor for tensor in tensors if not graph.is_constant(model, tensor)]
    return {graph.type_name(tensor) for tensor in activations} & {"FLOAT32", "INT8", "UINT8", "INT16"}
