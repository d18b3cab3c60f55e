"""Scheme: integer weights, one scale a channel, that are widened to float32 before they are used; float arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from quantbuild.step import Job

TOOLS: tuple[str, ...] = ("litert-quantizer", "ai-edge-litert", "flatbuffers", "numpy")
WORKER = "litert"


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A variant's own keys."""

    bits: Literal[8, 4] = 8
    """Bits of each weight. Fewer kinds of op have a kernel for 4 than for 8; the others' weights stay float32."""


def needs(options: Options) -> frozenset[str]:
    """Return which inputs it needs beside the float model."""
    return frozenset()


def quantize(job: Job, options: Options) -> dict[str, Any]:
    """Write ``job.outputs["model"]``; return the count of weights quantized, and those left in float32."""
    from litert_quantizer import recipe

    from quantbuild.tflite import weights

    rules = recipe.weight_only_wi8_afp32() if options.bits == 8 else recipe.weight_only_wi4_afp32()
    data = weights.quantize(Path(job.inputs["model"]).read_bytes(), rules)
    done = weights.report(data)
    Path(job.outputs["model"]).write_bytes(data)
    return {"bits": options.bits, **done}
