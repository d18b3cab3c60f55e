"""calibrate: a float32 model and its calibration samples give the statistics that every variant is made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantbuild.datasets.samples import hold_back, load, place
from quantbuild.errors import StepError
from quantbuild.reporting import progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from quantbuild.datasets.samples import Samples
    from quantbuild.lint.calibration import Observer
    from quantbuild.lint.findings import Finding
    from quantbuild.step import Job
    from quantbuild.tflite.feeding import Feed
    from quantbuild.tflite.graph import ModelT
    from quantbuild.tflite.statistics_file import Statistics

WORKER = "litert"


def run(job: Job) -> dict[str, Any]:
    """Write ``statistics``; the values tell how many samples and tensors, by which route and why.

    Samples held back for the choice among variants are left out: nothing that is chosen on them may
    have shaped the ranges. With the parameter ``lint`` ({"ignore": rules}) the samples are looked at, too: what is
    ruin raises StepError, the rest is among the values, and what the check compares with the evaluation set is written
    to ``samples``.
    """
    from quantbuild.lint import calibration as lint
    from quantbuild.lint.findings import as_data
    from quantbuild.tflite import calibration, feeding, graph, statistics_file

    model = Path(job.inputs["model"]).read_bytes()
    samples, indices = load(job.parameters["dataset"], Path(job.root))
    held: list[int] = []
    if job.parameters["hold_back"] is not None:
        indices, held = hold_back(indices, samples.labels, **job.parameters["hold_back"])
    parsed, dataset = graph.read(model), place(job.parameters["dataset"])
    observer = lint.Observer(parsed, dataset, len(indices)) if "lint" in job.parameters else None
    feed = feeding.feeder(parsed)
    seen = lint.observed(observer, feed)
    try:
        for index in held:  # what is chosen later is chosen on these: they must be as sound as the others
            fed = feed(index, samples[index])
            if observer is not None:
                observer.add_held_back(index, fed)
        result = calibration.calibrate(model, feeds(seen, samples, indices), kind=job.parameters["statistics"])
    except feeding.SampleError as error:
        raise StepError(f"{dataset}: {error}") from error
    found = [] if observer is None else _lint(job, parsed, observer, result.statistics, samples.labels)
    statistics_file.write(Path(job.outputs["statistics"]), result.statistics)
    return {
        "samples": len(indices),
        "held_back": len(held),
        "tensors": len(result.statistics.tensor_names),
        "route": result.route,
        "route_reason": result.reason,
        **({} if observer is None else {"lint": as_data(found)}),
    }


def _lint(
    job: Job, model: ModelT, observer: Observer, statistics: Statistics, labels: NDArray[Any] | None
) -> list[Finding]:
    """Return what is found, and write what the check compares. Raises StepError for what is ruin."""
    from quantbuild.lint import calibration, facts
    from quantbuild.lint.findings import errors

    seen, numbers = observer.facts(), statistics.sample_indices
    found = calibration.findings(
        model, seen, statistics, None if labels is None else labels[numbers], job.parameters["lint"]["ignore"]
    )
    ruin = errors(found)
    if ruin:
        silence = ", ".join(sorted({f'"{finding.rule}"' for finding in ruin}))
        told = "; ".join(finding.message for finding in ruin)
        raise StepError(f"{told} (lint_ignore = [{silence}] in the model if it must be so)")
    facts.write(job.outputs["samples"], seen, found)
    return found


def feeds(feed: Any, samples: Samples, indices: list[int]) -> Iterator[tuple[int, Feed]]:
    """One sample after the other, so that no more than a few are in memory."""
    for done, index in enumerate(indices):
        progress(done, len(indices))
        yield index, feed(index, samples[index])
