"""Scheme: 8-bit weights (per channel) and activations, integer arithmetic throughout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from quantbuild.errors import StepError
from quantbuild.nodes import patterns
from quantbuild.step import Job
from quantbuild.tflite import range_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from quantbuild.tflite.graph import ModelT
    from quantbuild.tflite.kept import Kept
    from quantbuild.tflite.ranges import Ranges
    from quantbuild.tflite.statistics_file import Statistics

TOOLS: tuple[str, ...] = ("tensorflow", "keras", "litert-quantizer", "ai-edge-litert", "flatbuffers", "numpy")
WORKER = "tensorflow"


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A variant's own keys."""

    io: Literal["int8", "uint8", "float32"] = "float32"
    """What the model's float inputs and outputs become."""
    ranges: range_options.AutoChoice = "auto"
    """How activation ranges follow from the calibration samples; engine "tflite" knows its own only."""
    bias_correction: bool | None = None
    """Whether biases make up for what rounding the weights takes from the mean result; absent: tried where ranges are
    "auto", else no."""
    equalize: bool = False
    """Whether channels are scaled between layers beforehand, so that one step per tensor suits them all."""
    engine: Literal["quantbuild", "tflite"] = "quantbuild"
    """The plain converter, calibrating anew: the reference to compare with."""
    keep_float: tuple[str, ...] = ()
    """Nodes that compute in float, by pattern."""
    keep_int16: tuple[str, ...] = ()
    """Nodes whose activations have 16 bits, by pattern."""
    per_tensor_weights: bool = False
    """One scale for all of a weight, not one a channel: for hardware that knows no other."""

    def __post_init__(self) -> None:
        """Bring ranges into their one normal form; refuse what the plain converter does not know and bad patterns."""
        msgspec.structs.force_setattr(self, "ranges", range_options.canonical_auto(self.ranges))
        if self.engine == "tflite":
            if self.ranges not in ("auto", "minmax"):
                raise ValueError('ranges: engine = "tflite" takes its own minima and maxima; remove one of the two')
            for key in ("bias_correction", "equalize", "keep_float", "keep_int16", "per_tensor_weights"):
                if getattr(self, key):
                    raise ValueError(f'{key}: engine = "tflite" is the plain converter; remove one of the two')
        patterns.check("keep_float", self.keep_float)
        patterns.check("keep_int16", self.keep_int16)


def worker(options: Mapping[str, Any]) -> str:
    """Return the kind of worker that a step with these options needs: litert-quantizer does without TensorFlow."""
    return "litert" if options.get("keep_int16") else WORKER


def needs(options: Options) -> frozenset[str]:
    """Return which inputs it needs beside the float model."""
    if options.engine == "tflite":
        return frozenset({"samples", "source"})
    needed = {"statistics"}
    if range_options.is_auto(options.ranges):
        needed.add("selection")
    if options.equalize or range_options.needs_histograms(options.ranges):
        needed.add("calibration")
    return frozenset(needed)


def driver(options: Options) -> str | None:
    """Return the driver that makes it out of other steps; None where one step does."""
    return "auto" if needs(options) & {"selection", "calibration"} else None


def quantize(job: Job, options: Options) -> dict[str, Any]:
    """Write ``job.outputs["model"]`` and return what was done, ops left in float included.

    Raises StepError where an input or output cannot become what ``io`` asks for.
    """
    from quantbuild.schemes import plain_converter
    from quantbuild.tflite import describe

    if options.engine == "tflite":
        data, done = plain_converter.quantize(job, options.io)
    else:
        data, done = _by_ranges(job, options)
    model = describe.read(data)
    _check_io(model, options.io)
    Path(job.outputs["model"]).write_bytes(data)
    return {"engine": options.engine, "io": options.io, **done, "float_ops": describe.float_ops(model)}


def _by_ranges(job: Job, options: Options) -> tuple[bytes, dict[str, Any]]:
    """Quantize with the ranges of the calibrate step written into the float model."""
    from quantbuild.tflite import describe, floors, histograms_file, kept, ranges, statistics_file

    model = describe.read(Path(job.inputs["model"]).read_bytes())
    statistics = statistics_file.read(Path(job.inputs["statistics"]))
    histograms = histograms_file.read(Path(job.inputs["histograms"])) if "histograms" in job.inputs else None
    method = range_options.settled(options.ranges)
    chosen = ranges.choose(model, statistics, method, histograms)
    clipping = ranges.clipping(statistics, chosen)
    floors.shorten(model, ranges.seen(statistics))
    keeping = kept.choose(model, options.keep_float, options.keep_int16)
    corrected = _correct(model, statistics, keeping, options) if options.bias_correction else None
    data, done = quantizer(keeping)(model, chosen, keeping, options)
    return data, {
        "ranges": range_options.words(method),
        "ranged_tensors": len(chosen),
        "clipped_tensors": clipping.tensors,
        "most_clipped": None if clipping.most is None else {"tensor": clipping.most, "kept": clipping.kept},
        "bias_correction": corrected,
        **done,
    }


