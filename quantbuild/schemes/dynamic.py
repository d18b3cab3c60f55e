"""Scheme: 8-bit weights per channel, float activations that kernels quantize while they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from quantbuild.step import Job

TOOLS: tuple[str, ...] = ("litert-quantizer", "ai-edge-litert", "flatbuffers", "numpy")
WORKER = "litert"


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A variant's own keys: none."""


def needs(options: Options) -> frozenset[str]:
    """Return which inputs it needs beside the float model."""
    return frozenset()


def quantize(job: Job, options: Options) -> dict[str, Any]:
    """Write ``job.outputs["model"]``; return the count of weights quantized, and those left in float."""
    from litert_quantizer import recipe

    from quantbuild.tflite import weights

    data = weights.quantize(Path(job.inputs["model"]).read_bytes(), recipe.dynamic_wi8_afp32())
    done = weights.report(data)
    Path(job.outputs["model"]).write_bytes(data)
    return done
