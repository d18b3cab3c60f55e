"""Model source: a TensorFlow SavedModel folder, one signature of it traced at static shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantbuild.errors import StepError
from quantbuild.step import Job

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from quantbuild.tflite.conversion import Prepared

TOOLS: tuple[str, ...] = ("tensorflow", "keras", "ai-edge-litert", "flatbuffers", "numpy")
WORKER = "tensorflow"


def files(path: str, inputs: Sequence[str]) -> list[str]:
    """Return the model's path."""
    del inputs
    return [path]


def convert(job: Job) -> bytes:
    """Return the float32 .tflite of one signature of the SavedModel in ``job.inputs["model"]``.

    Without ``signature`` it is "serving_default", else the only one. Inputs and outputs keep their
    names; the .tflite's signature is "serving_default" whatever the SavedModel calls it.
    """
    from quantbuild.tflite import conversion

    return conversion.convert(prepare(job))


def prepare(job: Job) -> Prepared:
    """Return the conversion, not yet run."""
    from quantbuild.tflite import conversion, shapes

    loaded = _load(job.inputs["model"])
    signature = _signature(loaded, job.parameters.get("signature"))
    specs = signature.structured_input_signature[1]
    declared = {name: _declared(specs[name].shape) for name in sorted(specs)}
    dtypes = {name: specs[name].dtype.name for name in declared}
    static = shapes.pin(declared, job.parameters.get("input_shapes") or {})

    # An outer trace at static shapes: the converter inlines the signature and infers every shape behind
    # it. `from_saved_model` would keep the dynamic batch, and with it 64 shape ops in EfficientNetB0.
    def serve(inputs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(signature(**inputs))

    return conversion.prepare(serve, static, dtypes, loaded)


def _load(path: str) -> Any:
    from pathlib import Path

    folder = Path(path)
    if not folder.is_dir():
        raise StepError('it is no folder; a SavedModel is one (a .keras file has source = "keras")')
    if not any((folder / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        raise StepError('the folder holds no saved_model.pb; write it with model.export("folder")')

    import tensorflow as tf

    from quantbuild.tflite.conversion import first_line

    try:
        return tf.saved_model.load(path)
    except Exception as error:  # protobuf, OS and TensorFlow errors alike
        raise StepError(
            f"TensorFlow {tf.__version__} cannot load the SavedModel: {first_line(error)}; export it again"
        ) from error


def _signature(loaded: Any, wanted: str | None) -> Any:
    """Return the signature's concrete function. Raises StepError, listing what there is."""
    known = sorted(loaded.signatures)
    listed = ", ".join(known) or "none"
    if wanted is None:
        if "serving_default" in known:
            wanted = "serving_default"
        elif len(known) == 1:
            wanted = known[0]
        else:
            raise StepError(f'the SavedModel has no signature "serving_default"; set signature to one of {listed}')
    if wanted not in known:
        raise StepError(f'the SavedModel has no signature "{wanted}"; set signature to one of {listed}')
    return loaded.signatures[wanted]


def _declared(shape: Any) -> tuple[int | None, ...] | None:
    return None if shape.rank is None else tuple(shape.as_list())
