"""Scheme: litert-quantizer's own static int8 recipe with its own calibration, on the samples that the others get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from quantbuild.step import Job

TOOLS: tuple[str, ...] = ("litert-quantizer", "ai-edge-litert", "numpy")
WORKER = "litert"


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A variant's own keys: none."""


def needs(options: Options) -> frozenset[str]:
    """Return which inputs it needs beside the float model."""
    return frozenset({"samples"})


def quantize(job: Job, options: Options) -> dict[str, Any]:
    """Write ``job.outputs["model"]`` and return what was done."""
    from litert_quantizer import quantizer, recipe

    from quantbuild.datasets import samples as datasets
    from quantbuild.tflite import describe, feeding, graph, weights

    data = Path(job.inputs["model"]).read_bytes()
    model = describe.read(data)
    names, _ = graph.signature_maps(model)
    encode = feeding.feeder(model)
    found, indices = datasets.load(job.parameters["dataset"], Path(job.root))
    held = job.parameters["hold_back"]
    if held is not None:
        indices, _ = datasets.hold_back(indices, found.labels, held["fraction"], held["seed"])
    work = quantizer.Quantizer(data)
    work.load_quantization_recipe(recipe.static_wi8_ai8())
    encoded = (encode(index, found[index]) for index in indices)
    feed = [{name: arrays[tensor] for name, tensor in names.items()} for arrays in encoded]
    made = weights.run(data, recipe.static_wi8_ai8(), work.calibrate({"serving_default": feed}))
    Path(job.outputs["model"]).write_bytes(graph.write(made))
    return {"samples": len(feed), "float_ops": describe.float_ops(made)}
