"""Which version of each op a .tflite needs, and the oldest TensorFlow Lite runtime that has them all.

litert-quantizer leaves every op's version as it was in the float model. A runtime takes that number at its word: one
that lacks the kernel's per-channel path runs such a file and gives wrong numbers (a dynamic-range FULLY_CONNECTED in
tflite-runtime 2.14: probabilities off by 0.9). So the versions follow from the types here, and `stamp` writes them.

The tables are beside this module, with where and when they were read. What they do not hold is unknown, never guessed.
"""

from __future__ import annotations

import collections
import math
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from quantbuild.release import numbers
from quantbuild.tflite import graph

NOTE = "min_runtime_version"
"""Name of the metadata in which a converter notes the oldest runtime; its buffer is 16 bytes, padded with zeros."""
NOTE_BYTES = 16

_BELOW_A_BYTE = frozenset({"INT4", "UINT4", "INT2"})


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An op has this version where all that is set here holds; the first rule that holds decides.

    `inputs` and `outputs` map a position to tensor types (``INT8|UINT8``); `per_channel` is the input with several
    scales; `rescale_from` is the least product of the inputs' scales over the output's.
    """

    version: int
    inputs: dict[int, str] = {}
    outputs: dict[int, str] = {}
    per_channel: int | None = None
    per_channel_output: int | None = None
    option: str | None = None
    option_off: str | None = None
    input_count: int | None = None
    rescale_from: float | None = None


class Tables(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """versions.json. `runtime` has, by op, the oldest runtime of version 1, 2 and so on; null for one never out."""

    runtime_source: str
    needed_source: str
    read: str
    needed: dict[str, tuple[Rule, ...]]
    runtime: dict[str, tuple[str | None, ...]]


@cache
def tables() -> Tables:
    """Return the tables, read once."""
    return msgspec.json.decode(Path(__file__).with_suffix(".json").read_bytes(), type=Tables)


def op_versions(model: graph.ModelT) -> list[dict[str, Any]]:
    """Return ``{"op", "version", "count", "runtime"}`` for each op and version needed, sorted.

    `version` is None where it cannot be told; `runtime` is the oldest that has it, None where that is not known, as of
    every custom op: it is no part of any runtime.
    """
    counted = collections.Counter(
        (graph.op_name(model, operator), graph.is_custom(model, operator), _needed(model, part, operator))
        for part in model.subgraphs
        for operator in part.operators or []
    )
    found = sorted(counted.items(), key=lambda item: (item[0][0], item[0][2] or 0))
    return [
        {"op": op, "version": version, "count": count, "runtime": None if custom else runtime_of(op, version)}
        for (op, custom, version), count in found
    ]


def runtime_of(op: str, version: int | None) -> str | None:
    """Return the oldest runtime that has `version` of a builtin op, None where that is not known."""
    known = tables().runtime.get(op, ())
    return known[version - 1] if version is not None and 0 < version <= len(known) else None


def minimal_runtime(versions: list[dict[str, Any]]) -> str | None:
    """Return the oldest runtime that has all of `op_versions`' result, None where one of them is not known."""
    runtimes = [found["runtime"] for found in versions]
    return None if not runtimes or None in runtimes else max(runtimes, key=numbers)


def unknown(versions: list[dict[str, Any]]) -> list[str]:
    """Return the ops that leave the oldest runtime unknown: ``CAST 9``, or a custom op's name."""
    return [_text(found) for found in versions if found["runtime"] is None]


def noted_runtime(model: graph.ModelT) -> str | None:
    """Return the oldest runtime as the file itself notes it; None where it does not."""
    for entry in model.metadata or []:
        if graph.text(entry.name) == NOTE:
            found = bytes(model.buffers[entry.buffer].data).split(b"\0")[0].decode("ascii", "replace")
            return found or None
    return None


