"""Action: float32.tflite → one variant's model.tflite, by the scheme that the parameters name."""

from __future__ import annotations

import importlib
from typing import Any

import msgspec

from quantbuild.step import Job

WORKER = "from the scheme"
"""Each scheme has its own `WORKER`."""


def run(job: Job) -> dict[str, Any]:
    """Write ``job.outputs["model"]``; return what the scheme did.

    Parameters: ``{"scheme", "options"}`` and what the scheme's `needs` adds. Raises StepError.
    """
    name = job.parameters["scheme"]
    scheme = importlib.import_module(f"quantbuild.schemes.{name}")
    options = msgspec.convert(job.parameters["options"], scheme.Options)
    done: dict[str, Any] = scheme.quantize(job, options)
    return {"scheme": name, **done}
