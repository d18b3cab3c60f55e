"""Action: float32.tflite → one variant's model.tflite, by the scheme that the parameters name.

Whatever made it, its ops then bear the versions that they need: see `quantbuild.tflite.versions`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
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
    made = Path(job.outputs["model"])
    if made.exists():  # whoever asked for the step tells that it is missing, and which one
        _stamp(made)
    return {"scheme": name, **done}


def _stamp(path: Path) -> None:
    from quantbuild.tflite import associated_files, versions

    data = path.read_bytes()
    stamped = versions.stamp(data)
    if stamped is not data:
        path.write_bytes(associated_files.carried(data, stamped))
