"""Measures one artifact on one device: hands the job to the device's runner and keeps its result."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import msgspec

from quantbuild.step import Job

WORKER = "light"
TOOLS = ()


def run(job: Job) -> dict[str, Any]:
    """Run ``parameters["runner"]`` with ``parameters["options"]`` and write ``result``. Raises StepError."""
    runner = importlib.import_module(f"quantbuild.runners.{job.parameters['runner']}")
    result: dict[str, Any] = runner.benchmark(job)
    text = msgspec.json.format(msgspec.json.encode(result), indent=2)
    Path(job.outputs["result"]).write_bytes(text + b"\n")
    return {"status": result["status"]}
