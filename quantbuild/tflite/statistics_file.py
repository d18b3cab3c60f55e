"""statistics.npz: what calibration measured, the one file that ranges and bias correction are computed from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantbuild.tflite import arrays_file


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Ranges and moments of T float32 activations over S samples. Arrays are named as in the file.

    A tensor's place in these arrays is its *row*; its index in the flatbuffer is in `tensor_indices`.
    Where only the samples' extremes were asked for, `power` and what is kept for each channel are empty.
    """

    tensor_names: tuple[str, ...]
    """[T] names in the main subgraph, graph inputs first, then in execution order; not always unique."""
    tensor_indices: NDArray[np.int32]
    """[T] index in the main subgraph."""
    sample_indices: NDArray[np.int64]
    """[S] numbers of the samples in the dataset, in the order in which they were read."""
    sample_min: NDArray[np.float32]
    """[S, T] each sample's smallest value."""
    sample_max: NDArray[np.float32]
    """[S, T] each sample's largest value."""
    channel_offsets: NDArray[np.int64]
    """[T + 1] row t's channels are ``channel_mean[channel_offsets[t]:channel_offsets[t + 1]]``."""
    channel_mean: NDArray[np.float64]
    """Mean over samples and all axes but the last."""
    power: NDArray[np.float64]
    """[T] mean of squares over samples and all axes."""
    channel_min: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """Smallest value over samples and all axes but the last; channels lie as in `channel_mean`."""
    channel_max: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """Largest value, likewise."""

    def minmax(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return (low, high), each [T]: the extremes over all samples."""
        return self.sample_min.min(axis=0), self.sample_max.max(axis=0)

    def rows(self) -> dict[int, int]:
        """Return tensor index → row."""
        return {int(tensor): row for row, tensor in enumerate(self.tensor_indices)}

    def means(self, row: int) -> NDArray[np.float64]:
        """Return the [C] channel means of one row."""
        return self.channel_mean[self.channel_offsets[row] : self.channel_offsets[row + 1]]

    def magnitudes(self, row: int) -> NDArray[np.float32]:
        """Return the [C] largest magnitudes of one row's channels, over all samples."""
        channels = slice(self.channel_offsets[row], self.channel_offsets[row + 1])
        return np.maximum(-self.channel_min[channels], self.channel_max[channels])


def write(path: Path, statistics: Statistics) -> None:
    """Write deterministically."""
    arrays_file.write(path, statistics)


def read(path: Path) -> Statistics:
    """Raise StepError when the file is damaged or of another kind."""
    return arrays_file.read(path, Statistics, "calibration statistics")
