"""TensorFlow function → float32 .tflite with static shapes, through the public tf.lite.TFLiteConverter."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from quantbuild.errors import StepError
from quantbuild.tflite import capabilities, graph

SIGNATURE = "serving_default"
"""The one signature of every float32.tflite."""

_NUMERIC = ("float32", "float64", "float16", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool")
_SHOWN_CHARACTERS = 240
_PREAMBLE = "Exception encountered when calling"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A conversion that has not run yet."""

    converter: Any
    """The TFLiteConverter; its options may still be set."""
    shapes: Mapping[str, tuple[int, ...]]
    """Input name → static shape."""
    traced: Mapping[str, str]
    """Input name → the name it has for the converter, where only identifiers will do."""


def prepare(
    serve: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, str],
    trackable: Any,
) -> Prepared:
    """Trace `serve`, input name → tensor to output name → tensor, at static `shapes`.

    `trackable` must reach every variable that `serve` reads: one that it does not reach is converted
    to a variable without a value, not to a constant. Raises StepError for an input that is no number
    and where the model cannot take the shapes.
    """
    import tensorflow as tf

    for name, dtype in dtypes.items():
        if dtype not in _NUMERIC:
            raise StepError(f'input "{name}" is of type {dtype}; .tflite models here take numbers only')
    traced = {name: _identifier(name, number) for number, name in enumerate(shapes)}
    specs = {traced[name]: tf.TensorSpec(shapes[name], dtypes[name], name=traced[name]) for name in shapes}

    def serve_traced(**inputs: Any) -> Mapping[str, Any]:
        return serve({name: inputs[traced[name]] for name in shapes})

    try:
        function = tf.function(serve_traced, autograph=False).get_concrete_function(**specs)
    except (ValueError, TypeError, tf.errors.OpError) as error:
        given = ", ".join(f"{name} = {list(shape)}" for name, shape in shapes.items())
        raise StepError(f"the model cannot take {given}: {first_line(error)}; change input_shapes") from error
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], trackable)
    return Prepared(converter=converter, shapes=shapes, traced=traced)


def convert(prepared: Prepared) -> bytes:
    """Run it and check that the result is what was asked for. Raises StepError."""
    try:
        data = bytes(prepared.converter.convert())
    except capabilities.converter_error() as error:
        raise StepError(_reason(str(error))) from error
    return finish(prepared, data)


def finish(prepared: Prepared, data: bytes) -> bytes:
    """Give the converter's result the model's own input names, and check it. Raises StepError."""
    model = graph.read(data)
    renamed = {new: own for own, new in prepared.traced.items() if own != new}
    if renamed:
        for signature in model.signatureDefs or []:
            for entry in signature.inputs:
                own = renamed.get(_text(entry.name))
                entry.name = entry.name if own is None else own
        data = graph.write(model)
    _check(graph.read(data), prepared.shapes)
    return data


def _identifier(name: str, number: int) -> str:
    # tf.function sanitizes any other name behind our back.
    return name if name.isidentifier() and not keyword.iskeyword(name) and name.isascii() else f"input_{number}"


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def first_line(error: BaseException) -> str:
    """Return the first line of a message that says something, cut to what a terminal shows."""
    # Keras puts the cause second, in bold.
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip() and not line.startswith(_PREAMBLE)]
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}…"


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
