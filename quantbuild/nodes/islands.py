"""Which nodes must leave int8 together, so that an activation does.

One op in float between int8 neighbours reads rounded values and has its result rounded again: only its weights gain.
An activation stays exact when the op that makes it and the ops that read it leave int8 together: an island. An op that
only moves values (a reshape, a split, a pooling) hands rounded values on as they are, so an island reaches
through it, up to what computed the values and down to what computes on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quantbuild.nodes.node import Node


def island(nodes: Sequence[Node], tensors: Iterable[int]) -> list[int]:
    """Return the indices of the nodes that must leave int8, sorted, so that each of `tensors` stays exact.

    These are a tensor's producer and all its consumers, through ops that only move values; where the islands of two
    tensors leave nothing but such ops between them, those too, so that the two become one. A tensor that no node
    writes (an input of the model) has consumers only. A tensor that no node writes or reads has no island.
    """
    graph = _Graph(nodes)
    found: set[int] = set()
    for tensor in tensors:
        found |= graph.upstream(tensor) | graph.downstream(tensor)
    return sorted(graph.merged(found))


class _Graph:
    def __init__(self, nodes: Sequence[Node]) -> None:
        self._by_index = {node.index: node for node in nodes}
        self._writers = {tensor: node for node in nodes for tensor in node.writes}
        self._readers: dict[int, list[Node]] = {}
        for node in nodes:
            for tensor in dict.fromkeys(node.reads):
                self._readers.setdefault(tensor, []).append(node)

    def upstream(self, tensor: int) -> set[int]:
        """Return what computes a tensor's values, and the ops that only hand them on."""
        found: set[int] = set()
        waiting = [tensor]
        while waiting:
            writer = self._writers.get(waiting.pop())
            if writer is not None and writer.index not in found:
                found.add(writer.index)
                waiting += writer.reads if writer.moves_values else ()
        return found

    def downstream(self, tensor: int) -> set[int]:
        """Return what computes on a tensor's values, and the ops that only hand them on."""
        found: set[int] = set()
        waiting = [tensor]
        while waiting:
            for reader in self._readers.get(waiting.pop(), ()):
                if reader.index not in found:
                    found.add(reader.index)
                    waiting += reader.writes if reader.moves_values else ()
        return found

    def merged(self, found: set[int]) -> set[int]:
        """Return `found` with the ops that only move values from one island to the next: in int8 they cost casts."""
        joined = {node.index for node in self._by_index.values() if node.moves_values} - found
        while True:
            inside = found | joined
            kept = {index for index in joined if self._lies_between(self._by_index[index], inside)}
            if kept == joined:
                return inside
            joined = kept

    def _lies_between(self, node: Node, inside: set[int]) -> bool:
        return self._comes_from(node, inside) and self._goes_to(node, inside)

    def _comes_from(self, node: Node, inside: set[int]) -> bool:
        writers = [self._writers.get(tensor) for tensor in node.reads]
        return bool(writers) and all(writer is not None and writer.index in inside for writer in writers)

    def _goes_to(self, node: Node, inside: set[int]) -> bool:
        readers = [reader for tensor in node.writes for reader in self._readers.get(tensor, ())]
        return bool(readers) and all(reader.index in inside for reader in readers)
