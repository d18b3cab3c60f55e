"""Quantizes weights only, with litert-quantizer, and lists what it did and what it left in float."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np

from quantbuild.errors import StepError
from quantbuild.tflite import describe, graph, versions


def quantize(data: bytes, recipe: list[dict[str, Any]]) -> bytes:
    """Return `data` with the weights of every op that `recipe` covers quantized.

    A recipe is litert-quantizer's list of rules. It skips without a word an op that a rule does not
    support, so read `report` of the result. Raises StepError where it fails.
    """
    return graph.write(run(data, recipe))


def run(data: bytes, recipe: list[dict[str, Any]], ranges: dict[str, Any] | None = None) -> graph.ModelT:
    """Run litert-quantizer; `ranges` are tensor name → min and max, where `recipe` quantizes activations.

    Raises StepError where it fails.
    """
    from litert_quantizer import quantizer

    from quantbuild.tflite.conversion import first_line

    try:
        work = quantizer.Quantizer(data)
        work.load_quantization_recipe(recipe)
        result = work.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    except (ValueError, RuntimeError, KeyError, IndexError) as error:
        raise StepError(f"litert-quantizer refuses the model: {first_line(error)}; use another scheme") from error
    model = graph.read(bytes(result.quantized_model))
    # It copies the float model's note of the oldest runtime, which is not true of what it made.
    model.metadata = [entry for entry in model.metadata or [] if graph.text(entry.name) != versions.NOTE]
    return model


def report(data: bytes) -> dict[str, Any]:
    """Return which constants are quantized by now and which are float32 still.

    ``{"quantized": {dtype: {"tensors", "elements"}}, "left_float": [{"op", "name", "elements"}],
    "left_float_elements"}``. Weights (two axes or more) left in float are named; biases and the like only
    enter the sum. Raises StepError when none is quantized: the file would be float32's.
    """
    model = describe.read(data)
    quantized: dict[str, collections.Counter[str]] = {}
    left: list[dict[str, Any]] = []
    vectors = 0
    for op, tensor in _constants(model):
        kind, count = graph.type_name(tensor), _elements(tensor)
        if kind == "FLOAT32" and len(graph.shape(tensor)) > 1:
            left.append({"op": op, "name": graph.tensor_name(tensor), "elements": count})
        elif kind == "FLOAT32":
            vectors += count
        elif kind in ("INT8", "INT4", "FLOAT16"):
            quantized.setdefault(kind.lower(), collections.Counter()).update(tensors=1, elements=count)
    if not quantized:
        ops = ", ".join(describe.operators(model))
        raise StepError(f"no weight could be quantized (the model's ops: {ops}); use int8 or remove the variant")
    return {
        "quantized": {kind: dict(sums) for kind, sums in sorted(quantized.items())},
        "left_float": left,
        "left_float_elements": vectors + sum(entry["elements"] for entry in left),
    }


def check_finite(data: bytes) -> None:
    """Raise StepError for a constant that float16 could not hold, and that is infinite now."""
    model = describe.read(data)
    for _, tensor in _constants(model):
        value = graph.constant(model, tensor) if graph.type_name(tensor) == "FLOAT16" else None
        if value is not None and not np.isfinite(value).all():
            raise StepError(
                f'"{graph.tensor_name(tensor)}": {int(np.count_nonzero(~np.isfinite(value)))} of its weights are '
                f"beyond float16 ({np.finfo(np.float16).max:.0f}); scale them down in the model, or use weight_only"
            )


def _constants(model: graph.ModelT) -> list[tuple[str, graph.TensorT]]:
    """Return every constant that an op reads, once, with its first reader's name."""
    found: dict[tuple[int, int], tuple[str, graph.TensorT]] = {}
    for number, part in enumerate(model.subgraphs):
        for operator, name in zip(part.operators or [], graph.op_names(model, part), strict=True):
            for index in graph.indices(operator.inputs):
                if index >= 0 and graph.is_constant(model, part.tensors[index]):
                    found.setdefault((number, index), (name, part.tensors[index]))
    return list(found.values())


def _elements(tensor: graph.TensorT) -> int:
    count = 1
    for size in graph.shape(tensor):
        count *= size
    return count
