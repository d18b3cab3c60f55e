"""Measures latency and memory on this machine: fresh processes, float32 and the variant in turn."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from quantbuild.errors import StepError
from quantbuild.step import Job
from quantbuild.tools import version

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    # Started, not imported; named here so that this runner's code digest covers it.
    import quantbuild.runners.host_process  # noqa: F401

TOOLS = ("numpy", "ai-edge-litert")
EXCLUSIVE = True
"""Nothing else of the build may run on this machine meanwhile."""

UNSTABLE_ABOVE = 0.05
"""Range of the processes' p50 over their median beyond which a measurement is repeated, then not trusted."""
_PROCESS_OVERHEAD_SECONDS = 120
_MEASURING = Path(__file__).with_name("host_process.py")


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a device with ``runner = "host"``."""

    threads: Annotated[int, msgspec.Meta(ge=1)] = 1
    processes: Annotated[int, msgspec.Meta(ge=1)] = 5
    """Fresh processes per model."""
    runs: Annotated[int, msgspec.Meta(ge=1)] = 100
    """Fewest invocations measured per process."""
    seconds: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    """Shortest time measured per process."""
    warmup_runs: Annotated[int, msgspec.Meta(ge=0)] = 10
    warmup_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    max_seconds: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    """A process stops after this long, of warm-up and of measuring, with fewer runs if the model is slow."""


def fingerprint(options: Options) -> dict[str, str]:
    """What makes a figure of another machine another figure."""
    del options
    return {"cpu": cpu_model() or platform.machine(), "cpus": str(len(_cpus()))}


def identity(options: Options) -> str:
    """What names this very machine: two builds that measure on it at once would disturb each other.

    The kernel's boot id, which containers on one machine have in common; its name where there is none.
    """
    del options
    return _read("/proc/sys/kernel/random/boot_id") or platform.node()


def benchmark(job: Job) -> dict[str, Any]:
    """Measure ``inputs["model"]``, in turn with ``inputs["reference"]`` where it is given; return result.json.

    Repeated once where it is unstable. With an output of role ``samples`` every invocation's time
    goes there (npz of int64 ns, ``model.0``, ``reference.0`` …). Raises StepError.
    """
    options = msgspec.convert(job.parameters["options"], Options)
    if options.threads > len(_cpus()):
        raise StepError(
            f"threads = {options.threads}, but this process may use {len(_cpus())} CPUs; "
            "lower threads in the device: more threads than CPUs measure the scheduler"
        )
    facts = provenance()
    rounds = _measure(job, options, 0)
    attempts = 1
    if _unstable(rounds):
        rounds, attempts = _measure(job, options, 1), 2
    _keep_samples(job, rounds)
    return {**summary(rounds), "runtime": _runtime(options), "provenance": {**facts, "attempts": attempts}}


def summary(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the figures of result.json from each model's processes, paired by their place.

    `rounds` is {"model": [process, ...], "reference": [...] or []}; a process has "samples" (int64 ns
    [n]) and what host_process.py reports. Headlines are medians over the processes, but for `min`, the least, and
    `p99` and `n`, which are of all invocations together.
    """
    import numpy as np

    from quantbuild.statistics import latency_summary

    model, reference = [[_figures(process) for process in rounds[name]] for name in ("model", "reference")]
    pooled = latency_summary(np.concatenate([process["samples"] for process in rounds["model"]]))
    latency = {
        "min": min(process["min_ms"] for process in model),
        "p50": _median([process["p50_ms"] for process in model]),
        "p90": _median([process["p90_ms"] for process in model]),
        "p99": pooled["p99"],
        "n": pooled["n"],
    }
    return {
        "status": "unstable" if _unstable(rounds) else "measured",
        "latency_ms": latency,
        "latency_ratio": _paired_ratio(model, reference, "p50_ms"),
        "peak_memory_bytes": _median([process["memory_bytes"] for process in model]),
        "memory_ratio": _paired_ratio(model, reference, "memory_bytes"),
        "processes": model,
        "reference_processes": reference,
    }


