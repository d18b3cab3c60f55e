"""One node: an op of the main graph that computes on activations, with every name a user may call it by."""

from __future__ import annotations

import msgspec

MOVES_VALUES = frozenset({
    "AVERAGE_POOL_2D", "BATCH_TO_SPACE_ND", "BROADCAST_TO", "CONCATENATION", "DEPTH_TO_SPACE",
    "DYNAMIC_UPDATE_SLICE", "EXPAND_DIMS", "GATHER", "GATHER_ND", "MAXIMUM", "MAX_POOL_2D", "MINIMUM", "MIRROR_PAD",
    "PACK", "PAD", "PADV2", "REDUCE_MAX", "REDUCE_MIN", "RESHAPE", "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2",
    "SELECT", "SELECT_V2", "SLICE", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQUEEZE",
    "STRIDED_SLICE", "TILE", "TRANSPOSE", "UNPACK",
})  # fmt: skip
"""Ops whose results are values of their inputs, so that their integer kernels keep or share one scale: they add no
noise of their own, and none can be kept out of them without the ops around them. A pooling of means adds a rounding,
but TensorFlow moves casts past it all the same."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One op. `reads` and `writes` are tensor indices of its activations, constants left out."""

    index: int
    """Place in execution order of the main graph, from 0; ops without activations count too."""
    op: str
    """``CONV_2D`` and the like."""
    tensors: tuple[str, ...]
    """Names of the tensors it writes; the first one is the node's name."""
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    parts: tuple[str, ...] = ()
    """The names that the converter joined with ``;`` where it fused several ops."""
    ports: tuple[str, ...] = ()
    """The signature's names of the outputs it writes."""
    layers: tuple[str, ...] = ()
    """Every name that its layers give it, as the model's author wrote them; see `quantbuild.nodes.names`."""
    scopes: tuple[str, ...] = ()
    """The layers' names as the tensors have them."""
    layer: str = ""
    """The layers it is made of, for a reader; where it has none, the outputs it writes."""
    number: int | None = None
    """Place among the nodes that compute, from 1; None for one that only moves values."""

    @property
    def name(self) -> str:
        """The name that results are told under: of the first tensor it writes."""
        return self.tensors[0]

    @property
    def moves_values(self) -> bool:
        """Whether its results are values of its inputs."""
        return self.op in MOVES_VALUES


def numbered(nodes: list[Node]) -> tuple[Node, ...]:
    """Return `nodes`, in execution order, with those that compute numbered from 1."""
    found, number = [], 0
    for node in nodes:
        number += not node.moves_values
        found.append(msgspec.structs.replace(node, number=None if node.moves_values else number))
    return tuple(found)
