"""Source: a folder that holds one .tflite, for pipelines whose input is a directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quantbuild.step import Job

TOOLS: tuple[str, ...] = ()
WORKER = "litert"


def files(path: str, inputs: Sequence[str]) -> list[str]:
    """Return the folder."""
    del inputs
    return [path]


def convert(job: Job) -> bytes:
    """Return the one .tflite in the folder."""
    (path,) = Path(job.inputs["model"]).glob("*.tflite")
    return path.read_bytes()