def stamp(data: bytes) -> bytes:
    """Return `data` with the versions its ops need and the note of the oldest runtime; `data` itself where it has both.

    With the versions in it a runtime that is too old refuses the file instead of running it wrong.
    """
    model = graph.read(data)
    raised = _raise_versions(model)
    if not raised and noted_runtime(model) is not None:
        return data
    runtime = minimal_runtime(op_versions(model))
    if not raised and runtime is None:
        return data
    _note(model, runtime)
    return graph.write(model)


def _raise_versions(model: graph.ModelT) -> bool:
    raised = False
    for part in model.subgraphs:
        for operator in part.operators or []:
            needed, code = _needed(model, part, operator), model.operatorCodes[operator.opcodeIndex]
            if needed is not None and needed > code.version:
                code.version, raised = needed, True
    return raised


def _note(model: graph.ModelT, runtime: str | None) -> None:
    """Replace the note, which is the float model's; without a known runtime there is none."""
    model.metadata = [entry for entry in model.metadata or [] if graph.text(entry.name) != NOTE]
    if runtime is not None:
        value = np.frombuffer(runtime.encode().ljust(NOTE_BYTES, b"\0"), np.uint8)
        graph.add_metadata(model, NOTE, value)


def _needed(model: graph.ModelT, part: graph.SubGraphT, operator: graph.OperatorT) -> int | None:
    """Return the version that an op needs: by its types, but not below what the file says of it.

    The converter sees to what follows from options and shapes, which quantization does not change. None for types
    of fewer than 8 bits that no rule is about.
    """
    written = max(int(model.operatorCodes[operator.opcodeIndex].version), 1)
    if graph.is_custom(model, operator):
        return written
    inputs, outputs = _tensors(part, operator.inputs), _tensors(part, operator.outputs)
    for rule in tables().needed.get(graph.op_name(model, operator), ()):
        if _holds(rule, operator, inputs, outputs):
            return max(rule.version, written)
    kinds = {graph.type_name(tensor) for tensor in (*inputs, *outputs) if tensor is not None}
    return None if kinds & _BELOW_A_BYTE else written


Tensors = list[Any]


def _tensors(part: graph.SubGraphT, places: Any) -> Tensors:
    return [part.tensors[index] if index >= 0 else None for index in graph.indices(places)]


def _holds(rule: Rule, operator: graph.OperatorT, inputs: Tensors, outputs: Tensors) -> bool:
    options = operator.builtinOptions
    return (
        all(_is(inputs, place, kinds) for place, kinds in rule.inputs.items())
        and all(_is(outputs, place, kinds) for place, kinds in rule.outputs.items())
        and (rule.per_channel is None or _scales(inputs, rule.per_channel) > 1)
        and (rule.per_channel_output is None or _scales(outputs, rule.per_channel_output) > 1)
        and (rule.option is None or bool(getattr(options, rule.option, False)))
        and (rule.option_off is None or getattr(options, rule.option_off, True) is False)
        and (rule.input_count is None or len(inputs) == rule.input_count)
        and (rule.rescale_from is None or _rescale(inputs, outputs) >= rule.rescale_from)
    )


def _is(tensors: Tensors, place: int, kinds: str) -> bool:
    tensor = tensors[place] if place < len(tensors) else None
    return tensor is not None and graph.type_name(tensor) in kinds.split("|")


def _scales(tensors: Tensors, place: int) -> int:
    tensor = tensors[place] if place < len(tensors) else None
    how = None if tensor is None else tensor.quantization
    return 0 if how is None or how.scale is None else len(how.scale)


def _rescale(inputs: Tensors, outputs: Tensors) -> float:
    """Return the product of the inputs' scales over the output's; 0 where one of them has none."""
    tensors = [*inputs[:2], *outputs[:1]]
    if len(tensors) < 3 or any(_scales(tensors, place) == 0 for place in range(3)):
        return 0.0
    scales = [float(tensor.quantization.scale[0]) for tensor in tensors]
    return math.inf if scales[2] == 0 else scales[0] * scales[1] / scales[2]


def _text(found: dict[str, Any]) -> str:
    return found["op"] if found["op"] not in tables().runtime else f"{found['op']} {found['version'] or 'of INT4'}"
