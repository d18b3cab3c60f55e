"""Runs a .tflite on samples by signature name, in real values whatever the model's own input and output types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbuild.errors import StepError


def open_interpreter(model: str | bytes, *, threads: int = 1, preserve_all_tensors: bool = False) -> Any:
    """Open and allocate an `ai_edge_litert` interpreter on a path or a flatbuffer.

    Raises StepError when LiteRT refuses the model.
    """
    from ai_edge_litert.interpreter import Interpreter

    content = {"model_content": bytes(model)} if isinstance(model, bytes | bytearray) else {"model_path": model}
    try:
        interpreter = Interpreter(
            **content, num_threads=threads, experimental_preserve_all_tensors=preserve_all_tensors
        )
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise StepError(f"LiteRT cannot load the model: {_one_line(error)}; see the op it names") from error
    return interpreter


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input or output: its signature name, and what stands at it. `scale` is None where not quantized."""

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float | None
    zero_point: int


class Binding:
    """One model ready to run samples. Not for two threads at once: an interpreter holds one sample.

    Samples are real values, never quantized ones: an int8 input of scale 0.5 is given 1.0, not 2.
    So one dataset serves the float model and every variant.
    """

    def __init__(self, interpreter: Any, signature: str | None = None) -> None:
        """Bind by `signature`, else the model's first, else (it has none) by tensor names."""
        self.signature = _signature(interpreter, signature)
        self._interpreter = interpreter
        self._runner = interpreter.get_signature_runner(self.signature) if self.signature else None
        if self._runner is not None:
            inputs, outputs = self._runner.get_input_details(), self._runner.get_output_details()
        else:
            inputs = {detail["name"]: detail for detail in interpreter.get_input_details()}
            outputs = {detail["name"]: detail for detail in interpreter.get_output_details()}
        self.inputs = tuple(_port(name, detail) for name, detail in inputs.items())
        self.outputs = tuple(_port(name, detail) for name, detail in outputs.items())

    def run(self, sample: Mapping[str, NDArray[Any]], index: int | None = None) -> dict[str, NDArray[Any]]:
        """Run one sample: signature input name (or "" for the only input) to real values with batch axis 1.

        Returns real values by output name, in the signature's order: float32 where the model's output
        is float or quantized, else the output's own integers. `index` is the sample's number, for
        errors. Raises StepError when the sample does not fit the model or a value is not finite.
        """
        place = "" if index is None else f"sample {index}: "
        values = {port.name: _encode(port, value, place) for port, value in self._match(sample, place)}
        try:
            raw = self._invoke(values)
        except (ValueError, RuntimeError) as error:
            raise StepError(f"{place}LiteRT cannot run the model: {_one_line(error)}; see the op it names") from error
        return {port.name: _decode(port, raw[port.name], place) for port in self.outputs}

    def _match(self, sample: Mapping[str, NDArray[Any]], place: str) -> list[tuple[Port, NDArray[Any]]]:
        names = [port.name for port in self.inputs]
        if list(sample) == [""] and len(names) == 1:
            return [(self.inputs[0], sample[""])]
        if "" in sample:
            raise StepError(f"{place}the model has inputs {_listed(names)}; name the array of each")
        for name in sample:
            if name not in names:
                raise StepError(f"{place}the model has no input {name!r}; its inputs are {_listed(names)}")
        for name in names:
            if name not in sample:
                raise StepError(f"{place}no array for input {name!r}; name one in the dataset's input")
        return [(port, sample[port.name]) for port in self.inputs]

    def _invoke(self, values: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self._runner is not None:
            return dict(self._runner(**values))
        for port in self.inputs:
            self._interpreter.set_tensor(port.index, values[port.name])
        self._interpreter.invoke()
        return {port.name: self._interpreter.get_tensor(port.index) for port in self.outputs}


def quantize(values: NDArray[Any], scale: float, zero_point: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return real values as integers of `dtype`: round(x / scale) + zero point, saturated."""
    limits = np.iinfo(dtype)
    # In float32, as the QUANTIZE op of a model with float inputs computes it.
    scaled = np.divide(values, np.float32(scale), dtype=np.float32)
    np.rint(scaled, out=scaled)
    scaled += zero_point
    integers: NDArray[Any] = np.clip(scaled, limits.min, limits.max, out=scaled).astype(dtype)
    return integers


def dequantize(values: NDArray[Any], scale: float, zero_point: int) -> NDArray[np.float32]:
    """Return the real values of quantized ones: scale × (q − zero point), as float32."""
    return ((values.astype(np.float64) - zero_point) * scale).astype(np.float32)


def _encode(port: Port, value: Any, place: str) -> NDArray[Any]:
    """Return one input's real values as the model's own type."""
    array = np.asarray(value)
    where = f"{place}input {port.name!r}"
    if array.shape != port.shape:
        batchless = port.shape[1:] == array.shape
        remedy = "it lacks the batch axis of 1" if batchless else "check the dataset's shape and layout"
        raise StepError(f"{where} has shape {list(array.shape)}, the model takes {list(port.shape)}; {remedy}")
    if array.dtype.kind not in "fiub":
        raise StepError(f"{where} has dtype {array.dtype}; give numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise StepError(f"{where} holds NaN or infinity; repair or drop the sample")
    if port.scale is not None:
        return quantize(array, port.scale, port.zero_point, port.dtype)
    if port.dtype.kind == "f":
        return array.astype(port.dtype)
    if port.dtype.kind not in "iub":
        raise StepError(f"{where} is a {port.dtype} tensor; only numeric inputs can be given")
    return _integers(array, port, where)


def _integers(array: NDArray[Any], port: Port, where: str) -> NDArray[Any]:
    """Return an unquantized integer input (ids, raw pixels), refused where a cast would change a value."""
    cast = array.astype(port.dtype)
    if not np.array_equal(cast, array):
        raise StepError(f"{where} takes {port.dtype}, the sample's {array.dtype} does not fit; give whole numbers")
    return cast


def _decode(port: Port, value: NDArray[Any], place: str) -> NDArray[Any]:
    """Return one output as real values."""
    if port.scale is not None:
        return dequantize(value, port.scale, port.zero_point)
    if value.dtype.kind != "f":
        return value
    if not np.isfinite(value).all():
        raise StepError(f"{place}output {port.name!r} holds NaN or infinity; the model overflows on this sample")
    return value.astype(np.float32, copy=False)


def _signature(interpreter: Any, wanted: str | None) -> str | None:
    found = list(interpreter.get_signature_list())
    if wanted is None:
        return found[0] if found else None
    if wanted not in found:
        raise StepError(f"the model has no signature {wanted!r}; its signatures are {_listed(found)}")
    return wanted


def _port(name: str, detail: dict[str, Any]) -> Port:
    how = detail["quantization_parameters"]
    quantized = len(how["scales"]) == 1 and np.dtype(detail["dtype"]).kind in "iu"
    return Port(
        name=name,
        index=int(detail["index"]),
        shape=tuple(int(size) for size in detail["shape"]),
        dtype=np.dtype(detail["dtype"]),
        scale=float(how["scales"][0]) if quantized else None,
        zero_point=int(how["zero_points"][0]) if quantized else 0,
    )


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
