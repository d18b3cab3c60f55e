"""Guards TensorFlow's private functions: says plainly what is missing instead of failing inside them.

`mlir_quantize` is the function behind the public `tf.lite.experimental.QuantizationDebugger`, but its own
place and signature are no promise of TensorFlow's, so they are looked at before each use.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from quantbuild.errors import StepError

TESTED = "2.21"
"""The TensorFlow release line that these functions were tested with."""

MLIR_MODULE = "tensorflow.lite.python.convert"
MLIR_PARAMETERS = (
    "input_data_str",
    "disable_per_channel",
    "fully_quantize",
    "input_data_type",
    "output_data_type",
    "denylisted_nodes",
)


def mlir_quantize() -> Callable[..., bytes]:
    """Return TensorFlow's `mlir_quantize`, proven to be there and to take the parameters we give it.

    Raises StepError otherwise.
    """
    return _function(MLIR_MODULE, "mlir_quantize", MLIR_PARAMETERS)


def converter_error() -> type[Exception]:
    """Return the class that TFLiteConverter raises: a private one, RuntimeError where it is gone."""
    found: object = getattr(importlib.import_module(MLIR_MODULE), "ConverterError", RuntimeError)
    return found if isinstance(found, type) and issubclass(found, Exception) else RuntimeError


def _function(module: str, name: str, parameters: tuple[str, ...]) -> Callable[..., Any]:
    place = f"{module}.{name}"
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise StepError(_missing(f"{module} (cannot be imported: {error})")) from error
    if not callable(found):
        raise StepError(_missing(place))
    absent = [parameter for parameter in parameters if parameter not in inspect.signature(found).parameters]
    if absent:
        raise StepError(_missing(f"{place}'s parameter {', '.join(absent)}"))
    function: Callable[..., Any] = found
    return function


def _missing(what: str) -> str:
    return (
        f"tensorflow {_installed()}: {what} is missing, which quantbuild's int8 engine needs; "
        f'install tensorflow {TESTED}.*, or set engine = "tflite" for the plain converter'
    )


def _installed() -> str:
    from importlib import metadata

    try:
        return metadata.version("tensorflow")
    except metadata.PackageNotFoundError:
        return "(not installed)"
