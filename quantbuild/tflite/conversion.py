"""TensorFlow function → float32 .tflite with static shapes, through the public tf.lite.TFLiteConverter."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from quantbuild.errors import StepError
from quantbuild.tflite import capabilities, graph

SIGNATURE = "serving_default"
"""The one signature of every float32.tflite."""

_NUMERIC = ("float32", "float64", "float16", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool")
_SHOWN_CHARACTERS = 240


def converter(
    serve: Callable[..., Mapping[str, Any]],
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, str],
    trackable: Any,
) -> Any:
    """Return a TFLiteConverter for ``serve(**inputs) -> {output name: tensor}`` traced at static `shapes`.

    `trackable` must reach every variable that `serve` reads: one that it does not reach is converted
    to a variable without a value, not to a constant. Raises StepError for an input that is no number.
    """
    import tensorflow as tf

    for name, dtype in dtypes.items():
        if dtype not in _NUMERIC:
            raise StepError(f'input "{name}" is of type {dtype}; .tflite models here take numbers only')
    specs = {name: tf.TensorSpec(shapes[name], dtypes[name], name=name) for name in shapes}
    traced = tf.function(serve, autograph=False).get_concrete_function(**specs)
    return tf.lite.TFLiteConverter.from_concrete_functions([traced], trackable)


def convert(prepared: Any, inputs: Mapping[str, tuple[int, ...]]) -> bytes:
    """Run a TFLiteConverter and check that the result is what was asked for.

    `inputs` is what the signature must hold: input name → static shape.
    """
    try:
        data = bytes(prepared.convert())
    except capabilities.converter_error() as error:
        raise StepError(_reason(str(error))) from error
    _check(graph.read(data), inputs)
    return data


def first_line(error: BaseException) -> str:
    """Return the first line with text of a message, cut to what a terminal shows."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:_SHOWN_CHARACTERS]


def _check(model: graph.ModelT, inputs: Mapping[str, tuple[int, ...]]) -> None:
    found, _ = graph.signature_maps(model)
    tensors = graph.main(model).tensors
    if graph.signature_keys(model) != [SIGNATURE] or set(found) != set(inputs):
        raise StepError(
            f"the converter gave the inputs {sorted(found)} where the model has {sorted(inputs)}; "
            "give the model only inputs that it uses"
        )
    for name, shape in inputs.items():
        if graph.shape(tensors[found[name]]) != shape:
            raise StepError(f'input "{name}" came out as {list(graph.shape(tensors[found[name]]))}, not {list(shape)}')
    if "VAR_HANDLE" in graph.op_names(model):
        raise StepError(
            "the model keeps state in variables between runs; export it with its state as inputs and outputs"
        )


def _reason(message: str) -> str:
    """Return one sentence for a ConverterError: the ops it names, else its first line."""
    ops = re.search(r"(TF Select|Custom) ops: (.+)", message)
    if ops:
        return (
            f"TensorFlow Lite has no builtin op for {ops.group(2).strip()}; "
            "replace it in the model (quantbuild builds with builtin ops alone)"
        )
    return f"the TensorFlow Lite converter refused the model: {first_line(ValueError(message))}"
