"""Fillers that mean "never": how far down a range must go where a value can only be the least.

An attention mask adds −10⁴ or −10⁹ to the scores that a SOFTMAX must not see, or selects −3·10³⁸ in their place; a
padding before a MAX_POOL is −3·10³⁸. A range that holds such a value has no step left for the others: one of 40 before
a SOFTMAX gives nonsense, and XNNPACK refuses scales so far apart. Cut off a little below the least true value it means
the same: its share of the SOFTMAX is nothing, and the pool never takes it. Only where *all* places are filled, as in a
row of attention that is masked throughout, do results differ; they say nothing there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np

from quantbuild.tflite import graph, layers

Ranges: TypeAlias = dict[int, tuple[float, float]]

NOTHING = 16.0
"""exp(−16) is 10⁻⁷, a thirty-thousandth of the step of a SOFTMAX's int8 result."""
_NEVER = -1000.0
"""What is added to a score, or stands in its place, is a filler from here on, if it is also far beyond the scores."""
_FAR = 10.0
_SELECTING = {"SELECT": (1, 2), "SELECT_V2": (1, 2), "PADV2": (0, 2)}
"""Op → places of the two values that it takes its result from."""
_MOVING = frozenset({"BROADCAST_TO", "EXPAND_DIMS", "RESHAPE", "SQUEEZE", "TILE", "TRANSPOSE"})
_TAKING_THE_LARGEST = frozenset({"MAX_POOL_2D", "REDUCE_MAX"})


def raised(model: graph.ModelT, whole: Mapping[int, tuple[float, float]]) -> Ranges:
    """Return new ranges for those of the tensors `whole`, with all that calibration saw, that hold a filler."""
    return _Floors(model, whole).found


def shorten(model: graph.ModelT, whole: Mapping[int, tuple[float, float]]) -> None:
    """Scale the constants of `model`, which is changed, that masks with raised ranges are multiplied from.

    XNNPACK refuses a product whose operands' scales are too large for it.
    """
    main, found = graph.main(model), raised(model, whole)
    for number, (operator, op) in enumerate(zip(main.operators, graph.op_names(model), strict=True)):
        output = graph.indices(operator.outputs)[:1]
        if op != "MUL" or output[0] not in found:
            continue
        for place, tensor in enumerate(graph.indices(operator.inputs)):
            value = graph.constant(model, main.tensors[tensor])
            if value is not None:
                shorter = value.astype(np.float64) * (found[output[0]][0] / whole[output[0]][0])
                layers.set_constant(model, number, place, shorter.astype(np.float32))
                break


class _Floors:
    """Walks from every SOFTMAX and pool to what fills their input."""

    def __init__(self, model: graph.ModelT, whole: Mapping[int, tuple[float, float]]) -> None:
        self._model, self._main, self._whole = model, graph.main(model), whole
        self._ops = graph.op_names(model)
        self._readers, self._makers = graph.consumers(self._main), graph.producers(self._main)
        self._outputs = frozenset(graph.indices(self._main.outputs))
        self.found: Ranges = {}
        masks: dict[int, dict[int, float]] = {}
        for number, op in enumerate(self._ops):
            if op in _SELECTING:
                self._select(number, _SELECTING[op])
            elif op == "ADD":
                self._add(number, masks)
        for mask, needed in masks.items():
            self._mask(mask, needed)

    def _select(self, number: int, places: tuple[int, int]) -> None:
        """A constant stands in the place of true values."""
        inputs, output = graph.indices(self._main.operators[number].inputs), self._output(number)
        margin = self._margin(output)
        for place, other in (places, places[::-1]):
            value = graph.constant(self._model, self._main.tensors[inputs[place]])
            low = self._whole.get(inputs[other], (None, 0.0))[0]
            if margin is None or low is None or value is None or value.dtype != np.float32:
                continue
            if value.max() <= min(_NEVER, low - margin):
                self.found[output] = low - margin, self._whole[output][1]

    def _add(self, number: int, masks: dict[int, dict[int, float]]) -> None:
        """What is added to scores takes some of them away."""
        inputs, output = graph.indices(self._main.operators[number].inputs), self._output(number)
        if self._margin(output) != NOTHING or layers.activation(self._main.operators[number]) != "NONE":
            return
        for scores, mask in (inputs, inputs[::-1]):
            if scores == mask or scores not in self._whole or not {mask, output} <= self._whole.keys():
                continue
            (low, high), least = self._whole[scores], self._whole[mask][0]
            if least < min(_NEVER, -_FAR * (high - low)):
                self.found[output] = low - NOTHING, max(self._whole[output][1], 0.0)
                masks.setdefault(mask, {})[number] = low - high - NOTHING

    def _mask(self, mask: int, needed: Mapping[int, float]) -> None:
        """Raise a mask that nothing else reads, and what it is moved from."""
        if mask in self._outputs or set(self._readers[mask]) != set(needed):
            return
        low = min(needed.values())
        self.found[mask] = low, self._whole[mask][1]
        maker = self._makers.get(mask)
        if maker is not None and self._ops[maker] in _MOVING:
            given = graph.indices(self._main.operators[maker].inputs)[0]
            if given in self._whole:
                self._mask(given, {maker: low})

    def _margin(self, tensor: int) -> float | None:
        """Return how far below true values a filler must lie for those that read a tensor; None where it counts."""
        readers = [self._ops[reader] for reader in self._readers.get(tensor, [])]
        if not readers or tensor in self._outputs or tensor not in self._whole:
            return None
        return _margin_of(readers)

    def _output(self, number: int) -> int:
        return graph.indices(self._main.operators[number].outputs)[0]


def _margin_of(readers: Iterable[str]) -> float | None:
    kinds = set(readers)
    if kinds <= _TAKING_THE_LARGEST:
        return 0.0
    return NOTHING if kinds <= {"SOFTMAX"} | _TAKING_THE_LARGEST else None
