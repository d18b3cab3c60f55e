"""Lets a classifier's logits be measured: what its last SOFTMAX or LOGISTIC is given, as one more output.

A trained classifier's probabilities saturate: on nearly every sample they are 0 and 1 whatever the noise before them,
and the few samples in doubt are all that an error of the probabilities tells of. Logits tell of every sample. Of six
candidates, 60 held-back digits named the worst but two by the probabilities, and by the logits the one that was best on
600 others (docs/decisions/0011).
"""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema

from quantbuild.tflite import graph
from quantbuild.tflite.matching import CASTS

MOST_AXES_OF_SCORES = 2
"""LOGISTIC makes scores, [batch, scores], but also pictures, whose values themselves are what the app wants: where it
saturates in a picture, an error before it is none."""


def expose(model: graph.ModelT) -> list[str]:
    """Make the logits of each output an output of `model`, and return the names of those added.

    Named by the signature ``OUTPUT before SOFTMAX``, or, in a model without one, by their tensors. An output whose
    logits are an output already adds none.
    """
    main = graph.main(model)
    _, ports = graph.signature_maps(model)
    added = []
    for name, tensor in ports.items():
        found = _squashing(model, tensor)
        if found is None:
            continue
        kind, logits = found
        if logits in ports.values():
            continue
        port = f"{name} before {kind}"
        signatures = [each for each in model.signatureDefs or [] if each.subgraphIndex == 0]
        for signature in signatures:
            signature.outputs = [*signature.outputs, schema.TensorMapT(name=port, tensorIndex=logits)]
        if logits not in graph.indices(main.outputs):
            main.outputs = [*graph.indices(main.outputs), logits]
            added += [] if signatures else [graph.tensor_name(main.tensors[logits])]
        added += [port] if signatures else []
    return added


def _squashing(model: graph.ModelT, tensor: int) -> tuple[str, int] | None:
    """Return the op that gives an output its range from 0 to 1, behind casts, and the activation that it is given."""
    main = graph.main(model)
    producers = graph.producers(main)
    while tensor in producers:
        operator = main.operators[producers[tensor]]
        kind, given = graph.op_name(model, operator), graph.indices(operator.inputs)[0]
        if kind in CASTS:
            tensor = given
            continue
        scores = kind == "SOFTMAX" or (
            kind == "LOGISTIC" and len(graph.shape(main.tensors[tensor])) <= MOST_AXES_OF_SCORES
        )
        return (kind, given) if scores and not graph.is_constant(model, main.tensors[given]) else None
    return None
