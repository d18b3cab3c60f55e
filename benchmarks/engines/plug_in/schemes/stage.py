"""Scheme: one stage of the rivals' pipeline, done by the very script that the others run."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import msgspec

from quantbuild.errors import StepError
from quantbuild.step import Job

TOOLS: tuple[str, ...] = ()
WORKER = "litert"

SCRIPT = Path(__file__).parents[2] / "stage.sh"


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A variant's own keys."""

    parameter: int


def needs(options: Options) -> frozenset[str]:
    """Return which inputs it needs beside the float model: one set, shared by all variants."""
    return frozenset({"samples"})


def quantize(job: Job, options: Options) -> dict[str, Any]:
    """Write ``job.outputs["model"]``; the name that the script logs and obeys faults by is the step's."""
    name = job.step.rpartition("/")[2]
    command = [SCRIPT, job.inputs["model"], job.inputs["data"], job.outputs["model"], name, str(options.parameter)]
    done = subprocess.run(command, check=False)
    if done.returncode != 0:
        raise StepError(f"{job.step}: the stage ended with {done.returncode}; see its log")
    return {}
