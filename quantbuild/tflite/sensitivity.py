"""How much noise each tensor of a quantized model carries, and how much of the outputs' noise each op causes.

For each sample four graphs run: the float model and the artifact, whose difference is the noise gathered up to each
tensor; the *forced* float graph, whose difference from the artifact is what each op adds itself by rounding its result,
its weights and its bias; and, once for each op, the *disturbed* float graph, which carries that op's own error alone to
the outputs. Noise relative to the op's own result would not do for the last: where a channel is small and its consumer
makes it large again, it says nothing of the outputs.

Memory is a few times that of one sample's activations for each interpreter, whatever the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbuild import noise
from quantbuild.errors import StepError
from quantbuild.tflite import graph, listing
from quantbuild.tflite.feeding import Feed, SampleError
from quantbuild.tflite.matching import CASTS
from quantbuild.tflite.noise_points import Measured, scale_of
from quantbuild.tflite.noise_reader import NoiseReader, Sums, graphs
from quantbuild.tflite.streaming import read_in_order, usable_interpreters

Json = dict[str, Any]

INPUT = "INPUT"
"""Stands for the op of an input that is given as integers: the app rounds it."""


def measure(
    exact: bytes,
    artifact: bytes,
    samples: Iterable[tuple[int, Feed]],
    *,
    interpreters: int | None = None,
) -> Json:
    """Return the noise of `artifact` against the float model `exact`, on `samples`: (number, feed of the float model).

    ``{"samples", "noise", "noise_sum", "outputs", "tensors", "ops", "unmatched_tensors", "unmatched_ops"}``; powers are
    relative to float32's. ``noise``: of the artifact's outputs, ``noise_sum``: what the ops cause there, one by one,
    added up; of the output where it is most. ``tensors`` (the lowest SQNR first): ``{"name", "tensor", "dtype",
    "step", "rms", "error_rms", "sqnr_db"}``; ``ops`` (the highest noise first): ``{"op", "name", "layer", "index",
    "dtype", "own_rms", "own_sqnr_db", "noise", "share"}``, whose last four are None for an op that computes on floats.
    Decibels are None where nothing differs, or float32 is 0. How many `interpreters`
    run side by side changes nothing. Raises SampleError for a sample that does not run or is not finite.
    """
    model, quantized = graph.read(exact), graph.read(artifact)
    measured = Measured(model, quantized)
    workers = usable_interpreters(model, interpreters)
    total: list[NDArray[np.float64]] | None = None
    count = 0
    run = graphs(exact, artifact, measured)
    for number, _, sums in read_in_order(lambda: NoiseReader(run, measured), samples, workers):
        if not all(np.isfinite(part).all() for part in sums):
            raise SampleError(f"sample {number}: a tensor of float32 or of the variant holds NaN or infinity")
        total = list(sums) if total is None else [known + part for known, part in zip(total, sums, strict=True)]
        count += 1
    if total is None:
        raise StepError("sensitivity: the dataset gave no sample; give it at least one")
    return _told(measured, Sums(*total), count)


# The result ------------------------------------------------------------------------------------------------------


def _told(measured: Measured, sums: Sums, count: int) -> Json:
    names = [place.name for place in measured.places]
    signal = dict(zip(names, sums.output_signal.tolist(), strict=True))
    error = dict(zip(names, sums.output_error.tolist(), strict=True))
    caused = [dict(zip(names, row, strict=True)) for row in sums.caused.tolist()]
    op_noise, shares, whole = noise.contributions(caused, signal)
    main = graph.main(measured.exact)
    unmatched = [graph.tensor_name(main.tensors[tensor]) for tensor in measured.matching.unmatched_tensors]
    return {
        "samples": count,
        "noise": max((error[name] / signal[name] for name in names if signal[name] > 0), default=0.0),
        "noise_sum": whole,
        "outputs": [
            {
                "name": place.name,
                "before": place.before,
                "sqnr_db": noise.decibels(signal[place.name], error[place.name]),
            }
            for place in measured.places
        ],
        "tensors": _tensor_rows(measured, sums, count),
        "ops": _op_rows(measured, sums, count, list(zip(op_noise, shares, strict=True))),
        "unmatched_tensors": unmatched,
        "unmatched_ops": [_unmatched(measured.quantized, index) for index in measured.matching.unmatched],
    }


def _tensor_rows(measured: Measured, sums: Sums, count: int) -> list[Json]:
    main, exact = graph.main(measured.quantized), graph.main(measured.exact)
    given = set(graph.indices(exact.inputs))
    rows = []
    for place, version in enumerate(measured.tensors):
        tensor, stands_for = main.tensors[version], measured.matching.tensors[version]
        scale = scale_of(tensor)
        if stands_for in given and scale is None:
            continue  # what the model is given is the same for both
        elements = count * int(np.prod(graph.shape(tensor), dtype=np.int64))
        power, error = float(sums.signal[place]), float(sums.error[place])
        rows.append(
            {
                "name": graph.tensor_name(exact.tensors[stands_for]),
                "tensor": graph.tensor_name(tensor),
                "dtype": graph.type_name(tensor).lower(),
                "step": None if scale is None else scale[0],
                "rms": noise.rms(power, elements),
                "error_rms": noise.rms(error, elements),
                "sqnr_db": noise.decibels(power, error),
            }
        )
    rows.sort(key=lambda row: np.inf if row["sqnr_db"] is None else row["sqnr_db"])
    return rows


def _op_rows(measured: Measured, sums: Sums, count: int, found: list[tuple[float, float]]) -> list[Json]:
    """Return a row for each op of the artifact that makes a version, and for each input that is rounded."""
    places = {version: place for place, version in enumerate(measured.tensors)}
    layers = {node.index: node.layer for node in listing.nodes(measured.exact)}
    main, kinds = graph.main(measured.quantized), graph.op_names(measured.quantized)
    pointed = {point.operator for point in measured.points}
    floats = {
        index
        for index, operator in enumerate(main.operators)
        if index not in pointed and set(graph.indices(operator.outputs)) & places.keys() and kinds[index] not in CASTS
    }
    rows = []
    for point, figures in zip(measured.points, found, strict=True):
        at = [places[version] for version in point.versions]
        elements = count * sum(_elements(main.tensors[version]) for version in point.versions)
        own, signal = float(sums.own[at].sum()), float(sums.signal[at].sum())
        own_figures = {"own_rms": noise.rms(own, elements), "own_sqnr_db": noise.decibels(signal, own)}
        causes = {"noise": figures[0], "share": figures[1]}
        rows.append({**_op(measured, kinds, layers, point.operator, point.versions), **own_figures, **causes})
    rows.sort(key=lambda row: -row["noise"])
    nothing: Json = dict.fromkeys(("own_rms", "own_sqnr_db", "noise", "share"))
    for index in sorted(floats):
        made = tuple(t for t in graph.indices(main.operators[index].outputs) if t in places)
        rows.append({**_op(measured, kinds, layers, index, made), **nothing})
    return rows


def _op(
    measured: Measured, kinds: list[str], layers: Mapping[int, str], index: int | None, made: tuple[int, ...]
) -> Json:
    exact, matching = graph.main(measured.exact), measured.matching
    found = None if index is None else matching.operators.get(index)
    return {
        "op": INPUT if index is None else kinds[index],
        "name": graph.tensor_name(exact.tensors[matching.tensors[made[0]]]),
        "layer": "" if found is None else layers.get(found, ""),
        "index": index,
        "dtype": graph.type_name(graph.main(measured.quantized).tensors[made[0]]).lower(),
    }


def _elements(tensor: graph.TensorT) -> int:
    return int(np.prod(graph.shape(tensor), dtype=np.int64))


def _unmatched(model: graph.ModelT, index: int) -> Json:
    main = graph.main(model)
    outputs = graph.indices(main.operators[index].outputs)
    name = graph.tensor_name(main.tensors[outputs[0]]) if outputs else ""
    return {"op": graph.op_name(model, main.operators[index]), "name": name}
