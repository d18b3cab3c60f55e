"""histograms: the values of every tensor that may be clipped, counted in a second pass over the calibration samples.

Only ranges by percentile, squared error or divergence need it (`range_options.needs_histograms`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantbuild.actions.calibrate import feeds
from quantbuild.datasets.samples import hold_back, load, place
from quantbuild.errors import StepError

if TYPE_CHECKING:
    from quantbuild.step import Job

WORKER = "litert"


def run(job: Job) -> dict[str, Any]:
    """Write ``histograms`` of the ``model`` on the samples that its ``statistics`` were made of.

    Parameters: ``dataset`` and ``hold_back``, those of the calibrate step. The values tell how many samples
    and tensors. Raises StepError where samples, model and statistics do not belong together.
    """
    from quantbuild.tflite import feeding, graph, histograms, histograms_file, statistics_file

    model = Path(job.inputs["model"]).read_bytes()
    statistics = statistics_file.read(Path(job.inputs["statistics"]))
    samples, indices = load(job.parameters["dataset"], Path(job.root))
    if job.parameters["hold_back"] is not None:
        indices, _ = hold_back(indices, samples.labels, **job.parameters["hold_back"])
    feed = feeding.feeder(graph.read(model))
    try:
        found = histograms.measure(model, statistics, feeds(feed, samples, indices))
    except feeding.SampleError as error:
        raise StepError(f"{place(job.parameters['dataset'])}: {error}") from error
    histograms_file.write(Path(job.outputs["histograms"]), found)
    return {"samples": len(indices), "tensors": len(found.tensor_names)}
