"""One interpreter that runs a sample and reads its statistics: from the edited graph, or from every tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbuild.tflite.feeding import Feed
from quantbuild.tflite.instrumentation import Instrumented, Kind, Layout
from quantbuild.tflite.runtime import open_interpreter


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One sample's statistics of T tensors with C channels in all; moments None where not asked for."""

    minima: NDArray[np.float32]
    """[T]"""
    maxima: NDArray[np.float32]
    """[T]"""
    means: NDArray[np.floating[Any]] | None
    """[C]"""
    powers: NDArray[np.floating[Any]] | None
    """[T]"""
    channel_minima: NDArray[np.float32] | None = None
    """[C]"""
    channel_maxima: NDArray[np.float32] | None = None
    """[C]"""

    def is_finite(self) -> bool:
        """Whether nothing is NaN or infinite. XNNPACK's minimum and maximum skip NaN; the moments keep it."""
        parts = (self.minima, self.maxima, self.means, self.powers)
        return all(bool(np.isfinite(part).all()) for part in parts if part is not None)


class InGraph:
    """Runs an instrumented graph under XNNPACK."""

    def __init__(self, edited: Instrumented) -> None:
        self._edited = edited  # the interpreter reads from its bytes and does not own them
        self._interpreter = open_interpreter(edited.model)

    def read(self, feed: Feed) -> Reading:
        """Copy the packed results; float32."""
        run_sample(self._interpreter, feed)
        get, edited = self._interpreter.get_tensor, self._edited
        minima, maxima = get(edited.minima), get(edited.maxima)
        if edited.means is None or edited.powers is None:
            return Reading(minima=minima, maxima=maxima, means=None, powers=None)
        if not len(minima) == len(maxima) == edited.offsets[-1]:
            raise ValueError("the edited graph gives results of another size than its tensors have")
        begins = edited.offsets[:-1]
        return Reading(
            minima=np.minimum.reduceat(minima, begins),
            maxima=np.maximum.reduceat(maxima, begins),
            means=get(edited.means),
            powers=get(edited.powers),
            channel_minima=minima,
            channel_maxima=maxima,
        )


class AllTensors:
    """Runs the graph as it is with every tensor kept, and computes with NumPy in float64."""

    def __init__(self, model: bytes, measured: Layout, kind: Kind) -> None:
        self._model = model  # as above
        self._measured = measured
        self._kind = kind
        self._interpreter = open_interpreter(model, preserve_all_tensors=True)

    def values(self, feed: Feed) -> Iterator[NDArray[np.float32]]:
        """Run a sample and give each measured tensor as [-1, its channels]; one without elements as zeros."""
        run_sample(self._interpreter, feed)
        for tensor, channels in zip(self._measured.tensors, self._measured.channels, strict=True):
            value = self._interpreter.get_tensor(tensor)
            yield value.reshape(-1, channels) if value.size else np.zeros((1, channels), np.float32)

    def read(self, feed: Feed) -> Reading:
        """Reduce every tensor in turn; moments in float64."""
        minima, maxima, means, powers = [], [], [], []
        for value in self.values(feed):
            minima.append(value.min(axis=0))
            maxima.append(value.max(axis=0))
            if self._kind == "all":
                means.append(value.mean(axis=0, dtype=np.float64))
                powers.append(np.square(value, dtype=np.float64).mean())
        every = self._kind == "all"
        return Reading(
            minima=np.array([channels.min() for channels in minima], np.float32),
            maxima=np.array([channels.max() for channels in maxima], np.float32),
            means=np.concatenate(means) if every else None,
            powers=np.array(powers, np.float64) if every else None,
            channel_minima=np.concatenate(minima) if every else None,
            channel_maxima=np.concatenate(maxima) if every else None,
        )


def run_sample(interpreter: Any, feed: Feed) -> None:
    """Run one sample from the initial state: an LSTM's state must not leak from the sample before."""
    interpreter.reset_all_variables()
    for tensor, value in feed.items():
        interpreter.set_tensor(tensor, value)
    interpreter.invoke()
