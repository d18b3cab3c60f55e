"""What a model's outputs do over many samples: which never change, and which sit at the ends of their integer range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantbuild.tflite import graph

NOTICED = 0.01
"""Of an output's whole range in float32: an element that varies less there may stand still here without harm."""


class Limits(NamedTuple):
    """The real values that an integer output can take, and the distance between two of them."""

    low: float
    high: float
    step: float


class OutputTally:
    """One output, sample by sample, beside float32's where that is given."""

    def __init__(self, limits: Limits | None) -> None:
        self._limits = limits
        self._own: tuple[NDArray[Any], NDArray[Any]] | None = None
        self._reference: tuple[NDArray[Any], NDArray[Any]] | None = None
        self._counts = {"at_low": 0, "at_high": 0, "clipped": 0}
        self._samples = 0

    def add(self, values: NDArray[Any], reference: NDArray[Any] | None = None) -> None:
        """Add one sample's real values and float32's, of one shape."""
        self._samples += 1
        self._own = _widened(self._own, values)
        if reference is not None:
            self._reference = _widened(self._reference, reference)
        if self._limits is None:
            return
        low, high, step = self._limits
        self._counts["at_low"] += int(np.count_nonzero(values <= low + step / 2))
        self._counts["at_high"] += int(np.count_nonzero(values >= high - step / 2))
        if reference is not None:
            beyond = (reference > high + step) | (reference < low - step)
            self._counts["clipped"] += int(np.count_nonzero(beyond))

    def figures(self) -> dict[str, Any]:
        """Return what evaluation.json holds of the output.

        ``elements``; ``constant_elements``: those with one value on all samples; ``stuck_elements``: those of them
        that vary in float32 by more than a step and a hundredth of the output's range there (None without float32).
        Shares of all values, None for an output that is float to its core: ``at_low`` and ``at_high``, at the ends of
        its integer range; ``clipped``, where float32 lies more than a step beyond them.
        """
        assert self._own is not None, "an evaluation has at least one sample"
        low, high = self._own
        constant = low == high
        total = self._samples * low.size
        measured = self._limits is not None and total > 0
        shares = {name: count / total if measured else None for name, count in self._counts.items()}
        return {
            "elements": int(low.size),
            "constant_elements": int(np.count_nonzero(constant)) if self._samples > 1 else 0,
            "stuck_elements": self._stuck(constant) if self._samples > 1 else None,
            **shares,
        }

    def _stuck(self, constant: NDArray[np.bool_]) -> int | None:
        if self._reference is None:
            return None
        low, high = (bound.astype(np.float64) for bound in self._reference)
        step = self._limits.step if self._limits is not None else 0.0
        whole = float(high.max()) - float(low.min()) if low.size else 0.0
        return int(np.count_nonzero(constant & (high - low > max(step, NOTICED * whole))))


def limits(model: graph.ModelT) -> dict[str, Limits]:
    """Return signature output → its limits, where an integer tensor decides them.

    That is the output itself, or what a DEQUANTIZE makes it from.
    """
    main = graph.main(model)
    made = graph.producers(main)
    found: dict[str, Limits] = {}
    for name, index in graph.signature_maps(model)[1].items():
        tensor = main.tensors[index]
        operator = main.operators[made[index]] if index in made else None
        if operator is not None and graph.op_name(model, operator) == "DEQUANTIZE":
            tensor = main.tensors[graph.indices(operator.inputs)[0]]
        of_tensor = _limits_of(tensor)
        if of_tensor is not None:
            found[name] = of_tensor
    return found


def figures(tallies: Mapping[str, OutputTally]) -> list[dict[str, Any]]:
    """Return each output's figures with its name, in the signature's order."""
    return [{"name": name, **tally.figures()} for name, tally in tallies.items()]


def _limits_of(tensor: graph.TensorT) -> Limits | None:
    how, kind = tensor.quantization, graph.dtype(tensor)
    if how is None or how.scale is None or len(how.scale) != 1 or kind is None or kind.kind not in "iu":
        return None
    scale = float(how.scale[0])
    zero_point = int(how.zeroPoint[0]) if how.zeroPoint is not None and len(how.zeroPoint) else 0
    ends = np.iinfo(kind)
    return Limits((int(ends.min) - zero_point) * scale, (int(ends.max) - zero_point) * scale, scale)


def _widened(
    known: tuple[NDArray[Any], NDArray[Any]] | None, values: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    if known is None:
        return values.copy(), values.copy()
    low, high = known
    return np.minimum(low, values, out=low), np.maximum(high, values, out=high)
