"""Legacy .h5 models: read by Keras 3 where it can, else by tf_keras, the kept continuation of Keras 2.

Keras 3 refuses older files ("Unrecognized keyword arguments … 'groups'" for a DepthwiseConv2D). Not a plug-in: the
source `keras` uses it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantbuild.errors import StepError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from quantbuild.tflite.conversion import Prepared

TOOLS = ("tf_keras", "h5py")
SUFFIXES = (".h5", ".hdf5")
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


def is_named_hdf5(path: str) -> bool:
    """Whether the name says that it is such a file: what the plan knows of it."""
    return path.lower().endswith(SUFFIXES)


def is_hdf5(path: str) -> bool:
    """Whether the file begins as HDF5 does (HDF5 File Format Specification, III.A)."""
    with Path(path).open("rb") as file:
        return file.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC


def load(path: str) -> Any:
    """Return the model in an .h5 file, of Keras 3 or of tf_keras.

    Raises:
        StepError: the file holds weights alone, or code, or neither Keras can read it.
    """
    _refuse_code(path)
    import keras

    from quantbuild.tflite.conversion import first_line

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # noqa: BLE001 - whatever it is, the older Keras is asked next and both are told
        refusal = first_line(error)
    try:
        import tf_keras
    except ImportError:
        raise StepError(
            f"Keras {keras.__version__} cannot load this .h5 ({refusal}); install tf_keras, which reads older files"
        ) from None
    try:
        return tf_keras.models.load_model(path, compile=False)
    except Exception as error:
        raise StepError(
            f"neither Keras {keras.__version__} ({refusal}) nor tf_keras {tf_keras.__version__} ({first_line(error)}) "
            "can load this .h5; save it again as .keras"
        ) from error


def prepare_model(model: Any, parameters: Mapping[str, Any]) -> Prepared:
    """Return the conversion of a tf_keras model: inputs and outputs by its own names."""
    from quantbuild.tflite import conversion, shapes

    names, outputs = list(model.input_names), list(model.output_names)
    declared = {name: tuple(tensor.shape) for name, tensor in zip(names, model.inputs, strict=True)}
    dtypes = {name: tensor.dtype.name for name, tensor in zip(names, model.inputs, strict=True)}
    static = shapes.pin(declared, parameters.get("input_shapes") or {})
    if len(set(outputs)) != len(outputs):
        outputs = [f"output_{place}" for place in range(len(outputs))]

    def serve(inputs: Mapping[str, Any]) -> dict[str, Any]:
        import tensorflow as tf

        flat = [inputs[name] for name in names]
        result = model(flat[0] if len(flat) == 1 else flat, training=False)
        return dict(zip(outputs, tf.nest.flatten(result), strict=True))

    return conversion.prepare(serve, static, dtypes, model)


def _refuse_code(path: str) -> None:
    """Raise StepError for what would run code: the legacy format has no safe mode. Weights alone are refused too.

    The configuration is compared after parsing: JSON can spell "Lambda" in more than one way.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            config = file.attrs.get("model_config")
    except OSError as error:  # h5py's word for whatever is wrong with the bytes
        raise StepError(f"it cannot be read as HDF5 ({error}); save the model again as .keras") from error
    if config is None:
        raise StepError('the .h5 file holds weights alone; save the whole model: model.save("model.keras")')
    try:
        parts = list(_tables(json.loads(config)))
    except (TypeError, ValueError) as error:
        raise StepError("the .h5 file's model_config is no JSON; save the model again as .keras") from error
    for part in parts:
        module, name = part.get("module"), str(part.get("class_name"))
        if re.split(r"[>.]", name)[-1] in ("Lambda", "__lambda__"):
            raise StepError('the .h5 file holds Python code (a Lambda layer), which is not run; use source = "python"')
        if isinstance(module, str) and "class_name" in part and not _is_of_keras(module):
            raise StepError(f'the .h5 file asks for {name} of {module}, not of Keras; use source = "python"')


def _is_of_keras(module: str) -> bool:
    """Whether it is a part of Keras that models are made of: its utilities download, unpack and write files."""
    first, *rest = module.split(".")
    return first in ("keras", "tf_keras", "builtins") and "utils" not in rest


def _tables(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every JSON object within `value`, itself included."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _tables(inner)
