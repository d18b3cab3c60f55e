"""Scheme: weights stored as float16 and widened to float32 when they are read."""

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
    """Write ``job.outputs["model"]``; return the count of weights halved, and those left in float32.

    Raises StepError where a weight is beyond float16.
    """
    from quantbuild.tflite import weights

    data = weights.quantize(Path(job.inputs["model"]).read_bytes(), _recipe())
    weights.check_finite(data)
    done = weights.report(data)
    Path(job.outputs["model"]).write_bytes(data)
    return done


def _recipe() -> list[dict[str, Any]]:
    from litert_quantizer import qtyping, recipe_manager

    rules = recipe_manager.RecipeManager()
    rules.add_weight_only_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        num_bits=16,
        algorithm_key=recipe_manager.AlgorithmName.FLOAT_CASTING,
    )
    recipe: list[dict[str, Any]] = rules.get_quantization_recipe()
    return recipe
