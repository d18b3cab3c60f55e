"""Model source: a Keras file (.keras, or a legacy .h5), read in safe mode and traced at batch 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantbuild.errors import StepError
from quantbuild.sources import legacy_keras
from quantbuild.step import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from quantbuild.tflite.conversion import Prepared

TOOLS: tuple[str, ...] = ("tensorflow", "keras", "ai-edge-litert", "flatbuffers", "numpy")
WORKER = "tensorflow"

REMEDY = 'save it with model.save("model.keras") under Keras 3, or model.export("folder") and source = "saved_model"'


def files(path: str, inputs: Sequence[str]) -> list[str]:
    """Return the model's file."""
    del inputs
    return [path]


def tools(path: str) -> tuple[str, ...]:
    """Return what reads the file at `path` besides TOOLS: the legacy readers never see a .keras file."""
    return legacy_keras.TOOLS if legacy_keras.is_named_hdf5(path) else ()


def convert(job: Job) -> bytes:
    """Return the float32 .tflite of ``job.inputs["model"]``.

    Inputs are named as in the model (a dict of inputs by its keys), outputs by their dict keys or the
    layers that make them; ``input_shapes`` pins free dimensions.
    """
    from quantbuild.tflite import conversion

    return conversion.convert(prepare(job))


def prepare(job: Job) -> Prepared:
    """Return the conversion, not yet run."""
    return prepare_file(job.inputs["model"], job.parameters)


def prepare_file(path: str, parameters: Mapping[str, Any]) -> Prepared:
    """Return the conversion of the Keras file at `path`; `parameters` are those of the convert action."""
    check_signature(parameters.get("signature"))
    return prepare_model(_load(path), parameters)


def prepare_model(model: Any, parameters: Mapping[str, Any]) -> Prepared:
    """Return the conversion of a Keras model, Keras 3's or tf_keras's."""
    if not getattr(model, "inputs", None):
        raise StepError(
            "the model has no inputs of its own (a subclassed model, or one never built); "
            'model.export("folder") gives it some: use that with source = "saved_model"'
        )
    if type(model).__module__.startswith("tf_keras"):
        return legacy_keras.prepare_model(model, parameters)

    import tensorflow as tf

    from quantbuild.tflite import conversion, shapes

    names = _input_names(model)
    declared = {name: tuple(tensor.shape) for name, tensor in zip(names, model.inputs, strict=True)}
    dtypes = {name: str(tensor.dtype) for name, tensor in zip(names, model.inputs, strict=True)}
    static = shapes.pin(declared, parameters.get("input_shapes") or {})
    # Keras 3 tracks its variables outside TensorFlow's tracking: handed over as a Keras model, the
    # converter finds none of them and writes a model without weights.
    holder = tf.Module()
    holder.kept = [variable.value for variable in model.variables]
    return conversion.prepare(_serving(model, names), static, dtypes, holder)


def _serving(model: Any, names: list[str]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return the function that is traced: inputs by name in, outputs by name out, inference mode."""

    def serve(inputs: Mapping[str, Any]) -> dict[str, Any]:
        from keras import tree

        flat = [inputs[name] for name in names]
        arguments = flat[0] if _is_single(model) else tree.pack_sequence_as(model.input, flat)
        outputs = model(arguments, training=False)
        return dict(zip(_output_names(model), tree.flatten(outputs), strict=True))

    return serve


def _input_names(model: Any) -> list[str]:
    """Return one name per flattened input: a dict's keys, else the input layers' names."""
    if not _is_single(model) and _is_flat(model.input, model.inputs):
        return sorted(model.input)
    return [tensor.name for tensor in model.inputs]


def _output_names(model: Any) -> list[str]:
    """Return one name per flattened output: a dict's keys, else the layers' names where they differ."""
    if _is_single(model):
        return [model.layers[-1].name]
    if _is_flat(model.output, model.outputs):
        return sorted(model.output)
    names = list(model.output_names)
    return names if len(set(names)) == len(names) else [f"output_{i}" for i in range(len(names))]


def _is_flat(structure: Any, tensors: list[Any]) -> bool:
    """Whether it is a dict of tensors, which Keras flattens in the keys' order, and holds no other level."""
    return isinstance(structure, dict) and len(structure) == len(tensors)


def _is_single(model: Any) -> bool:
    """Whether it is a Sequential model, which has no `input` of its own in Keras 3."""
    import keras

    return isinstance(model, keras.Sequential)


def choose_backend() -> None:
    """Let Keras run on TensorFlow; to be called before Keras is imported.

    The manifest decides: a KERAS_BACKEND or keras.json of the user's must not choose another backend.
    """
    import os

    os.environ["KERAS_BACKEND"] = "tensorflow"


def _load(path: str) -> Any:
    import zipfile
    from pathlib import Path

    if Path(path).is_dir():
        raise StepError('it is a folder, not a .keras file; use source = "saved_model" for a SavedModel')
    choose_backend()
    if legacy_keras.is_hdf5(path):
        if not legacy_keras.is_named_hdf5(path):
            name = Path(path).with_suffix(".h5").name
            raise StepError(f"it is a legacy HDF5 model under another name; name it {name}")
        return legacy_keras.load(path)
    if not zipfile.is_zipfile(path):
        raise StepError(f"it is no .keras file (a zip archive that Keras 3 writes); {REMEDY}")
    with zipfile.ZipFile(path) as archive:
        if not {"config.json", "model.weights.h5"} <= set(archive.namelist()):
            raise StepError(f"the archive holds no Keras model (config.json, model.weights.h5); {REMEDY}")
    import keras

    from quantbuild.tflite.conversion import first_line

    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever a layer's constructor does
        raise StepError(f"Keras {keras.__version__} cannot load it: {first_line(error)}; {REMEDY}") from error
    return model


def check_signature(signature: str | None) -> None:
    """Raise StepError for a signature that a Keras model does not have."""
    if signature not in (None, "serving_default"):
        raise StepError(f'a .keras file has the signature "serving_default" only, not "{signature}"; remove the key')
