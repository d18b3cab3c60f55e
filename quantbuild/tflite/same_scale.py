"""Tensors that TFLite's int8 kernels need at one scale, and what that means for a range that must not be clipped.

`mlir_quantize` settles such ops itself and takes one of their ranges for all of their tensors: the result's where
an op reads several float tensors (CONCATENATION, MAXIMUM, PADV2 with its constant), else the operand's (MAX_POOL_2D,
RESHAPE). So a graph output behind a RESHAPE has the range of what is reshaped, and what is concatenated has that of
the whole. Nothing needs to be made equal beforehand; but a range chosen for one tensor may become another's.
"""

from __future__ import annotations

from collections.abc import Mapping

from quantbuild.tflite import graph

SAME_SCALE_OPS = frozenset({
    "AVERAGE_POOL_2D", "BATCH_TO_SPACE_ND", "BROADCAST_TO", "CONCATENATION", "DEPTH_TO_SPACE",
    "DYNAMIC_UPDATE_SLICE", "EXPAND_DIMS", "GATHER", "GATHER_ND", "MAX_POOL_2D", "MAXIMUM", "MINIMUM", "MIRROR_PAD",
    "PACK", "PAD", "PADV2", "REDUCE_MAX", "REDUCE_MIN", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR",
    "SELECT", "SELECT_V2", "SLICE", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQUEEZE",
    "STRIDED_SLICE", "TILE", "TOPK_V2", "TRANSPOSE", "UNPACK",
})  # fmt: skip
"""Ops whose float operands and results get one scale: "Input and outputs must all have same scale/zero_point" in the
TFLite 8-bit quantization specification, and what TensorFlow 2.21 was seen to treat so."""


def groups(model: graph.ModelT) -> dict[int, set[int]]:
    """Return activation of the main subgraph → all activations that get its scale, itself included.

    Those that no such op touches are left out.
    """
    activations = set(graph.activations(model))
    found: dict[int, set[int]] = {}
    for operator, name in zip(graph.main(model).operators or [], graph.op_names(model), strict=True):
        if name not in SAME_SCALE_OPS:
            continue
        touched = activations & {*graph.indices(operator.inputs), *graph.indices(operator.outputs)}
        merged = set().union(*(found.get(tensor, {tensor}) for tensor in touched))
        found.update(dict.fromkeys(merged, merged))
    return found


def widened(
    model: graph.ModelT, chosen: Mapping[int, tuple[float, float]], kept: Mapping[int, tuple[float, float]]
) -> dict[int, tuple[float, float]]:
    """Return `chosen` with each range wide enough for every tensor of `kept` that may get it."""
    tied = groups(model)
    result = dict(chosen)
    for tensor, (low, high) in kept.items():
        for other in tied.get(tensor, {tensor}) & chosen.keys():
            result[other] = min(result[other][0], low), max(result[other][1], high)
    return result
