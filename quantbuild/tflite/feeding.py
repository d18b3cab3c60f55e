"""Meets a sample, arrays by signature name, with a model's inputs: every check, and the arrays in their own types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from quantbuild.errors import StepError
from quantbuild.tflite import graph

Sample: TypeAlias = Mapping[str, NDArray[Any]]
"""Signature input name → array of real values with its batch axis; the name "" stands for the only input."""

Feed: TypeAlias = dict[int, NDArray[Any]]
"""Tensor index of a graph input → its value, in the tensor's own dtype and shape."""

_NO_NUMBERS = np.dtype(np.void)
"""Stands for the TFLite types that NumPy lacks."""


class SampleError(StepError):
    """A sample does not suit the model; its message begins with the sample's number where that is known."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input or output: its signature name, and what stands at it. `scale` is None where not quantized."""

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float | None = None
    zero_point: int = 0


def feeder(model: graph.ModelT, signature: str | None = None) -> Callable[[int, Sample], Feed]:
    """Return a function of (sample number, sample) that gives the feed of a float model.

    It raises SampleError as `encode` does.
    """
    names, _ = graph.signature_maps(model, signature)
    ports = [_port(name, index, graph.main(model).tensors[index]) for name, index in names.items()]

    def feed(number: int, sample: Sample) -> Feed:
        values = encode(ports, sample, f"sample {number}: ")
        return {port.index: values[port.name] for port in ports}

    return feed


def _port(name: str, index: int, tensor: graph.TensorT) -> Port:
    return Port(name=name, index=index, shape=graph.shape(tensor), dtype=graph.dtype(tensor) or _NO_NUMBERS)


def encode(ports: Sequence[Port], sample: Sample, place: str) -> dict[str, NDArray[Any]]:
    """Return input name → the sample's array as the model's own type, quantized where the input is.

    `place` leads every message. Raises SampleError for a missing or unknown input, a shape other than the
    model's, numbers that the input's dtype cannot hold, and NaN or infinity: the interpreter takes a
    missing batch axis and NaN silently.
    """
    return {port.name: _encode_one(port, value, place) for port, value in _match(ports, sample, place)}


def _match(ports: Sequence[Port], sample: Sample, place: str) -> list[tuple[Port, NDArray[Any]]]:
    names = [port.name for port in ports]
    if list(sample) == [""] and len(names) == 1:
        return [(ports[0], sample[""])]
    if "" in sample:
        raise SampleError(f"{place}the model has inputs {listed(names)}; name the array of each")
    for name in sample:
        if name not in names:
            raise SampleError(f"{place}the model has no input {name!r}; its inputs are {listed(names)}")
    for name in names:
        if name not in sample:
            raise SampleError(f"{place}no array for input {name!r}; name one in the dataset's input")
    return [(port, sample[port.name]) for port in ports]


def _encode_one(port: Port, value: Any, place: str) -> NDArray[Any]:
    array = np.asarray(value)
    where = f"{place}input {port.name!r}"
    if array.shape != port.shape:
        batchless = port.shape[1:] == array.shape
        remedy = "it lacks the batch axis of 1" if batchless else "check the dataset's shape and layout"
        raise SampleError(f"{where} has shape {list(array.shape)}, the model takes {list(port.shape)}; {remedy}")
    if array.dtype.kind not in "fiub":
        raise SampleError(f"{where} has dtype {array.dtype}; give numbers")
    if port.dtype.kind not in "fiub":
        raise SampleError(f"{where} is no tensor of numbers; only those can be given")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise SampleError(f"{where} ({array.dtype}) holds NaN or infinity; repair or drop the sample")
    if port.scale is not None:
        return quantize(array, port.scale, port.zero_point, port.dtype)
    return _floats(array, port, where) if port.dtype.kind == "f" else _integers(array, port, where)


def _floats(array: NDArray[Any], port: Port, where: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        cast = array.astype(port.dtype)
    if not np.isfinite(cast).all():
        raise SampleError(f"{where} ({array.dtype}) holds numbers beyond {port.dtype}; scale or drop the sample")
    return cast


def _integers(array: NDArray[Any], port: Port, where: str) -> NDArray[Any]:
    """Return an unquantized integer input (ids, raw pixels), refused where a cast would change a value."""
    with np.errstate(invalid="ignore"):
        cast = array.astype(port.dtype)
    if not np.array_equal(cast, array):
        raise SampleError(f"{where} takes {port.dtype}, the sample's {array.dtype} does not fit; give whole numbers")
    return cast


def quantize(values: NDArray[Any], scale: float, zero_point: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return real values as integers of `dtype`: round(x / scale) + zero point, saturated."""
    limits = np.iinfo(dtype)
    # In float32, as the QUANTIZE op of a model with float inputs computes it.
    # NumPy makes a number of what it divides of an array without axes.
    scaled = np.asarray(np.divide(values, np.float32(scale), dtype=np.float32))
    np.rint(scaled, out=scaled)
    scaled += zero_point
    integers: NDArray[Any] = np.clip(scaled, limits.min, limits.max, out=scaled).astype(dtype)
    return integers


def listed(names: Sequence[str]) -> str:
    """Return names for a message: quoted, "none" where there is none."""
    return ", ".join(repr(name) for name in names) or "none"
