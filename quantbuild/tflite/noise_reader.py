"""Runs one sample through the four graphs that take a quantized model's noise apart; see `sensitivity`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantbuild.tflite import forcing, graph
from quantbuild.tflite.feeding import Feed, encode
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


class NoiseReader:
    """Interpreters of the four graphs; the flatbuffers live as long as they do."""

    def __init__(
        self,
        exact: bytes,
        artifact: bytes,
        measured: Measured,
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
        main = graph.main(measured.exact)
        shapes = {version: graph.shape(main.tensors[self._float(version)]) for version in disturbed.inputs}
        self._zeros = {tensor: np.zeros(shapes[version], np.float32) for version, tensor in disturbed.inputs.items()}

    def _float(self, version: int) -> int:
        return self._measured.matching.tensors[version]

    def read(self, feed: Feed) -> Sums:
        """Run the four graphs on one sample."""
        run_sample(self._exact, feed)
        sample = {name: feed[tensor] for name, tensor in self._inputs.items()}
        encoded = encode(self._ports.inputs, sample, "")
        run_sample(self._artifact, {port.index: encoded[port.name] for port in self._ports.inputs})
        values = {version: self._value(version) for version in self._measured.tensors}
        run_sample(self._forced_runs, {**feed, **{t: values[version] for version, t in self._forced.inputs.items()}})
        exact = [self._get_exact(self._float(version), feed) for version in self._measured.tensors]
        own = {
            version: values[version] - self._without_own(version, values, feed) for version in self._measured.tensors
        }
        output_signal, output_error = self._outputs(feed)
        return Sums(
            signal=np.array([_squares(each) for each in exact]),
            error=np.array([_squares(values[v] - each) for v, each in zip(self._measured.tensors, exact, strict=True)]),
            own=np.array([_squares(own[version]) for version in self._measured.tensors]),
            caused=self._caused(feed, own),
            output_signal=output_signal,
            output_error=output_error,
        )

    def _value(self, version: int) -> NDArray[np.float32]:
        """Return the real values of a version. A scalar stays an array."""
        raw = np.asarray(self._artifact.get_tensor(version))
        scale = scale_of(graph.main(self._measured.quantized).tensors[version])
        return raw.astype(np.float32) if scale is None else dequantize(raw, *scale)

    def _get_exact(self, tensor: int, feed: Feed) -> NDArray[np.float32]:
        return feed[tensor] if tensor in feed else np.asarray(self._exact.get_tensor(tensor))

    def _without_own(self, version: int, values: Mapping[int, NDArray[np.float32]], feed: Feed) -> NDArray[np.float32]:
        """Return what a version would be if the op that makes it added nothing."""
        parent, tensor = self._measured.versions.parent(version), self._float(version)
        if parent is not None:
            return values[parent]
        return feed[tensor] if tensor in feed else np.asarray(self._forced_runs.get_tensor(tensor))

    def _outputs(self, feed: Feed) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        signal, error = [], []
        for place in self._measured.places:
            exact = self._get_exact(place.tensor, feed)
            signal.append(_squares(exact))
            error.append(_squares(self._value(place.held) - exact))
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
        return [np.asarray(self._disturbed_runs.get_tensor(tensor)) for tensor in self._disturbed.places]


def _squares(values: NDArray[Any]) -> float:
    return float(np.square(values, dtype=np.float64).sum())