def provenance() -> dict[str, Any]:
    """Return where and when: facts of the machine, None where one cannot be read. Changes nothing."""
    return {
        "cpu": cpu_model(),
        "cpus": len(_cpus()),
        "machine": platform.machine(),
        "system": platform.system(),
        "kernel": platform.release(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "frequency_khz": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cpu_model() -> str | None:
    """Return the CPU's name from /proc/cpuinfo (or its part number on ARM); None where there is none."""
    text = _read("/proc/cpuinfo") or ""
    fields = dict(reversed([_pair(line) for line in text.splitlines() if ":" in line]))
    return fields.get("model name") or fields.get("CPU part")


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


def _cpus() -> list[int]:
    """Return the CPUs this process may run on; macOS has no affinity mask."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _runtime(options: Options) -> dict[str, Any]:
    # The wheel's interpreter applies XNNPACK by default; nothing tells whether it took every op.
    name = "ai-edge-litert"
    return {"name": name, "version": version(name), "delegate": "XNNPACK", "threads": options.threads}


def _measure(job: Job, options: Options, attempt: int) -> dict[str, list[dict[str, Any]]]:
    """Run the processes in turn, reference first: A B A B, so that a drift meets both alike."""
    rounds: dict[str, list[dict[str, Any]]] = {"model": [], "reference": []}
    names = [name for name in ("reference", "model") if name in job.inputs]
    for repetition in range(options.processes):
        for name in names:
            place = Path(job.scratch) / f"{name}.{attempt}.{repetition}"
            rounds[name].append(_process(job.inputs[name], options, place))
    return rounds


def _process(model: str, options: Options, place: Path) -> dict[str, Any]:
    """Measure one model in one process; return its report with "samples", int64 ns [n]."""
    import numpy as np

    job, result, samples = (place.with_name(f"{place.name}.{kind}") for kind in ("job", "result", "samples"))
    keys = ("threads", "runs", "seconds", "warmup_runs", "warmup_seconds", "max_seconds")
    job.write_text(json.dumps({"model": model, **{key: getattr(options, key) for key in keys}}))
    # -P: the folder of runners must not become a place that `import` looks in.
    command = [sys.executable, "-P", str(_MEASURING), str(job), str(result), str(samples)]
    timeout = 3 * options.max_seconds + _PROCESS_OVERHEAD_SECONDS
    try:
        done = subprocess.run(command, timeout=timeout, capture_output=True, text=True, check=False)
    except subprocess.TimeoutExpired as error:
        raise StepError(f"the measuring process did not end within {timeout:.0f} s; check the model") from error
    if done.returncode:
        sys.stderr.write(done.stderr)
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise StepError(f"the measuring process ended with {done.returncode}: {last}; see the step's log")
    report: dict[str, Any] = json.loads(result.read_text())
    return {**report, "samples": np.fromfile(samples, dtype="<i8")}


def _figures(process: dict[str, Any]) -> dict[str, Any]:
    from quantbuild.statistics import latency_summary

    found = latency_summary(process["samples"])
    kept = {key: process[key] for key in ("memory_bytes", "load_ms", "first_ms", "warmup_runs")}
    return {**{f"{key}_ms": found[key] for key in ("min", "p50", "p90", "p99")}, "n": found["n"], **kept}


def _unstable(rounds: dict[str, list[dict[str, Any]]]) -> bool:
    """Whether p50 varies too much between the processes, of the model or of what it is compared with."""
    import numpy as np

    from quantbuild.statistics import relative_range

    middles = [[float(np.median(process["samples"])) for process in processes] for processes in rounds.values()]
    return any(relative_range(found) > UNSTABLE_ABOVE for found in middles if found)


def _median(values: list[Any]) -> Any:
    """Return the median, None where one is missing; whole where every value is."""
    import numpy as np

    if not values or None in values:
        return None
    middle = float(np.median(values))
    return round(middle) if all(isinstance(value, int) for value in values) else middle


def _paired_ratio(model: list[dict[str, Any]], reference: list[dict[str, Any]], key: str) -> float | None:
    """Return the median ratio of neighbours; None without a reference or where one was not measured."""
    pairs = [(ours[key], theirs[key]) for ours, theirs in zip(model, reference, strict=False)]
    if not pairs or any(ours is None or not theirs for ours, theirs in pairs):
        return None
    return float(_median([float(ours / theirs) for ours, theirs in pairs]))


def _keep_samples(job: Job, rounds: dict[str, list[dict[str, Any]]]) -> None:
    import numpy as np

    if "samples" not in job.outputs:
        return
    arrays: dict[str, NDArray[np.int64]] = {
        f"{name}.{number}": process["samples"]
        for name, processes in rounds.items()
        for number, process in enumerate(processes)
    }
    with Path(job.outputs["samples"]).open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
