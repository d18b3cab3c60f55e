"""Action: a model source → float32.tflite with static shapes, the model that everything else starts from."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from quantbuild.errors import StepError
from quantbuild.step import Job

WORKER = "tensorflow"


def run(job: Job) -> dict[str, Any]:
    """Write ``job.outputs["model"]``; the values give what a reader asks first, no more.

    Parameters: ``{"source", "signature", "input_shapes"}``. Raises StepError, led by the model's path.
    """
    source = importlib.import_module(f"quantbuild.sources.{job.parameters['source']}")
    try:
        data: bytes = source.convert(job)
    except StepError as error:
        raise StepError(f"{_place(job)}: {error}") from error
    Path(job.outputs["model"]).write_bytes(data)
    return {"source": job.parameters["source"], "size_bytes": len(data)}


def _place(job: Job) -> str:
    return Path(os.path.relpath(job.inputs["model"], job.root)).as_posix()
