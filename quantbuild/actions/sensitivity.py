"""Action: where a variant's noise comes from, tensor by tensor and op by op, on selection samples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from quantbuild import node_data
from quantbuild.datasets.samples import hold_back, load, place
from quantbuild.errors import StepError
from quantbuild.reporting import progress

if TYPE_CHECKING:
    from quantbuild.step import Job
    from quantbuild.tflite.feeding import Feed

WORKER = "litert"


def run(job: Job) -> dict[str, Any]:
    """Write ``sensitivity`` (see `quantbuild.tflite.sensitivity.measure`) and it for Model Explorer, twice.

    Inputs: the float ``model``, the ``artifact``, and ``statistics`` where channels may have been scaled before it was
    quantized (`equalize`): if they were, it is compared with the scaled float model, whose tensors it has. Parameters:
    ``dataset`` and ``hold_back``, the selection samples, and ``samples``, how many of them at most. ``sqnr_node_data``
    has each tensor's SQNR, ``noise_node_data`` each op's share. Raises StepError.
    """
    from quantbuild.tflite import graph, sensitivity
    from quantbuild.tflite.feeding import SampleError

    artifact = Path(job.inputs["artifact"]).read_bytes()
    exact = _float_model(job, artifact)
    try:
        found = sensitivity.measure(exact, artifact, _feeds(job, exact))
    except SampleError as error:
        raise StepError(f"{place(job.parameters['dataset'])}: {error}") from error
    name = graph.text(graph.main(graph.read(artifact)).name) or "main"
    written = {
        "sensitivity": msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n",
        "sqnr_node_data": node_data.encode(name, node_data.sqnr_by_tensor(found["tensors"]), higher_is_better=True),
        "noise_node_data": node_data.encode(name, node_data.noise_by_op(found["ops"]), higher_is_better=False),
    }
    for role, content in written.items():
        Path(job.outputs[role]).write_bytes(content)
    told = {"samples": found["samples"], "noise": found["noise"], "noise_sum": found["noise_sum"]}
    return {**told, "tensors": len(found["tensors"]), "ops": len(found["ops"])}


def _float_model(job: Job, artifact: bytes) -> bytes:
    """Return the float model whose tensors the artifact has: as it was converted, or equalized.

    The artifact itself tells which: that of a search may be either.
    """
    from quantbuild.tflite import describe, equalization, graph, origin, statistics_file

    data = Path(job.inputs["model"]).read_bytes()
    if "statistics" not in job.inputs:
        return data
    scaled = describe.read(data)
    try:
        found = equalization.choose(scaled, statistics_file.read(Path(job.inputs["statistics"])))
    except StepError:  # no search could equalize it either
        return data
    equalization.apply(scaled, found)
    return (data, graph.write(scaled))[origin.nearest([describe.read(data), scaled], graph.read(artifact))]


def _feeds(job: Job, model: bytes) -> Iterator[tuple[int, Feed]]:
    from quantbuild.tflite import feeding, graph

    samples, indices = load(job.parameters["dataset"], Path(job.root))
    if job.parameters.get("hold_back") is not None:
        _, indices = hold_back(indices, samples.labels, **job.parameters["hold_back"])
    indices = indices[: job.parameters["samples"]]
    feed = feeding.feeder(graph.read(model))
    for done, index in enumerate(indices):
        progress(done, len(indices))
        yield index, feed(index, samples[index])