def quantizer(keeping: Kept) -> Callable[[ModelT, Ranges, Kept, Options], tuple[bytes, dict[str, Any]]]:
    """Return what can keep these nodes from int8.

    Nothing that is denied keeps TRANSPOSE_CONV from TensorFlow: it joins the op's name with that of its weights.
    """
    beyond_tensorflow = keeping.int16 or any(node.op == "TRANSPOSE_CONV" for node in keeping.float32)
    return _by_litert_quantizer if beyond_tensorflow else _by_mlir_quantize


def _correct(model: ModelT, statistics: Statistics, keeping: Kept, options: Options) -> dict[str, Any]:
    """Correct the biases of `model`, which is changed, and return what was done."""
    from quantbuild.tflite import bias_correction

    skip = frozenset(node.index for node in keeping.float32)
    per_channel = not options.per_tensor_weights
    found = bias_correction.corrections(model, statistics, skip=skip, per_channel=per_channel)
    return bias_correction.apply(model, found)


def _by_mlir_quantize(model: ModelT, chosen: Ranges, keeping: Kept, options: Options) -> tuple[bytes, dict[str, Any]]:
    """Quantize with TensorFlow, which has the most int8 kernels. Changes `model`."""
    from quantbuild.schemes import plain_converter
    from quantbuild.tflite import capabilities, denylist, graph, kept, ranges, signatures

    mlir_quantize = capabilities.mlir_quantize()
    import tensorflow as tf

    ranges.inject(model, chosen)
    marks = denylist.mark(model, keeping.float32)
    kind = tf.dtypes.as_dtype(options.io)
    # fully_quantize stays False: True makes inputs and outputs int8 whatever the two types say.
    data = plain_converter.converted(
        lambda: mlir_quantize(
            graph.write(model),
            disable_per_channel=options.per_tensor_weights,
            fully_quantize=False,
            input_data_type=kind,
            output_data_type=kind,
            denylisted_nodes=set(marks) or None,
        )
    )
    quantized = graph.read(data)
    restored = signatures.restore(quantized, model)
    if not marks:
        return graph.write(quantized) if restored else data, {"kept_float": []}
    done = kept.in_float(quantized, keeping.float32, denylist.operators(quantized, marks))
    denylist.unmark(quantized, marks)
    return graph.write(quantized), done


def _by_litert_quantizer(
    model: ModelT, chosen: Ranges, keeping: Kept, options: Options
) -> tuple[bytes, dict[str, Any]]:
    """Quantize with litert-quantizer, which goes by op whatever its kind, and knows 16-bit activations."""
    from quantbuild.tflite import graph, kept, static_integer

    precision = static_integer.Precision(
        bits=8,
        int16=frozenset(node.index for node in keeping.int16),
        float32=frozenset(node.index for node in keeping.float32),
        io=options.io,
        per_tensor_weights=options.per_tensor_weights,
    )
    done = static_integer.quantize(graph.write(model), chosen, precision)
    int16, instead = kept.with_int16(done.model, keeping.int16, done.operators)
    return graph.write(done.model), {
        "quantizer": "litert-quantizer",
        **kept.in_float(done.model, keeping.float32, done.operators),
        "kept_int16": kept.told(int16),
        **({"float_instead_of_int16": kept.told(instead)} if instead else {}),
    }


def _check_io(model: ModelT, io: str) -> None:
    """Refuse a float input or output where integers were asked for: the op beside it stayed float."""
    from quantbuild.tflite import graph

    if io == "float32":
        return
    inputs, outputs = graph.signature_maps(model)
    for name, index in [*inputs.items(), *outputs.items()]:
        tensor = graph.main(model).tensors[index]
        if graph.type_name(tensor) == "FLOAT32" and graph.is_constant(model, tensor):
            raise StepError(f'output "{name}" is a constant and stays float32; set io = "float32", not "{io}"')
        if graph.type_name(tensor) == "FLOAT32":
            raise StepError(f'"{name}" stays float32: its op has no int8 kernel; set io = "float32", not "{io}"')
