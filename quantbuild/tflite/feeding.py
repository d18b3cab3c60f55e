"""Turning a sample, arrays by signature name, into a feed for a float model's inputs, with every check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from quantbuild.errors import StepError
from quantbuild.tflite import graph
from quantbuild.tflite.readers import Feed

Sample: TypeAlias = Mapping[str, NDArray[Any]]
"""Signature input name → array with its batch axis; the name "" stands for the only input."""


def feeder(model: graph.ModelT, signature: str | None = None) -> Callable[[int, Sample], Feed]:
    """Return a function of (sample number, sample) that gives the feed.

    It raises StepError, led by the sample's number, for a missing or unknown input, a shape other than
    the model's, numbers that the input's dtype cannot hold, and NaN or infinity.
    """
    inputs, _ = graph.signature_maps(model, signature)
    tensors = {name: graph.main(model).tensors[index] for name, index in inputs.items()}

    def feed(number: int, sample: Sample) -> Feed:
        if list(sample) == [""] and len(inputs) == 1:
            sample = {next(iter(inputs)): sample[""]}
        _match(number, set(inputs), set(sample))
        return {inputs[name]: _encode(number, name, tensors[name], sample[name]) for name in inputs}

    return feed


def _match(number: int, wanted: set[str], given: set[str]) -> None:
    if wanted == given:
        return
    lacking, unknown = sorted(wanted - given), sorted(given - wanted)
    raise StepError(
        f"sample {number}: its arrays do not match the model's inputs (missing {lacking}, unknown {unknown}); "
        f"name one array for each of {sorted(wanted)} in the dataset"
    )


def _encode(number: int, name: str, tensor: graph.TensorT, value: Any) -> NDArray[Any]:
    """The array in the input's dtype. The interpreter would accept a missing batch axis and NaN silently."""
    array, kind, wanted = np.asarray(value), graph.dtype(tensor), list(graph.shape(tensor))
    place = f'sample {number}: input "{name}"'
    if list(array.shape) != wanted:
        cause = "it lacks the batch axis of 1" if [1, *array.shape] == wanted else "correct shape or layout"
        raise StepError(f"{place} has shape {list(array.shape)} where the model takes {wanted}; {cause}")
    if kind is None or kind.kind not in "fiub" or array.dtype.kind not in "fiub":
        raise StepError(f"{place} is {array.dtype} for a {graph.type_name(tensor)} tensor; give numbers")
    if not np.isfinite(array).all():
        raise StepError(f"{place} ({array.dtype}) holds NaN or infinity; repair or leave out the sample")
    cast = array.astype(kind)
    if kind.kind != "f" and not np.array_equal(cast, array):
        raise StepError(f"{place} ({array.dtype}) does not fit the model's {kind}; give whole numbers in its range")
    return cast
