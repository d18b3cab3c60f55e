"""Scheme: 8-bit weights (per channel) and 16-bit activations, integer arithmetic throughout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from quantbuild.nodes import patterns
from quantbuild.step import Job

TOOLS: tuple[str, ...] = ("litert-quantizer", "ai-edge-litert", "flatbuffers", "numpy")
WORKER = "litert"


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A variant's own keys."""

    io: Literal["float32", "int16"] = "float32"
    """What the model's float inputs and outputs become."""
    ranges: Literal["minmax", "sample_mean"] = "minmax"
    """How activation ranges follow from the calibration samples; each is widened to be symmetric about zero."""
    keep_float: tuple[str, ...] = ()
    """Nodes that compute in float, by pattern."""

    def __post_init__(self) -> None:
        """Refuse patterns that are badly written."""
        patterns.check("keep_float", self.keep_float)


def needs(options: Options) -> frozenset[str]:
    """Return which inputs it needs beside the float model."""
    return frozenset({"statistics"})


def quantize(job: Job, options: Options) -> dict[str, Any]:
    """Write ``job.outputs["model"]`` and return what was done, ops left in float included. Raises StepError."""
    from quantbuild.tflite import describe, floors, graph, kept, ranges, static_integer, statistics_file

    model = describe.read(Path(job.inputs["model"]).read_bytes())
    statistics = statistics_file.read(Path(job.inputs["statistics"]))
    chosen = ranges.choose(model, statistics, options.ranges, activations="int16")
    floors.shorten(model, ranges.seen(statistics))
    keeping = kept.choose(model, options.keep_float)
    done = static_integer.quantize(
        graph.write(model),
        chosen,
        static_integer.Precision(bits=16, float32=frozenset(node.index for node in keeping.float32), io=options.io),
    )
    static_integer.check_integers(done.model, "int16")
    Path(job.outputs["model"]).write_bytes(graph.write(done.model))
    return {
        "io": options.io,
        "ranges": options.ranges,
        "ranged_tensors": len(chosen),
        **kept.in_float(done.model, keeping.float32, done.operators),
        "float_ops": describe.float_ops(done.model),
    }
