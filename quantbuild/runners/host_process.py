"""Measures one model in one fresh process: ``host_process.py JOB.json RESULT.json SAMPLES.bin``.

Started by the host runner, never imported by it, and free of quantbuild: what is measured is LiteRT
and the model, and the file runs wherever Python and ai-edge-litert are.

JOB: {"model", "threads", "runs", "seconds", "warmup_runs", "warmup_seconds", "max_seconds"}.
RESULT: {"runs", "warmup_runs", "load_ms", "first_ms", "memory_bytes"}, memory null without Linux's /proc.
SAMPLES: every measured invocation, in ns, little-endian int64.
"""

# Everything is imported before memory is measured, so that what is left is the model's.
import array
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
_STEPS = 251


def main(job_path: str, result_path: str, samples_path: str) -> None:
    """Measure and write the two files."""
    job = json.loads(Path(job_path).read_text())
    before = _reset_memory()
    start = time.perf_counter_ns()
    interpreter = Interpreter(model_path=job["model"], num_threads=job["threads"])
    interpreter.allocate_tensors()
    loaded = time.perf_counter_ns()
    _fill(interpreter)
    filled = time.perf_counter_ns()
    interpreter.invoke()
    first = time.perf_counter_ns()
    peak = _memory_bytes("VmHWM")
    warmup = _measure(interpreter, job["warmup_runs"], job["warmup_seconds"], job["max_seconds"])
    samples = _measure(interpreter, job["runs"], job["seconds"], job["max_seconds"])
    Path(samples_path).write_bytes(np.asarray(samples, dtype="<i8").tobytes())
    result = {
        "runs": len(samples),
        "warmup_runs": len(warmup) + 1,
        "load_ms": (loaded - start) / 1e6,
        "first_ms": (first - filled) / 1e6,
        "memory_bytes": None if before is None or peak is None else max(peak - before, 0),
    }
    Path(result_path).write_text(json.dumps(result))


def _measure(interpreter: Interpreter, runs: int, seconds: float, max_seconds: float) -> "array.array[int]":
    """Invoke at least `runs` times and for `seconds`, but stop after `max_seconds`; each one's ns."""
    samples = array.array("q")
    clock, invoke = time.perf_counter_ns, interpreter.invoke
    begin = previous = clock()
    enough, limit = begin + int(seconds * 1e9), begin + int(max_seconds * 1e9)
    while (len(samples) < runs or previous < enough) and previous < limit:
        start = clock()
        invoke()
        previous = clock()
        samples.append(previous - start)
    return samples


def _fill(interpreter: Interpreter) -> None:
    """Give every input a ramp over its range: zeros may be faster, and random values need a seed.

    Unquantized integers stay 0, because a larger id may be beyond a model's table. The values are written in place: an
    array of all of them, on its way to its dtype, would be the peak of a small model on large pictures.
    """
    for detail in interpreter.get_input_details():
        dtype = np.dtype(detail["dtype"])
        ramp = np.arange(_STEPS)
        if dtype.kind == "f":
            values = (ramp / (_STEPS - 1)).astype(dtype)
        elif dtype.kind in "iu" and detail["quantization"][0]:
            values = (ramp + max(np.iinfo(dtype).min, -125)).astype(dtype)
        else:
            values = np.zeros(_STEPS, dtype)
        _repeat(values, interpreter.tensor(detail["index"])().reshape(-1))


def _repeat(values: "np.ndarray[Any, Any]", target: "np.ndarray[Any, Any]") -> None:
    """Fill `target` [n] with `values` over and over, allocating nothing."""
    whole = len(target) // len(values) * len(values)
    target[:whole].reshape(-1, len(values))[:] = values
    target[whole:] = values[: len(target) - whole]


def _reset_memory() -> int | None:
    """Reset the peak of resident memory (5 into clear_refs, proc(5)) and return the present size, in bytes."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return None
    return _memory_bytes("VmRSS")


def _memory_bytes(field: str) -> int | None:
    """Return a size of /proc/self/status; None where there is none.

    Not ru_maxrss: it is inherited across fork and exec, and then shows the parent's.
    """
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


if __name__ == "__main__":
    main(*sys.argv[1:])
