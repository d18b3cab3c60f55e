"""How much noise each tensor of a quantized model carries, and how much of the outputs' noise each op causes.

For each sample four graphs run once: the float model and the artifact, with every tensor kept, whose difference is the
noise accumulated up to each tensor; the *forced* float graph, whose difference from the artifact is what each op adds
itself (rounding of its result, its weights and its bias); and, once for each op, the *disturbed* float graph, which
carries that op's own error alone to the outputs. Relative noise at the op would not do for the last: where a channel
is small and its consumer makes it large again, it says nothing of the outputs.

The artifact runs on LiteRT's built-in kernels, since XNNPACK keeps no tensors inside: an integer may differ by one.
Memory is a few times that of one sample's activations for each interpreter, whatever the number of samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantbuild import noise
from quantbuild.errors import StepError
from quantbuild.tflite import forcing, graph, listing
from quantbuild.tflite.feeding import Feed, SampleError, encode
from quantbuild.tflite.forcing import Versions
from quantbuild.tflite.matching import CASTS, Matching, match
from quantbuild.tflite.readers import run_sample
from quantbuild.tflite.runtime import Binding, dequantize, open_interpreter
from quantbuild.tflite.streaming import read_in_order, usable_interpreters

Json = dict[str, Any]

_INTEGERS = frozenset({"INT4", "INT8", "UINT8", "INT16"})
INPUT = "INPUT"
"""Stands for the op of an input that is given as integers: the app rounds it."""


class _Point(NamedTuple):
    """An op of the artifact (None: an input), and the versions that it makes."""

    operator: int | None
    versions: tuple[int, ...]


class _Sums(NamedTuple):
    """One sample's sums of squares: V versions, P points, O outputs."""

    signal: NDArray[np.float64]
    """[V] of float32."""
    error: NDArray[np.float64]
    """[V] of the artifact less float32."""
    own: NDArray[np.float64]
    """[V] of what the op that makes it adds."""
    caused: NDArray[np.float64]
    """[P, O] of what each point's own error does to each output."""
    output_signal: NDArray[np.float64]
    """[O]"""
    output_error: NDArray[np.float64]
    """[O]"""


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
    Decibels are None where nothing differs, or float32 is 0. The result does not depend on the number of `interpreters`.
    Raises SampleError for a sample that does not run or is not finite.
    """
    model, quantized = graph.read(exact), graph.read(artifact)
    measured = _Measured(model, quantized)
    workers = usable_interpreters(model, interpreters)
    total: list[NDArray[np.float64]] | None = None
    count = 0
    make = _reader(exact, artifact, measured)
    for number, _, sums in read_in_order(make, samples, workers):
        if not all(np.isfinite(part).all() for part in sums):
            raise SampleError(f"sample {number}: a tensor of float32 or of the variant holds NaN or infinity")
        total = list(sums) if total is None else [known + part for known, part in zip(total, sums, strict=True)]
        count += 1
    if total is None:
        raise StepError("sensitivity: the dataset gave no sample; give it at least one")
    return _told(measured, _Sums(*total), count)


class _Measured:
    """What there is to measure, in order."""

    def __init__(self, exact: graph.ModelT, quantized: graph.ModelT) -> None:
        self.exact, self.quantized = exact, quantized
        self.matching: Matching = match(exact, quantized)
        self.versions = Versions(exact, quantized, self.matching)
        self.tensors = self.versions.all()
        self.points = _points(quantized, self.versions, self.tensors)
        self.outputs = {
            name: tensor
            for name, tensor in graph.signature_maps(exact)[1].items()
            if tensor in set(self.matching.measured) and name in graph.signature_maps(quantized)[1]
        }
        if not self.outputs:
            raise StepError("no output of the variant is one of float32's; compare models of one source")


def _points(quantized: graph.ModelT, versions: Versions, found: list[int]) -> list[_Point]:
    """Return the ops and inputs that may round: all but the ops that touch no integers."""
    main, made = graph.main(quantized), graph.producers(graph.main(quantized))
    by_op: dict[int, list[int]] = {}
    points = []
    for version in found:
        if version in made:
            by_op.setdefault(made[version], []).append(version)
        elif graph.type_name(main.tensors[version]) in _INTEGERS:
            points.append(_Point(None, (version,)))
    return points + [
        _Point(operator, tuple(made_here))
        for operator, made_here in sorted(by_op.items())
        if _touches_integers(quantized, main.operators[operator])
    ]


def _touches_integers(model: graph.ModelT, operator: graph.OperatorT) -> bool:
    """Whether an op has 4-, 8- or 16-bit activations or weights; shapes and axes are 32-bit integers."""
    touched = graph.indices(operator.inputs) + graph.indices(operator.outputs)
    tensors = graph.main(model).tensors
    return any(graph.type_name(tensors[tensor]) in _INTEGERS for tensor in touched if tensor >= 0)


def _reader(exact: bytes, artifact: bytes, measured: _Measured) -> Callable[[], _Reader]:
    points = [version for point in measured.points for version in point.versions]
    forced = forcing.forced(exact, measured.versions)
    disturbed = forcing.disturbed(exact, measured.versions, points)
    return lambda: _Reader(exact, artifact, measured, forced, disturbed)


class _Reader:
    """Interpreters of the four graphs; the flatbuffers live as long as they do."""

    def __init__(
        self,
        exact: bytes,
        artifact: bytes,
        measured: _Measured,
        forced: forcing.Forced,
        disturbed: forcing.Disturbed,
    ) -> None:
        self._held = (exact, artifact)
        self._measured, self._forced, self._disturbed = measured, forced, disturbed
        self._exact = open_interpreter(exact, preserve_all_tensors=True)
        self._artifact = open_interpreter(artifact, preserve_all_tensors=True)
        self._forced_runs = open_interpreter(forced.model)
        self._disturbed_runs = open_interpreter(disturbed.model)
        # A signature's runner holds on to its interpreter, which then refuses to run by itself: so it has another.
        self._ports = Binding(open_interpreter(artifact))
        self._inputs = graph.signature_maps(measured.exact)[0]
        self._scales = {version: _scale(graph.main(measured.quantized).tensors[version]) for version in self.tensors}
        main = graph.main(measured.exact)
        shapes = {version: graph.shape(main.tensors[self._float(version)]) for version in disturbed.inputs}
        self._zeros = {
            tensor: np.zeros(shapes[version], np.float32) for version, tensor in disturbed.inputs.items()
        }

    @property
    def tensors(self) -> list[int]:
        return self._measured.tensors

    def _float(self, version: int) -> int:
        return self._measured.matching.tensors[version]

    def read(self, feed: Feed) -> _Sums:
        """Run the four graphs on one sample."""
        run_sample(self._exact, feed)
        sample = {name: feed[tensor] for name, tensor in self._inputs.items()}
        encoded = encode(self._ports.inputs, sample, "")
        run_sample(self._artifact, {port.index: encoded[port.name] for port in self._ports.inputs})
        values = {version: self._value(version) for version in self.tensors}
        run_sample(self._forced_runs, {**feed, **{t: values[version] for version, t in self._forced.inputs.items()}})
        exact = [self._get_exact(self._float(version), feed) for version in self.tensors]
        own = {version: values[version] - self._without_own(version, values, feed) for version in self.tensors}
        output_signal, output_error = self._outputs()
        return _Sums(
            signal=np.array([_squares(each) for each in exact]),
            error=np.array([_squares(values[v] - each) for v, each in zip(self.tensors, exact, strict=True)]),
            own=np.array([_squares(own[version]) for version in self.tensors]),
            caused=self._caused(feed, own),
            output_signal=output_signal,
            output_error=output_error,
        )

    def _value(self, version: int) -> NDArray[np.float32]:
        """Return the real values of a version. A scalar stays an array."""
        raw = np.asarray(self._artifact.get_tensor(version))
        scale = self._scales[version]
        return raw.astype(np.float32) if scale is None else dequantize(raw, *scale)

    def _get_exact(self, tensor: int, feed: Feed) -> NDArray[np.float32]:
        return feed[tensor] if tensor in feed else np.asarray(self._exact.get_tensor(tensor))

    def _without_own(
        self, version: int, values: Mapping[int, NDArray[np.float32]], feed: Feed
    ) -> NDArray[np.float32]:
        """Return what a version would be if the op that makes it added nothing."""
        parent, tensor = self._measured.versions.parent(version), self._float(version)
        if parent is not None:
            return values[parent]
        return feed[tensor] if tensor in feed else np.asarray(self._forced_runs.get_tensor(tensor))

    def _outputs(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        signal, error = [], []
        for port in self._ports.outputs:
            if port.name in self._measured.outputs:
                exact = np.asarray(self._exact.get_tensor(self._measured.outputs[port.name]))
                raw = np.asarray(self._artifact.get_tensor(port.index))
                found = raw if port.scale is None else dequantize(raw, port.scale, port.zero_point)
                signal.append(_squares(exact))
                error.append(_squares(found - exact))
        return np.array(signal), np.array(error)

    def _caused(self, feed: Feed, own: Mapping[int, NDArray[np.float32]]) -> NDArray[np.float64]:
        """Return [P, O]: the squared change of each output by each point's own error alone."""
        undisturbed = self._disturbed_outputs({**feed, **self._zeros})
        found = np.zeros((len(self._measured.points), len(undisturbed)))
        for place, point in enumerate(self._measured.points):
            if not any(own[version].any() for version in point.versions):
                continue
            given = {self._disturbed.inputs[version]: own[version] for version in point.versions}
            changed = self._disturbed_outputs({**feed, **self._zeros, **given})
            found[place] = [_squares(one - other) for one, other in zip(changed, undisturbed, strict=True)]
        return found

    def _disturbed_outputs(self, feed: Feed) -> list[NDArray[np.float32]]:
        run_sample(self._disturbed_runs, feed)
        names = [port.name for port in self._ports.outputs if port.name in self._measured.outputs]
        return [np.asarray(self._disturbed_runs.get_tensor(self._disturbed.outputs[name])) for name in names]


