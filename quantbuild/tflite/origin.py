"""Which of several float models an artifact was quantized from: the one whose weights it has, rounded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from quantbuild.tflite import graph
from quantbuild.tflite.matching import match

Pair = tuple[int, NDArray[np.float64]]


def nearest(models: Sequence[graph.ModelT], artifact: graph.ModelT) -> int:
    """Return which of `models` has the weights of `artifact`; the first of equals.

    The models differ in their constants alone, as an equalized one does from what it was made of. Rounding to 8 bits
    changes a weight by a small part of the largest one, another scale of its channel by far more.
    """
    pairs = list(_weights(models[0], artifact))
    distances = [sum(_distance(model, tensor, real) for tensor, real in pairs) for model in models]
    return int(np.argmin(distances))


def _weights(model: graph.ModelT, artifact: graph.ModelT) -> Iterator[Pair]:
    """Yield each constant tensor of `model` that ops read, and its real values in the artifact, of the same shape."""
    main, made = graph.main(model), graph.main(artifact)
    for quantized, exact in match(model, artifact).operators.items():
        read = graph.indices(made.operators[quantized].inputs), graph.indices(main.operators[exact].inputs)
        for here, there in zip(*read, strict=False):  # a quantizer may add a bias
            if min(here, there) < 0 or graph.type_name(main.tensors[there]) != "FLOAT32":
                continue
            real = _real(artifact, made.tensors[here])
            if real is not None and real.shape == graph.shape(main.tensors[there]):
                yield there, real


def _real(model: graph.ModelT, tensor: graph.TensorT) -> NDArray[np.float64] | None:
    """Return the real values of a float or int8 constant; None for all else, such as a bias of 32 bits."""
    stored = graph.constant(model, tensor)
    if stored is None or graph.type_name(tensor) not in ("FLOAT32", "INT8"):
        return None
    if graph.type_name(tensor) == "FLOAT32":
        return stored.astype(np.float64)
    how = tensor.quantization
    if how is None or how.scale is None or not len(how.scale):
        return None
    along = [1] * stored.ndim
    if len(how.scale) > 1:
        along[how.quantizedDimension] = -1
    scale, zero = (np.asarray(each, np.float64).reshape(along) for each in (how.scale, how.zeroPoint))
    return np.asarray((stored - zero) * scale, np.float64)


def _distance(model: graph.ModelT, tensor: int, real: NDArray[np.float64]) -> float:
    """Return the squared difference from a constant of `model`, as a part of the artifact's own square."""
    exact = graph.constant(model, graph.main(model).tensors[tensor])
    power = float(np.square(real).sum())
    return 0.0 if exact is None or power == 0 else float(np.square(exact - real).sum()) / power
