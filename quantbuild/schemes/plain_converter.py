"""The reference: int8 as TensorFlow documents it, from the source model with a representative dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from quantbuild.errors import StepError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from quantbuild.step import Job
    from quantbuild.tflite.conversion import Prepared


def quantize(job: Job, io: str) -> tuple[bytes, dict[str, Any]]:
    """Return the model quantized from its source, inputs and outputs as `io` says, and what was done.

    Raises StepError where the source or the converter cannot do it.
    """
    import tensorflow as tf

    from quantbuild.tflite import conversion

    prepared = _prepare(job)
    count, feed = _representative(job, prepared.traced)
    converter = prepared.converter
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = feed
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(io)
    data = conversion.finish(prepared, converted(converter.convert))
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


def converted(convert: Callable[[], bytes]) -> bytes:
    """Run the converter and turn its own errors, which are about the model, into ours."""
    from quantbuild.tflite import capabilities
    from quantbuild.tflite.conversion import first_line

    try:
        return bytes(convert())
    except (capabilities.converter_error(), RuntimeError, ValueError) as error:
        raise StepError(
            f"TensorFlow cannot quantize the model to int8: {first_line(error)}; try float16 or dynamic"
        ) from error