def _scale(tensor: graph.TensorT) -> tuple[float, int] | None:
    """Return scale and zero point of an activation, None where it holds real values."""
    how = tensor.quantization
    if graph.type_name(tensor) not in _INTEGERS or how is None or how.scale is None or len(how.scale) != 1:
        return None
    return float(how.scale[0]), int(how.zeroPoint[0]) if how.zeroPoint is not None and len(how.zeroPoint) else 0


def _squares(values: NDArray[Any]) -> float:
    return float(np.square(values, dtype=np.float64).sum())


# The result ------------------------------------------------------------------------------------------------------


def _told(measured: _Measured, sums: _Sums, count: int) -> Json:
    names = [name for name in graph.signature_maps(measured.quantized)[1] if name in measured.outputs]
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
        "outputs": [{"name": name, "sqnr_db": noise.decibels(signal[name], error[name])} for name in names],
        "tensors": _tensor_rows(measured, sums, count),
        "ops": _op_rows(measured, sums, count, list(zip(op_noise, shares, strict=True))),
        "unmatched_tensors": unmatched,
        "unmatched_ops": [_unmatched(measured.quantized, index) for index in measured.matching.unmatched],
    }


def _tensor_rows(measured: _Measured, sums: _Sums, count: int) -> list[Json]:
    main, exact = graph.main(measured.quantized), graph.main(measured.exact)
    given = set(graph.indices(exact.inputs))
    rows = []
    for place, version in enumerate(measured.tensors):
        tensor, stands_for = main.tensors[version], measured.matching.tensors[version]
        scale = _scale(tensor)
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


def _op_rows(measured: _Measured, sums: _Sums, count: int, found: list[tuple[float, float]]) -> list[Json]:
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
    measured: _Measured, kinds: list[str], layers: Mapping[int, str], index: int | None, made: tuple[int, ...]
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
