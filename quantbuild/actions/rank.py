"""Action: rank the activations of a float model by what rounding each alone to 8 bits does to the outputs.

Measured and not estimated from statistics: where a channel is small and its consumer makes it large again, the noise
relative to the tensor's own power says nothing. One tensor at a time named the same culprits as leaving one at a time
in float, at a tenth of the cost.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from quantbuild.datasets.samples import draw, hold_back, load, place
from quantbuild.errors import StepError
from quantbuild.reporting import progress

if TYPE_CHECKING:
    from quantbuild.nodes.node import Node
    from quantbuild.step import Job
    from quantbuild.tflite.feeding import Sample
    from quantbuild.tflite.graph import ModelT
    from quantbuild.tflite.ranges import Ranges

WORKER = "litert"
SAMPLES = 16
"""Of the selection samples, every label by its share: a tensor's noise differs between samples of a kind by far less
than between tensors."""
SEED = 0
FLOAT_BYTES, INT8_BYTES = 4, 1


class Unit(NamedTuple):
    """An activation that could leave int8, and the nodes (places in execution order) that must leave it with it."""

    tensor: int
    nodes: tuple[int, ...]


def run(job: Job) -> dict[str, Any]:
    """Write ``ranking``: ``{"units": [{"tensor", "noise", "nodes", "cost_bytes"}], "samples"}``, the noisiest first.

    Inputs: the float ``model`` and its ``statistics``. Parameters: ``options`` (``ranges``: how the ranges follow from
    the statistics), ``dataset`` and ``hold_back`` (the selection samples). ``noise`` is the power of the outputs'
    error over the power of the outputs, of the worst output, a classifier's logits being one; ``nodes`` are patterns
    for `keep_float`; ``cost_bytes`` what keeping them in float adds to the file. Raises StepError.
    """
    from quantbuild.tflite import graph, listing, ranges, statistics_file
    from quantbuild.tflite.feeding import SampleError

    data = Path(job.inputs["model"]).read_bytes()
    model = graph.read(data)
    chosen = ranges.choose(
        model, statistics_file.read(Path(job.inputs["statistics"])), job.parameters["options"]["ranges"]
    )
    samples = _samples(job)
    nodes = listing.nodes(model)
    units = list(_units(nodes, chosen))
    try:
        noises = _noises(data, units, chosen, samples)
    except SampleError as error:
        raise StepError(f"{place(job.parameters['dataset'])}: {error}") from error
    weights = {row["index"]: row["weight_bytes"] for row in listing.listing(model)}
    rows = [_row(model, unit, noise, weights) for unit, noise in zip(units, noises, strict=True)]
    rows.sort(key=lambda row: (-row["noise"], row["tensor"]))
    ranking = {"units": rows, "samples": len(samples)}
    Path(job.outputs["ranking"]).write_bytes(msgspec.json.format(msgspec.json.encode(ranking), indent=1) + b"\n")
    return {"units": len(rows), "samples": len(samples)}


def _samples(job: Job) -> list[tuple[int, Sample]]:
    samples, indices = load(job.parameters["dataset"], Path(job.root))
    if job.parameters.get("hold_back") is not None:
        _, indices = hold_back(indices, samples.labels, **job.parameters["hold_back"])
    # A set that is sorted by class, as folders of pictures are, begins with one class alone.
    labels = None if samples.labels is None else samples.labels[indices]
    chosen = draw(len(indices), labels, min(SAMPLES, len(indices)), SEED)
    return [(indices[number], samples[indices[number]]) for number in chosen]


def _units(nodes: Sequence[Node], chosen: Ranges) -> Iterator[Unit]:
    """Yield each activation that some op computes or the model is given; what is only moved belongs to its source."""
    from quantbuild.nodes.islands import island

    moved = {tensor for node in nodes if node.moves_values for tensor in node.writes}
    seen: set[tuple[int, ...]] = set()
    for tensor in chosen:
        found = tuple(island(nodes, [tensor])) if tensor not in moved else ()
        if found and found not in seen:
            seen.add(found)
            yield Unit(tensor, found)


def _noises(data: bytes, units: Sequence[Unit], chosen: Ranges, samples: Sequence[tuple[int, Sample]]) -> list[float]:
    """Return each unit's noise; units are measured side by side, each for itself, so their number changes nothing."""
    from quantbuild.tflite.rounding import rounded

    reference = _outputs(data, samples)

    def noise(unit: Unit) -> float:
        found = _outputs(rounded(data, unit.tensor, *chosen[unit.tensor]), samples)
        return max(_relative_error(exact, values) for exact, values in zip(reference, found, strict=True))

    noises = []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    with ThreadPoolExecutor(cores) as threads:
        for done, value in enumerate(threads.map(noise, units)):
            progress(done, len(units))
            noises.append(value)
    return noises


def _outputs(model: bytes, samples: Sequence[tuple[int, Sample]]) -> list[Any]:
    """Return the values of each output, and of its logits, on all samples, [samples, elements] float64.

    By place: without a signature, outputs are named after their tensors, and a rounded one is another tensor.
    """
    import numpy as np

    from quantbuild.tflite import graph, logits
    from quantbuild.tflite.runtime import Binding, open_interpreter

    measured = graph.read(model)
    logits.expose(measured)
    binding = Binding(open_interpreter(graph.write(measured)), None)
    rows = [
        [np.asarray(values, np.float64).reshape(-1) for values in binding.run(sample, index).values()]
        for index, sample in samples
    ]
    return [np.stack(values) for values in zip(*rows, strict=True)]


def _relative_error(reference: Any, found: Any) -> float:
    import numpy as np

    power = float(np.mean(reference**2))
    return float(np.mean((found - reference) ** 2)) / power if power else 0.0


def _row(model: ModelT, unit: Unit, noise: float, weights: dict[int, int]) -> dict[str, Any]:
    from quantbuild.tflite import graph

    weight_bytes = sum(weights.get(node, 0) for node in unit.nodes)
    return {
        "tensor": graph.tensor_name(graph.main(model).tensors[unit.tensor]),
        "noise": noise,
        "nodes": [f"node:{node}" for node in unit.nodes],
        "cost_bytes": weight_bytes * (FLOAT_BYTES - INT8_BYTES) // FLOAT_BYTES,
    }
