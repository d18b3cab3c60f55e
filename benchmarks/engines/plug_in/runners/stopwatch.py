"""Runner: a device that one benchmark at a time may use, and that notes when two do."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import msgspec

from quantbuild.step import Job

TOOLS: tuple[str, ...] = ()
EXCLUSIVE = True
SCRIPT = Path(__file__).parents[2] / "bench.sh"


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device's own keys: none."""


def fingerprint(options: Options) -> dict[str, str]:
    """Return what identifies the device."""
    return {"name": "stopwatch"}


def identity(options: Options) -> str:
    """Return what names the device on every build: there is one stopwatch."""
    return "stopwatch"


def benchmark(job: Job) -> dict[str, Any]:
    """Run the script that the others run; it measures nothing."""
    subprocess.run([SCRIPT, job.inputs["model"], job.outputs["samples"]], check=True)
    return {
        "status": "not_measured",
        "latency_ms": None,
        "latency_ratio": None,
        "memory_ratio": None,
        "peak_memory_bytes": None,
        "runtime": {},
        "provenance": {},
    }
