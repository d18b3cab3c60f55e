"""What a dataset is to the steps that read it, and which of its samples they read, in which order."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from quantbuild.errors import StepError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Two streams of one seed: the draw and the part held back must not share their random numbers.
_DRAW, _HOLD_BACK = 0, 1


class Samples(Protocol):
    """A dataset opened by its loader.

    `labels` holds one label per sample (shape ``[n]`` or ``[n, ...]``), `slices` the name of each
    sample's business slice; None where the dataset has none.
    """

    labels: NDArray[Any] | None
    slices: list[str] | None

    def __len__(self) -> int:
        """Count of samples."""
        ...

    def __getitem__(self, index: int, /) -> dict[str, NDArray[Any]]:
        """Return signature input name to array with a batch axis of 1; the name "" is the only input's."""
        ...


def load(dataset: dict[str, Any], root: Path) -> tuple[Samples, list[int]]:
    """Open the dataset of a step's parameters and choose its samples.

    `dataset` is ``{"loader", "options", "samples", "seed", "name"}``. Raises StepError, led by the
    dataset's name, when it cannot be read or holds fewer samples than asked for.
    """
    place = f"dataset {dataset['name']}"
    module = importlib.import_module(f"quantbuild.datasets.{dataset['loader']}")
    try:
        samples: Samples = module.open_samples(msgspec.convert(dataset["options"], module.Options), root)
    except StepError as error:
        raise StepError(f"{place}: {error}") from error
    count, wanted = len(samples), dataset["samples"]
    if count == 0:
        raise StepError(f"{place}: holds no sample; give it at least one")
    if wanted is not None and wanted > count:
        raise StepError(f"{place}: samples = {wanted}, but it holds {count}; lower samples or leave it out")
    return samples, draw(count, samples.labels, wanted, dataset["seed"])


def place(dataset: dict[str, Any]) -> str:
    """Return what a message about one of a dataset's samples begins with: its name and where it is read from."""
    path = dataset["options"].get("path")
    return f"{dataset['name']} ({path})" if path else str(dataset["name"])


def draw(count: int, labels: NDArray[Any] | None, samples: int | None, seed: int) -> list[int]:
    """Choose `samples` of `count` indices: a seeded shuffle, cut so that every label keeps its share.

    Labels that are no classes (none, or not one whole number or string per sample) give a plain
    seeded shuffle. Without `samples` it is every index in the set's own order: nothing is chosen, so
    nothing depends on the seed, and a sample's number is its place in the file.
    """
    if samples is None:
        return list(range(count))
    order = _shuffled(count, seed, _DRAW)
    classes = _classes(labels)
    if classes is None:
        return order[:samples]
    return _stratified(order, classes, samples)


def hold_back(
    indices: Sequence[int], labels: NDArray[Any] | None, fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Split chosen samples into (kept, held back), both in the order given, every label by its share.

    At least one sample is on either side. Raises StepError when there are fewer than two.
    """
    if len(indices) < 2:
        raise StepError(
            f"{len(indices)} sample cannot be split in two; "
            "give the calibration set more samples or name a selection set"
        )
    wanted = min(max(round(fraction * len(indices)), 1), len(indices) - 1)
    order = _shuffled(len(indices), seed, _HOLD_BACK)
    classes = _classes(labels if labels is None else labels[list(indices)])
    held = set(order[:wanted] if classes is None else _stratified(order, classes, wanted))
    return (
        [index for place, index in enumerate(indices) if place not in held],
        [index for place, index in enumerate(indices) if place in held],
    )


def _shuffled(count: int, seed: int, stream: int) -> list[int]:
    """Return the numbers below `count` in an order that depends on `seed` and `stream` alone.

    Sorted by PCG64's raw 64-bit output: numpy promises that stream for every version, but not what
    Generator.shuffle makes of it (NEP 19).
    """
    import numpy as np

    raw: NDArray[np.uint64] = np.random.PCG64(np.random.SeedSequence([seed, stream])).random_raw(count)
    return [int(index) for index in np.argsort(raw, kind="stable")]


def _classes(labels: NDArray[Any] | None) -> list[int] | None:
    """Return each sample's class number, or None where the labels name no classes."""
    import numpy as np

    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "biuUS":
        return None
    return [int(number) for number in np.unique(labels, return_inverse=True)[1]]


def _stratified(order: list[int], classes: list[int], samples: int) -> list[int]:
    """Cut a shuffled order to `samples`, each class by its share (largest remainder).

    Equal remainders go to the class met first in the shuffled order: to the first class by number, a
    set of few samples would always lack the same classes.
    """
    members: dict[int, list[int]] = {}
    for index in order:
        members.setdefault(classes[index], []).append(index)
    quotas = {label: samples * len(found) // len(order) for label, found in members.items()}
    by_remainder = sorted(members, key=lambda label: -(samples * len(members[label]) % len(order)))
    for label in by_remainder[: samples - sum(quotas.values())]:
        quotas[label] += 1
    chosen = {index for label, found in members.items() for index in found[: quotas[label]]}
    return [index for index in order if index in chosen]
