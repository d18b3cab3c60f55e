"""Scheme: 8-bit weights (per channel) and activations, integer arithmetic throughout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from quantbuild.errors import StepError
from quantbuild.step import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from quantbuild.tflite.conversion import Prepared
    from quantbuild.tflite.graph import ModelT
    from quantbuild.tflite.statistics_file import Statistics

TOOLS: tuple[str, ...] = ("tensorflow", "keras", "ai-edge-litert", "flatbuffers", "numpy")
WORKER = "tensorflow"


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A variant's own keys."""

    io: Literal["int8", "uint8", "float32"] = "float32"
    """What the model's float inputs and outputs become."""
    ranges: Literal["minmax", "sample_mean"] = "minmax"
    """How activation ranges follow from the calibration samples; engine "tflite" knows its own only."""
    engine: Literal["quantbuild", "tflite"] = "quantbuild"
    """The plain converter, calibrating anew: the reference to compare with."""
    bias_correction: bool | None = None
    """Whether biases make up for what rounding the weights takes from the mean result; absent is no."""
    equalize: bool = False
    """Whether channels are scaled between layers beforehand, so that one step per tensor suits them all."""

    def __post_init__(self) -> None:
        """Refuse what the plain converter does not know."""
        if self.engine == "tflite" and self.ranges != "minmax":
            raise ValueError('ranges: engine = "tflite" takes its own minima and maxima; remove one of the two')
        for key in ("bias_correction", "equalize"):
            if self.engine == "tflite" and getattr(self, key):
                raise ValueError(f'{key}: engine = "tflite" is the plain converter; remove one of the two')


def needs(options: Options) -> frozenset[str]:
    """Return which inputs it needs beside the float model."""
    return frozenset({"samples", "source"}) if options.engine == "tflite" else frozenset({"statistics"})


def quantize(job: Job, options: Options) -> dict[str, Any]:
    """Write ``job.outputs["model"]`` and return what was done, ops left in float included.

    Raises StepError where an input or output cannot become what ``io`` asks for.
    """
    from quantbuild.tflite import describe

    data, done = _by_converter(job, options) if options.engine == "tflite" else _by_ranges(job, options)
    model = describe.read(data)
    _check_io(model, options.io)
    Path(job.outputs["model"]).write_bytes(data)
    return {"engine": options.engine, "io": options.io, **done, "float_ops": describe.float_ops(model)}


def _by_ranges(job: Job, options: Options) -> tuple[bytes, dict[str, Any]]:
    """Quantize with the ranges of the calibrate step written into the float model."""
    from quantbuild.tflite import capabilities, describe, graph, ranges, statistics_file

    mlir_quantize = capabilities.mlir_quantize()
    import tensorflow as tf

    model = describe.read(Path(job.inputs["model"]).read_bytes())
    statistics = statistics_file.read(Path(job.inputs["statistics"]))
    chosen = ranges.choose(model, statistics, options.ranges)
    ranges.inject(model, chosen)
    corrected = _correct(model, statistics) if options.bias_correction else None
    kind = tf.dtypes.as_dtype(options.io)
    # fully_quantize stays False: True makes inputs and outputs int8 whatever the two types say.
    data = _converted(
        lambda: mlir_quantize(
            graph.write(model),
            disable_per_channel=False,
            fully_quantize=False,
            input_data_type=kind,
            output_data_type=kind,
        )
    )
    return data, {
        "ranges": options.ranges,
        "ranged_tensors": len(chosen),
        "clipped_tensors": _clipped(model, options, chosen),
        "bias_correction": corrected,
    }


def _correct(model: ModelT, statistics: Statistics) -> dict[str, Any]:
    """Correct the biases of `model`, which is changed, and return what was done."""
    from quantbuild.tflite import bias_correction

    return bias_correction.apply(model, bias_correction.corrections(model, statistics))


def _clipped(model: ModelT, options: Options, chosen: dict[int, tuple[float, float]]) -> int:
    from quantbuild.tflite import ranges

    return 0 if options.ranges == "minmax" else len(set(chosen) - ranges.never_clipped(model))


def _by_converter(job: Job, options: Options) -> tuple[bytes, dict[str, Any]]:
    """Quantize as TensorFlow documents it: from the source model, with a representative dataset."""
    import tensorflow as tf

    from quantbuild.tflite import conversion

    prepared = _prepare(job)
    count, feed = _representative(job, prepared.traced)
    converter = prepared.converter
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = feed
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(options.io)
    data = conversion.finish(prepared, _converted(converter.convert))
    return data, {"ranges": "tflite", "samples": count}


def _prepare(job: Job) -> Prepared:
    """Return the conversion of the model's source, not yet run."""
    import importlib

    how = job.parameters["source"]
    source = importlib.import_module(f"quantbuild.sources.{how['source']}")
    prepare = getattr(source, "prepare", None)
    if prepare is None:
        raise StepError(
            f'engine = "tflite" converts from a TensorFlow or Keras model, not source = "{how["source"]}"; '
            'use engine = "quantbuild"'
        )
    prepared: Prepared = prepare(msgspec.structs.replace(job, parameters=how, inputs={"model": job.inputs["source"]}))
    return prepared


def _representative(job: Job, traced: Mapping[str, str]) -> tuple[int, Callable[[], Iterator[dict[str, NDArray[Any]]]]]:
    """Return the count of samples and a generator function over them, those held back left out."""
    from quantbuild.datasets import samples as datasets
    from quantbuild.tflite import describe, feeding, graph

    found, indices = datasets.load(job.parameters["dataset"], Path(job.root))
    held = job.parameters.get("hold_back")
    if held is not None:
        indices, _ = datasets.hold_back(indices, found.labels, held["fraction"], held["seed"])
    model = describe.read(Path(job.inputs["model"]).read_bytes())
    names, _ = graph.signature_maps(model)
    # The calibrate step's own checks: the converter takes a missing batch axis and NaN silently.
    encode = feeding.feeder(model)

    def feed() -> Iterator[dict[str, NDArray[Any]]]:
        for index in indices:
            try:
                arrays = encode(index, found[index])
            except feeding.SampleError as error:
                raise StepError(f"{datasets.place(job.parameters['dataset'])}: {error}") from error
            yield {traced[name]: arrays[tensor] for name, tensor in names.items()}

    return len(indices), feed


def _converted(convert: Callable[[], bytes]) -> bytes:
    """Run the converter and turn its own errors, which are about the model, into ours."""
    from quantbuild.tflite import capabilities
    from quantbuild.tflite.conversion import first_line

    try:
        return bytes(convert())
    except (capabilities.converter_error(), RuntimeError, ValueError) as error:
        raise StepError(
            f"TensorFlow cannot quantize the model to int8: {first_line(error)}; try float16 or dynamic"
        ) from error


def _check_io(model: ModelT, io: str) -> None:
    """Refuse a float input or output where integers were asked for: the op beside it stayed float."""
    from quantbuild.tflite import graph

    if io == "float32":
        return
    inputs, outputs = graph.signature_maps(model)
    for name, index in [*inputs.items(), *outputs.items()]:
        if graph.type_name(graph.main(model).tensors[index]) == "FLOAT32":
            raise StepError(f'"{name}" stays float32: its op has no int8 kernel; set io = "float32", not "{io}"')
