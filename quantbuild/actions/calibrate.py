"""calibrate: a float32 model and its calibration samples give the statistics that every variant is made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantbuild.datasets.samples import hold_back, load, place
from quantbuild.errors import StepError
from quantbuild.reporting import progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantbuild.datasets.samples import Samples
    from quantbuild.step import Job
    from quantbuild.tflite.feeding import Feed

WORKER = "litert"


def run(job: Job) -> dict[str, Any]:
    """Write ``statistics``; the values tell how many samples and tensors, by which route and why.

    Samples held back for the choice among variants are left out: nothing that is chosen on them may
    have shaped the ranges.
    """
    from quantbuild.tflite import calibration, feeding, graph, statistics_file

    model = Path(job.inputs["model"]).read_bytes()
    samples, indices = load(job.parameters["dataset"], Path(job.root))
    held: list[int] = []
    if job.parameters["hold_back"] is not None:
        indices, held = hold_back(indices, samples.labels, **job.parameters["hold_back"])
    feed = feeding.feeder(graph.read(model))
    try:
        for index in held:  # what is chosen later is chosen on these: they must be as sound as the others
            feed(index, samples[index])
        result = calibration.calibrate(model, feeds(feed, samples, indices), kind=job.parameters["statistics"])
    except feeding.SampleError as error:
        raise StepError(f"{place(job.parameters['dataset'])}: {error}") from error
    statistics_file.write(Path(job.outputs["statistics"]), result.statistics)
    return {
        "samples": len(indices),
        "held_back": len(held),
        "tensors": len(result.statistics.tensor_names),
        "route": result.route,
        "route_reason": result.reason,
    }


def feeds(feed: Any, samples: Samples, indices: list[int]) -> Iterator[tuple[int, Feed]]:
    """One sample after the other, so that no more than a few are in memory."""
    for done, index in enumerate(indices):
        progress(done, len(indices))
        yield index, feed(index, samples[index])
