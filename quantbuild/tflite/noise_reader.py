"""Runs one sample through the four graphs that take a quantized model's noise apart; see `sensitivity`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantbuild.tflite import forcing, graph
from quantbuild.tflite.feeding import Feed, Port, encode
from quantbuild.tflite.noise_points import Measured, scale_of
from quantbuild.tflite.readers import run_sample
from quantbuild.tflite.runtime import Binding, dequantize, open_interpreter


class Sums(NamedTuple):
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


@dataclass(frozen=True, kw_only=True)
class Graphs:
    """What runs for each sample, and how the artifact's inputs are given."""

    exact: bytes
    artifact: bytes
    forced: forcing.Forced
    disturbed: forcing.Disturbed
    ports: tuple[Port, ...]


def graphs(exact: bytes, artifact: bytes, measured: Measured) -> Graphs:
    """Return the float model `exact`, `artifact` and the two edited graphs, with all that is read as outputs."""
    versions = measured.versions
    points = [version for point in measured.points for version in point.versions]
    places = [(place.version, place.tensor) for place in measured.places]
    return Graphs(
        exact=forcing.exposed(exact, [*measured.matching.made, *(place.tensor for place in measured.places)]),
        artifact=forcing.exposed(artifact, [*measured.tensors, *(place.held for place in measured.places)]),
        forced=forcing.forced(exact, versions),
        disturbed=forcing.disturbed(exact, versions, points, places),
        ports=Binding(open_interpreter(artifact)).inputs,
    )


class NoiseReader:
    """Interpreters of the four graphs."""

    def __init__(self, run: Graphs, measured: Measured) -> None:
        self._run = run  # interpreters read from its bytes and do not own them
        self._measured = measured
        self._exact = open_interpreter(run.exact)
        self._artifact = open_interpreter(run.artifact)
        self._forced = open_interpreter(run.forced.model)
        self._disturbed = open_interpreter(run.disturbed.model)
        self._inputs = graph.signature_maps(measured.exact)[0]
        tensors, added = graph.main(measured.exact).tensors, run.disturbed.inputs
        shapes = {version: graph.shape(tensors[self._float(version)]) for version in added}
        self._zeros = {tensor: np.zeros(shapes[version], np.float32) for version, tensor in added.items()}

    def _float(self, version: int) -> int:
        return self._measured.matching.tensors[version]

    def read(self, feed: Feed) -> Sums:
        """Run the four graphs on one sample."""
        run_sample(self._exact, feed)
        sample = {name: feed[tensor] for name, tensor in self._inputs.items()}
        encoded = encode(self._run.ports, sample, "")
        given = {port.index: encoded[port.name] for port in self._run.ports}
        run_sample(self._artifact, given)
        values = {version: self._value(version, given) for version in self._measured.tensors}
        run_sample(self._forced, {**feed, **{t: values[version] for version, t in self._run.forced.inputs.items()}})
        gathered = np.array([self._gathered(version, values[version], feed) for version in self._measured.tensors])
        own = {
            version: values[version] - self._without_own(version, values, feed) for version in self._measured.tensors
        }
        output_signal, output_error = self._outputs(feed, given)
        return Sums(
            signal=gathered[:, 0],
            error=gathered[:, 1],
            own=np.array([_squares(own[version]) for version in self._measured.tensors]),
            caused=self._caused(feed, own),
            output_signal=output_signal,
            output_error=output_error,
        )

    def _value(self, version: int, given: Feed) -> NDArray[np.float32]:
        """Return the real values of a tensor of the artifact; an input's memory may hold another tensor by now."""
        raw = np.asarray(given[version] if version in given else self._artifact.get_tensor(version))
        scale = scale_of(graph.main(self._measured.quantized).tensors[version])
        return raw.astype(np.float32) if scale is None else dequantize(raw, *scale)

    def _gathered(self, version: int, value: NDArray[np.float32], feed: Feed) -> tuple[float, float]:
        """Return the squares of float32 and of what `value` differs from it."""
        exact = self._get_exact(self._float(version), feed)
        return _squares(exact), _squares(value - exact)

    def _get_exact(self, tensor: int, feed: Feed) -> NDArray[np.float32]:
        return feed[tensor] if tensor in feed else np.asarray(self._exact.get_tensor(tensor))

    def _without_own(self, version: int, values: Mapping[int, NDArray[np.float32]], feed: Feed) -> NDArray[np.float32]:
        """Return what a version would be if the op that makes it added nothing."""
        parent, tensor = self._measured.versions.parent(version), self._float(version)
        if parent is not None:
            return values[parent]
        return feed[tensor] if tensor in feed else np.asarray(self._forced.get_tensor(tensor))

    def _outputs(self, feed: Feed, given: Feed) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        signal, error = [], []
        for place in self._measured.places:
            exact = self._get_exact(place.tensor, feed)
            signal.append(_squares(exact))
            error.append(_squares(self._value(place.held, given) - exact))
        return np.array(signal), np.array(error)

    def _caused(self, feed: Feed, own: Mapping[int, NDArray[np.float32]]) -> NDArray[np.float64]:
        """Return [P, O]: the squared change of each output by each point's own error alone."""
        undisturbed = self._disturbed_outputs({**feed, **self._zeros})
        found = np.zeros((len(self._measured.points), len(undisturbed)))
        for place, point in enumerate(self._measured.points):
            if not any(own[version].any() for version in point.versions):
                continue
            given = {self._run.disturbed.inputs[version]: own[version] for version in point.versions}
            changed = self._disturbed_outputs(given)
            found[place] = [_squares(one - other) for one, other in zip(changed, undisturbed, strict=True)]
            for tensor in given:
                self._disturbed.set_tensor(tensor, self._zeros[tensor])
        # Inputs keep what they were given, so only what changes is given anew: that saves half of the time.
        again = self._disturbed_outputs({})
        if not all(np.array_equal(one, other) for one, other in zip(again, undisturbed, strict=True)):
            raise RuntimeError("the runtime does not keep the inputs it was given")
        return found

    def _disturbed_outputs(self, feed: Feed) -> list[NDArray[np.float32]]:
        run_sample(self._disturbed, feed)
        return [np.asarray(self._disturbed.get_tensor(tensor)) for tensor in self._run.disturbed.places]


def _squares(values: NDArray[Any]) -> float:
    return float(np.square(values, dtype=np.float64).sum())
