"""Signatures whose names stand for the inputs and outputs that they stood for in the float model.

TensorFlow finds a signature's tensors again by their names. Where two have one name, as an input that is an output
too and the results of an op kept in float have, both names of the signature then mean one tensor.
"""

from __future__ import annotations

from typing import Any

from quantbuild.errors import StepError
from quantbuild.tflite import graph


def restore(model: graph.ModelT, exact: graph.ModelT) -> bool:
    """Point the main subgraph's signatures in `model` at the inputs and outputs that they have in `exact`, by position.

    `model` was made of `exact` with its inputs and outputs in their order. Returns whether any was changed. Raises
    StepError where they are not as many.
    """
    changed = False
    originals = {graph.text(found.signatureKey): found for found in exact.signatureDefs or []}
    for signature in model.signatureDefs or []:
        original = originals.get(graph.text(signature.signatureKey))
        if signature.subgraphIndex == 0 and original is not None:
            inputs = _places(graph.main(exact).inputs, graph.main(model).inputs)
            outputs = _places(graph.main(exact).outputs, graph.main(model).outputs)
            changed |= _point(signature.inputs, original.inputs, inputs)
            changed |= _point(signature.outputs, original.outputs, outputs)
    return changed


def _places(before: Any, after: Any) -> dict[int, int]:
    old, new = graph.indices(before), graph.indices(after)
    if len(old) != len(new):
        raise StepError(f"the quantizer made {len(new)} inputs or outputs of {len(old)}; use another scheme")
    return {tensor: new[place] for place, tensor in reversed(list(enumerate(old)))}


def _point(entries: Any, originals: Any, places: dict[int, int]) -> bool:
    """Point `entries` at what became of those of the same names."""
    wanted = {graph.text(entry.name): places[entry.tensorIndex] for entry in originals or []}
    changed = False
    for entry in entries or []:
        tensor = wanted.get(graph.text(entry.name), entry.tensorIndex)
        changed |= tensor != entry.tensorIndex
        entry.tensorIndex = tensor
    return changed
