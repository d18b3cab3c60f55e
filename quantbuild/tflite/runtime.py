"""Runs a .tflite on samples by signature name, in real values whatever the model's own input and output types."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbuild.errors import StepError
from quantbuild.tflite.feeding import Port, Sample, SampleError, encode, listed

_FAILED = re.compile(r"Node number \d+ \((\w+)\) failed to (?:prepare|invoke)")


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
        raise StepError(f"LiteRT cannot load the model: {_one_line(error)}; {remedy(error)}") from error
    return interpreter


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

    def run(self, sample: Sample, index: int | None = None) -> dict[str, NDArray[Any]]:
        """Run one sample: signature input name (or "" for the only input) to real values with batch axis 1.

        Returns real values by output name, in the signature's order: float32 where the model's output
        is float or quantized, else the output's own integers. `index` is the sample's number, for
        errors. Raises SampleError when the sample does not fit the model or a value is not finite.
        """
        return self.run_fed(self.feed(sample, index), index)

    def feed(self, sample: Sample, index: int | None = None) -> dict[str, NDArray[Any]]:
        """Return the sample's arrays as the model's own types. Raises SampleError where they do not fit."""
        return encode(self.inputs, sample, _place(index))

    def run_fed(self, values: dict[str, NDArray[Any]], index: int | None = None) -> dict[str, NDArray[Any]]:
        """Run what `feed` returned; else as `run`."""
        place = _place(index)
        try:
            raw = self._invoke(values)
        except (ValueError, RuntimeError) as error:
            raise SampleError(f"{place}LiteRT cannot run the model: {_one_line(error)}; {remedy(error)}") from error
        return {port.name: _decode(port, raw[port.name], place) for port in self.outputs}

    def _invoke(self, values: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self._runner is not None:
            return dict(self._runner(**values))
        for port in self.inputs:
            self._interpreter.set_tensor(port.index, values[port.name])
        self._interpreter.invoke()
        return {port.name: self._interpreter.get_tensor(port.index) for port in self.outputs}


def _place(index: int | None) -> str:
    return "" if index is None else f"sample {index}: "


def remedy(error: Exception) -> str:
    """Return what to do about an op that LiteRT refuses; it names it as ``Node number 3 (DIV) failed to invoke``."""
    found = _FAILED.search(str(error))
    if found is None or found[1] == "TfLiteXNNPackDelegate":
        return "see the op it names"
    return (
        f'no kernel takes this {found[1]}; keep it in float with keep_float = ["op:{found[1]}"], or use another scheme'
    )


def dequantize(values: NDArray[Any], scale: float, zero_point: int) -> NDArray[np.float32]:
    """Return the real values of quantized ones: scale × (q − zero point), as float32."""
    return ((values.astype(np.float64) - zero_point) * scale).astype(np.float32)


def _decode(port: Port, value: NDArray[Any], place: str) -> NDArray[Any]:
    """Return one output as real values."""
    if port.scale is not None:
        return dequantize(value, port.scale, port.zero_point)
    if value.dtype.kind != "f":
        return value
    if not np.isfinite(value).all():
        raise SampleError(f"{place}output {port.name!r} holds NaN or infinity; the model overflows on this sample")
    return value.astype(np.float32, copy=False)


def _signature(interpreter: Any, wanted: str | None) -> str | None:
    found = list(interpreter.get_signature_list())
    if wanted is None:
        return found[0] if found else None
    if wanted not in found:
        raise StepError(f"the model has no signature {wanted!r}; its signatures are {listed(found)}")
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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
