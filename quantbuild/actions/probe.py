"""Action: loads and runs any .tflite once or twice and writes its description. Run in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantbuild.errors import StepError
from quantbuild.step import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WORKER = "litert"
TOOLS: tuple[str, ...] = ("ai-edge-litert", "flatbuffers", "numpy")

ZEROS, RAMP = "zeros", "ramp"


def run(job: Job) -> dict[str, Any]:
    """Write ``job.outputs["description"]`` and return it.

    Parameters: ``{"runtime": bool}``; false reads the flatbuffer only. Raises StepError when LiteRT
    refuses the model, or when an output is NaN or infinite on every probe.
    """
    from quantbuild.tflite import describe

    path = Path(job.inputs["model"])
    if not path.is_file():
        raise StepError(f"the action did not make {path.name}: a fault of quantbuild; see the log")
    data = path.read_bytes()
    description = describe.describe(data)
    if job.parameters.get("runtime", True):
        description |= _run(data, path.name)
    text = json.dumps(description, indent=2, sort_keys=True, ensure_ascii=False)
    Path(job.outputs["description"]).write_text(text + "\n", encoding="utf-8")
    return description


def _run(data: bytes, name: str) -> dict[str, Any]:
    """Return what running the model shows; one thread, XNNPACK as LiteRT's default has it."""
    from importlib import metadata

    from quantbuild.tflite import runtime

    try:
        interpreter = runtime.open_interpreter(data)
        results = {probe: _invoke(interpreter, probe) for probe in (ZEROS, RAMP)}
    except (RuntimeError, ValueError) as error:
        message = " ".join(str(error).split())
        remedy = runtime.remedy(error)
        raise StepError(f"{name}: LiteRT loads the model and cannot run it: {message}; {remedy}") from error
    names = _output_names(interpreter)
    return {
        "runtime": {"name": "ai-edge-litert", "version": metadata.version("ai-edge-litert")},
        "constant_outputs": _constant(results, names),
        "non_finite_outputs": _non_finite(results, names, name),
    }


def _invoke(interpreter: Any, probe: str) -> dict[int, NDArray[Any]]:
    """Return output index → a copy of its raw values."""
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(
            detail["index"], probe_input(probe, tuple(detail["shape"]), detail["dtype"], _scaled(detail))
        )
    interpreter.invoke()
    return {detail["index"]: interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()}


def probe_input(probe: str, shape: tuple[int, ...], dtype: Any, quantized: bool) -> NDArray[Any]:
    """Return a made-up input: all zeros, or a ramp over the middle of what the input can hold.

    Float ramps run from 0 to 1, quantized ones over the middle half of the integers. Plain integers
    are most often indices, so theirs alternate between 0 and 1, which every table has.
    """
    import numpy as np

    kind = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    if probe == ZEROS:
        return np.zeros(shape, kind)
    values: NDArray[Any]
    if quantized:
        limits = np.iinfo(kind)
        quarter = (int(limits.max) - int(limits.min)) // 4
        values = np.linspace(int(limits.min) + quarter, int(limits.max) - quarter, count)
    elif kind.kind == "f":
        values = np.linspace(0.0, 1.0, count)
    else:
        values = np.arange(count) % 2
    return values.reshape(shape).astype(kind)


def _scaled(detail: dict[str, Any]) -> bool:
    return len(detail["quantization_parameters"]["scales"]) > 0


def _output_names(interpreter: Any) -> dict[int, str]:
    """Return output index → the signature's name for it, else the tensor's own."""
    names = {detail["index"]: detail["name"] for detail in interpreter.get_output_details()}
    for key in list(interpreter.get_signature_list())[:1]:
        details = interpreter.get_signature_runner(key).get_output_details()
        names |= {detail["index"]: name for name, detail in details.items()}
    return names


def _constant(results: dict[str, dict[int, NDArray[Any]]], names: dict[int, str]) -> list[str]:
    """Return the outputs that are the same whatever goes in."""
    import numpy as np

    return sorted(
        names[index]
        for index, value in results[ZEROS].items()
        if np.array_equal(value, results[RAMP][index], equal_nan=value.dtype.kind == "f")
    )


def _non_finite(results: dict[str, dict[int, NDArray[Any]]], names: dict[int, str], name: str) -> list[dict[str, str]]:
    """Return what was NaN or infinite on one probe; one may be out of a model's domain (log of 0), not both."""
    found = [
        (index, probe) for probe, values in results.items() for index, value in values.items() if not _finite(value)
    ]
    for index in sorted({index for index, _ in found}):
        if all((index, probe) in found for probe in results):
            raise StepError(
                f'{name}: output "{names[index]}" is NaN or infinite on zeros and on a ramp alike; '
                "check the model's weights"
            )
    return [{"name": names[index], "probe": probe} for index, probe in sorted(found)]


def _finite(value: NDArray[np.generic]) -> bool:
    import numpy as np

    return value.dtype.kind not in "fc" or bool(np.isfinite(value).all())
