"""Takes a set's facts while its samples pass by, one after the other: a small share of what an inference costs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantbuild.lint.facts import Image, InputFacts, Kind, SetFacts

LOOKED_AT = 512
"""Most samples that figures are taken of, evenly spread over the set."""
COLUMNS = 64
PATCH = 64
"""Longest side of the middle part of a picture that is looked at."""
SMALLEST_SIDE = 8
CHANNELS = (1, 3, 4)
POOLED = 32_768
"""Values kept for the distribution, over all samples."""
POINTS = 1024
"""Where two distributions are compared."""
DIGEST_DIGITS = 16


class Port(NamedTuple):
    """An input of the model that was fed."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Fingerprint:
    """The facts of one set of samples; `count` is how many will come."""

    def __init__(self, dataset: str, ports: Sequence[Port], count: int) -> None:
        self._dataset = dataset
        self._every = max(1, math.ceil(count / LOOKED_AT))
        per_sample = max(1, POOLED // max(1, math.ceil(count / self._every)))
        self._inputs = {port.name: _InputTally(port, per_sample) for port in ports}
        self._numbers: list[int] = []
        self._digests: list[str] = []
        self._samples = self._looked_at = 0

    def add(self, number: int, fed: Mapping[str, NDArray[Any]]) -> None:
        """Add one sample: its number in the dataset, and the arrays that the model is given, by input name."""
        look = self._samples % self._every == 0
        self._samples += 1
        self._looked_at += look
        self.add_digest(number, fed)
        for name, tally in self._inputs.items():
            tally.add(number, fed[name], look=look)

    def add_digest(self, number: int, fed: Mapping[str, NDArray[Any]]) -> None:
        """Add a sample that belongs to the set and is not looked at."""
        self._numbers.append(number)
        self._digests.append(digest(fed))

    def facts(self) -> SetFacts:
        """Return what is known so far."""
        return SetFacts(
            dataset=self._dataset,
            samples=self._samples,
            looked_at=self._looked_at,
            inputs=tuple(tally.facts() for tally in self._inputs.values()),
            numbers=tuple(self._numbers),
            digests=tuple(self._digests),
        )


def digest(fed: Mapping[str, NDArray[Any]]) -> str:
    """Return a digest of a sample's arrays, whatever the order of its inputs."""
    found = hashlib.sha256()
    for name in sorted(fed):
        array = np.ascontiguousarray(fed[name])
        found.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        found.update(array.data if array.size else b"")
    return found.hexdigest()[:DIGEST_DIGITS]


def kind_of(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Kind:
    """Return whether an input is a picture, by its shape: four axes, two of 8 or more, and 1, 3 or 4 channels."""
    if len(shape) == 4 and dtype.kind in "fiu":
        if shape[3] in CHANNELS and min(shape[1], shape[2]) >= SMALLEST_SIDE:
            return "image_nhwc"
        if shape[1] in CHANNELS and min(shape[2], shape[3]) >= SMALLEST_SIDE:
            return "image_nchw"
    return "numbers" if dtype.kind == "f" else "integers"


class _InputTally:
    def __init__(self, port: Port, pooled_per_sample: int) -> None:
        self._port = port
        self._kind = kind_of(port.shape, port.dtype)
        self._pooled_per_sample = pooled_per_sample
        self._constant: list[int] = []
        self._zero: list[int] = []
        self._low, self._high = math.inf, -math.inf
        self._values = _Moments()
        self._pool: list[NDArray[Any]] = []
        self._columns = _Moments()
        self._image = _ImageTally() if self._kind.startswith("image") else None

    def add(self, number: int, array: NDArray[Any], *, look: bool) -> None:
        if array.size == 0:
            return
        low, high = float(array.min()), float(array.max())
        self._low, self._high = min(self._low, low), max(self._high, high)
        if low == high:
            self._constant.append(number)
            if low == 0:
                self._zero.append(number)
        if look:
            self._look(array)

    def _look(self, array: NDArray[Any]) -> None:
        flat = array.reshape(-1)
        self._values.add(flat.sum(dtype=np.float64), np.square(flat, dtype=np.float64).sum(), flat.size)
        self._pool.append(_spread(flat, self._pooled_per_sample).copy())
        if self._image is not None:
            self._image.add(array if self._kind == "image_nhwc" else np.moveaxis(array, 1, 3))
        elif array.ndim > 1:
            columns = _spread(array.reshape(-1, array.shape[-1]).T, COLUMNS).astype(np.float64)
            self._columns.add(columns.sum(axis=1), np.square(columns).sum(axis=1), columns.shape[1])

    def facts(self) -> InputFacts:
        known = self._values.count > 0
        mean, std = self._values.mean_and_std() if known else (None, None)
        column_mean, column_std = self._columns.mean_and_std() if self._columns.count else ((), ())
        uniform, normal = _distances(np.concatenate(self._pool)) if known else (None, None)
        return InputFacts(
            name=self._port.name,
            kind=self._kind,
            shape=self._port.shape,
            dtype=str(self._port.dtype),
            mean=None if mean is None else float(mean),
            std=None if std is None else float(std),
            low=self._low if known else None,
            high=self._high if known else None,
            column_mean=tuple(map(float, column_mean)),
            column_std=tuple(map(float, column_std)),
            constant=tuple(self._constant),
            zero=tuple(self._zero),
            from_uniform=uniform,
            from_normal=normal,
            image=self._image.facts() if self._image is not None and known else None,
        )


class _Moments:
    """Sums over samples, of numbers or of vectors."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: Any = 0.0
        self._squares: Any = 0.0

    def add(self, total: Any, squares: Any, count: int) -> None:
        self._sum = self._sum + total
        self._squares = self._squares + squares
        self.count += count

    def mean_and_std(self) -> tuple[Any, Any]:
        mean = self._sum / self.count
        return mean, np.sqrt(np.maximum(self._squares / self.count - mean**2, 0.0))


class _ImageTally:
    """Channels and neighbours of pictures with their channels last, in the middle of each."""

    def __init__(self) -> None:
        self._channels = _Moments()
        self._all = _Moments()
        self._steps = {1: _Moments(), 2: _Moments()}
        self._differences: list[float] = []

    def add(self, picture: NDArray[Any]) -> None:
        middle = np.ascontiguousarray(_middle(picture), np.float64)
        pixels = middle.shape[1] * middle.shape[2]
        totals, squares = middle.sum(axis=(0, 1, 2)), np.square(middle).sum(axis=(0, 1, 2))
        self._channels.add(totals, squares, pixels)
        self._all.add(totals.sum(), squares.sum(), middle.size)
        self._differences.append(float(totals[0] - totals[-1]) / pixels)
        for axis, steps in self._steps.items():
            step = np.diff(middle, axis=axis)
            steps.add(step.sum(), np.square(step).sum(), step.size)

    def facts(self) -> Image:
        mean, std = self._channels.mean_and_std()
        return Image(
            channel_mean=tuple(map(float, mean)),
            channel_std=tuple(map(float, std)),
            first_minus_last=float(np.mean(self._differences)),
            first_minus_last_std=float(np.std(self._differences)),
            down=self._correlation(1),
            across=self._correlation(2),
        )

    def _correlation(self, axis: int) -> float:
        """Return 1 − E[(a − b)²] / 2σ² of neighbours a and b: their correlation where all pixels have one mean."""
        _, spread = self._all.mean_and_std()
        mean, std = self._steps[axis].mean_and_std()
        return float(1 - (mean**2 + std**2) / (2 * spread**2)) if spread > 0 else 0.0


def _middle(picture: NDArray[Any]) -> NDArray[Any]:
    height, width = picture.shape[1:3]
    top, left = max(0, height - PATCH) // 2, max(0, width - PATCH) // 2
    return picture[:, top : top + PATCH, left : left + PATCH]


def _spread(values: NDArray[Any], most: int) -> NDArray[Any]:
    """Return at most `most` entries of the first axis, evenly spread over it."""
    return values[:: max(1, math.ceil(len(values) / most))]


def _distances(values: NDArray[Any]) -> tuple[float | None, float | None]:
    """Return how far the values' distribution is from a uniform and from a normal one; None where all are equal."""
    ordered = np.sort(values.astype(np.float64))
    low, high, mean, std = ordered[0], ordered[-1], ordered.mean(), ordered.std()
    if std == 0:
        return None, None
    points = _spread(ordered, POINTS)
    # Between the two, so that values on a grid (pixels) are not far from a smooth distribution by their steps alone.
    below, at_most = (np.searchsorted(ordered, points, side=side) for side in ("left", "right"))
    share = (below + at_most) / 2 / len(ordered)
    uniform = np.abs(share - (points - low) / (high - low)).max()
    normal_share = [0.5 + math.erf((point - mean) / (std * math.sqrt(2))) / 2 for point in points]
    return float(uniform), float(np.abs(share - normal_share).max())
