"""Action: float32.tflite and its statistics → a float model of the same function that quantizes better.

Ranges and means change with the scales, so the result is calibrated anew before it is quantized.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quantbuild.step import Job

WORKER = "litert"
TOOLS: tuple[str, ...] = ("ai-edge-litert", "flatbuffers", "numpy")


def run(job: Job) -> dict[str, Any]:
    """Write ``model`` and ``report``, what `equalization.report` says; the values are its figures.

    Inputs: ``{"model", "statistics"}``, of the same float model. Raises StepError.
    """
    from quantbuild.tflite import describe, equalization, graph, statistics_file

    model = describe.read(Path(job.inputs["model"]).read_bytes())
    found = equalization.choose(model, statistics_file.read(Path(job.inputs["statistics"])))
    equalization.apply(model, found)
    told = equalization.report(model, found)
    Path(job.outputs["model"]).write_bytes(graph.write(model))
    text = json.dumps(told, indent=2, sort_keys=True, ensure_ascii=False)
    Path(job.outputs["report"]).write_text(text + "\n", encoding="utf-8")
    return told | {"groups": len(found.groups), "most_uneven": _most_uneven(told["groups"])}


def _most_uneven(groups: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the group whose channels were furthest apart: its first tensor, and by what they were scaled."""
    apart = max(groups, key=lambda group: float(group["largest_scale"]) / group["smallest_scale"], default=None)
    if apart is None:
        return None
    return {"tensor": apart["tensors"][0], "scales": [apart["smallest_scale"], apart["largest_scale"]]}
