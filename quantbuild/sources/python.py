"""Model source: a Python function of the user's that returns a Keras model, a concrete function, or a path to a model.

It reads declared files alone (``inputs``); reading another one under the root is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from quantbuild.declared_files import fixed_part, import_function, module_file, only_declared
from quantbuild.errors import StepError
from quantbuild.step import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from quantbuild.tflite.conversion import Prepared

TOOLS: tuple[str, ...] = ("tensorflow", "keras", "tf_keras", "h5py", "ai-edge-litert", "flatbuffers", "numpy")
WORKER = "tensorflow"
REFERENCE = True
"""`path` names a function (``package.module:function``), and `inputs` the files it reads."""

_KINDS = "a Keras model, a concrete function, or a path to a .keras, .h5, .tflite or SavedModel"


def files(path: str, inputs: Sequence[str]) -> list[str]:
    """Return the function's file and the fixed part of each pattern it declares: what the manifest alone decides."""
    return list(dict.fromkeys([module_file(path), *map(fixed_part, inputs)]))


def convert(job: Job) -> bytes:
    """Return the float32 .tflite of what the function returns."""
    from quantbuild.sources import tflite
    from quantbuild.tflite import conversion

    made = _call(job)
    if isinstance(made, str | Path):
        path = _declared_path(job, made)
        if path.suffix == ".tflite":
            return tflite.convert(msgspec.structs.replace(job, inputs={"model": str(path)}))
    return conversion.convert(_prepare(job, made))


def prepare(job: Job) -> Prepared:
    """Return the conversion, not yet run."""
    return _prepare(job, _call(job))


def _prepare(job: Job, made: Any) -> Prepared:
    from quantbuild.sources import keras, saved_model

    if isinstance(made, str | Path):
        path = _declared_path(job, made)
        if path.is_dir():
            return saved_model.prepare(msgspec.structs.replace(job, inputs={"model": str(path)}))
        if path.suffix == ".tflite":
            raise StepError(f"it returns {path.name}, from which the plain converter cannot start; leave engine out")
        return keras.prepare_file(str(path), job.parameters)
    if hasattr(made, "structured_input_signature"):
        return _prepare_function(made, job.parameters)
    if _is_keras_model(made):
        keras.check_signature(job.parameters.get("signature"))
        return keras.prepare_model(made, job.parameters)
    raise StepError(f"it returns {type(made).__name__}; return {_KINDS}")


def _is_keras_model(made: Any) -> bool:
    """Whether it is a model of either Keras, or of a class of the user's that is one; imports neither."""
    classes = [kind for kind in type(made).__mro__ if kind.__name__ == "Model"]
    return any(kind.__module__.split(".")[0] in ("keras", "tf_keras") for kind in classes)


def _prepare_function(function: Any, parameters: Mapping[str, Any]) -> Prepared:
    """Return the conversion of a concrete function: inputs by their names, outputs by dict keys or position."""
    from quantbuild.sources import keras
    from quantbuild.tflite import conversion, shapes

    keras.check_signature(parameters.get("signature"))
    positional, named = function.structured_input_signature
    specs = {spec.name or f"input_{place}": spec for place, spec in enumerate(positional)} | dict(named)
    declared = {name: None if spec.shape.rank is None else tuple(spec.shape.as_list()) for name, spec in specs.items()}
    static = shapes.pin(declared, parameters.get("input_shapes") or {})
    dtypes = {name: spec.dtype.name for name, spec in specs.items()}
    order = list(specs)[: len(positional)]

    def serve(inputs: Mapping[str, Any]) -> dict[str, Any]:
        import tensorflow as tf

        result = function(*(inputs[name] for name in order), **{n: inputs[n] for n in inputs if n not in order})
        if isinstance(result, dict):
            return dict(result)
        return {f"output_{place}": tensor for place, tensor in enumerate(tf.nest.flatten(result))}

    import tensorflow as tf

    holder = tf.Module()
    try:
        holder.kept = list(function.graph.variables)
    except AssertionError as error:  # TensorFlow's word for variables that nobody holds any more
        raise StepError(
            "the concrete function's variables are gone, since they were local to the function that made it; "
            "keep them in the module"
        ) from error
    return conversion.prepare(serve, static, dtypes, holder)


def _call(job: Job) -> Any:
    """Run the user's function under the guard. Raises StepError for what it raises, in one line."""
    from quantbuild.sources import keras
    from quantbuild.tflite.conversion import first_line

    keras.choose_backend()
    reference: str = job.parameters["function"]
    root = Path(job.root)
    with only_declared(root, [module_file(reference), *job.parameters["inputs"]], place=reference):
        function: Callable[[], Any] = import_function(reference, root, place=reference)
        try:
            return function()
        except StepError:
            raise
        except Exception as error:  # the user's code: anything may come
            raise StepError(f"{reference} raised {type(error).__name__}: {first_line(error)}; see its log") from error


def _declared_path(job: Job, made: str | Path) -> Path:
    """Return the path a function returned, made absolute; it must be among the declared inputs.

    What TensorFlow's own readers open the guard does not see, so the path is compared here.
    """
    root = Path(job.root)
    path = (root / made).resolve()
    declared = [(root / fixed_part(pattern)).resolve() for pattern in job.parameters["inputs"]]
    if not any(path == known or path.is_relative_to(known) for known in declared):
        raise StepError(f'it returns "{made}", which is not declared; add "{made}" to its inputs')
    if not path.exists():
        raise StepError(f'it returns "{made}", which does not exist; correct the path or create it')
    return path
